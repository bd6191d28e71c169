"""The machine a program runs on, as far as server and node must agree on it."""

import gc
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def running_host() -> str | None:
    """The same for all programs on one running machine, containers included, and for no other; `None` where the system
    does not tell. Nothing can be read from it but that two programs share a machine."""
    try:
        return hashlib.sha256(b"joulebox " + _BOOT.read_bytes().strip()).hexdigest()[:16]
    except OSError:
        return None


def own_folder(folder: Path) -> None:
    """Make a folder that this user alone may enter, and what is missing above it; one that is there stays as it is.

    Raises `OSError`.
    """
    for one in reversed([folder, *(above for above in folder.parents if not above.exists())]):
        one.mkdir(mode=0o700, exist_ok=True)


def own_file(path: Path) -> None:
    """Make an empty file that this user alone may read; of one that is there everybody else loses what they may.

    Raises `OSError` where it cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with suppress(OSError):  # another user's file is that user's to close
        path.chmod(path.stat().st_mode & ~0o007)


def own_cpu_s() -> float:
    """Seconds of processor time this process has used, all its threads together."""
    used = os.times()
    return used.user + used.system


@contextmanager
def importing() -> Iterator[None]:
    """While a program is loaded nothing of it can be thrown away: looking would be a third of a server's start.
    What is loaded is not looked through later either."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
