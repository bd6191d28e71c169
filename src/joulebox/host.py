"""The machine a program runs on, as far as server and node must agree on it."""

import gc
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from joulebox.errors import JouleboxError

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


def fresh_file(path: Path, mode: int = 0o666) -> BinaryIO:
    """A new file to write into, whatever lay there: what a link planted there leads to is not touched.

    Raises `OSError` where it cannot be made, or somebody else was faster.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return open(path, "wb", opener=lambda name, _: os.open(name, flags, mode))


def kept_file(path: Path) -> BinaryIO:
    """The file that is there, or a new one, to lock or to write on at its end; nothing of it is taken away.

    Raises `JouleboxError("bad_setting")` where a link, a pipe or a folder lies there, and `OSError`.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = open(path, "ab", opener=lambda name, _: os.open(name, flags, 0o666))  # noqa: SIM115 - its caller closes it
    except OSError:
        if path.is_symlink() or path.is_dir():
            raise _no_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _no_file(path)
    return file


def _no_file(path: Path) -> JouleboxError:
    sentence = f"{path} is a link, a pipe or a folder, and should be a file: remove it, and see who may write there."
    return JouleboxError("bad_setting", sentence)


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
