"""Results that the server has not acknowledged yet, on disk: a node that is killed or cut off delivers them later,
once."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.host import own_file, own_folder
from joulebox.protocol import Finish, to_json

SPOOL: Final = "undelivered"
"""The spool's name in the node's data folder."""


class Spool:
    """A folder with one file per undelivered result, named by its token. It belongs to one node process at a time.

    Raises `JouleboxError("bad_setting")` where another one has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        own_folder(folder)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            sentence = f"Another node works in {folder.parent}: stop it, or give this one its own JOULEBOX_DATA_DIR."
            raise JouleboxError("bad_setting", sentence) from error

    def put(self, token: str, finish: Finish) -> Path:
        """Keep a result, whole or not at all."""
        path = self._folder / f"{token}.json"
        part = path.with_suffix(".part")
        own_file(part)
        with part.open("wb") as file:
            file.write(to_json(finish))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return path

    def waiting(self) -> Iterator[tuple[str, bytes]]:
        """Token and body of each undelivered result, oldest first."""
        for path in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            yield path.stem, path.read_bytes()

    def done(self, token: str) -> None:
        """Forget a result that was delivered or refused for good."""
        (self._folder / f"{token}.json").unlink(missing_ok=True)
