"""Results that the server has not acknowledged yet, on disk: a node that is killed or cut off delivers them later,
once.

What the disk does not take (it is full, or read-only) is kept in memory: an answer must not be lost, nor the node
end, because of that.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.host import fresh_file, kept_file, own_folder
from joulebox.protocol import Finish, to_json

LOG: Final = logging.getLogger("joulebox.node")
SPOOL: Final = "undelivered"
"""The spool's name in the node's data folder."""


class Spool:
    """A folder with one file per undelivered result, named by its token. It belongs to one node process at a time.

    Raises `JouleboxError("bad_setting")` where another one has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unkept: dict[str, bytes] = {}
        self._over: set[str] = set()
        own_folder(folder)
        self._lock = kept_file(folder / "lock")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            sentence = f"Another node works in {folder.parent}: stop it, or give this one its own JOULEBOX_DATA_DIR."
            raise JouleboxError("bad_setting", sentence) from error

    def put(self, token: str, finish: Finish) -> Path:
        """Keep a result, whole or not at all: on disk, or in memory where that does not take it."""
        path, body = self._folder / f"{token}.json", to_json(finish)
        try:
            _write(path, body)
        except OSError as error:
            LOG.warning("a result is kept in memory until it is delivered: the disk takes nothing (%s)", error.strerror)
            self._unkept[token] = body
            with suppress(OSError):
                path.with_suffix(".part").unlink(missing_ok=True)
        return path

    def waiting(self) -> Iterator[tuple[str, bytes]]:
        """Token and body of each undelivered result, oldest first."""
        for path in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            if path.stem not in self._over:
                yield path.stem, path.read_bytes()
        yield from list(self._unkept.items())

    def done(self, token: str) -> None:
        """Forget a result that was delivered or refused for good."""
        self._unkept.pop(token, None)
        try:
            (self._folder / f"{token}.json").unlink(missing_ok=True)
        except OSError:  # a read-only disk; the server answers the same if it hears it again after a restart
            self._over.add(token)


def _write(path: Path, body: bytes) -> None:
    part = path.with_suffix(".part")
    with fresh_file(part, 0o600) as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
