"""Kernel files that hold one number each: opened once, read with `pread`. What powercap and hwmon share."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.node.meter import MeterFault

SIMULATED_MARK: Final = "joulebox-rig.json"
"""A folder with this file at its root was written by the rig: its readings are simulated."""
_BYTES: Final = 64
_NO_DATA_NOW: Final = frozenset({errno.EAGAIN, errno.ENODATA})
"""A sensor that has no value at this moment answers with one of these (kernel, hwmon sysfs interface)."""


def unreadable(path: Path, error: Exception) -> JouleboxError:
    """`meter_unreadable` with one sentence that names the file and what to do."""
    if isinstance(error, PermissionError):
        remedy = (
            f"Permission denied: {path} is readable by root only. Run `sudo chmod a+r {path}` (lasts until the next "
            "start), add a udev rule that does it, or run the node as a user that may read it"
        )
    elif isinstance(error, FileNotFoundError):
        remedy = f"{path} does not exist. Give the folder that holds it, or leave this meter out"
    else:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = f"{path} cannot be read ({reason}). Mend it, or leave this meter out"
    return JouleboxError("meter_unreadable", f"{remedy}.", path=str(path))


def number_in(path: Path) -> int:
    """The whole number a file holds. Raises `JouleboxError("meter_unreadable")`."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def text_in(path: Path) -> str | None:
    """The text a file holds, without the blank around it; `None` where there is no such file or no right to it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def simulated(folder: Path) -> bool:
    """Whether the rig wrote this folder."""
    return (folder / SIMULATED_MARK).is_file()


class NumberFiles:
    """Files with one number each, kept open: `open()` at each reading costs three times as much as `pread`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open and read each once. Raises `meter_unreadable` naming the file, with nothing left open."""
        self._paths = tuple(paths)
        self._open: list[int] | None = []
        for path in self._paths:
            try:
                self._open.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                self._number(self._open[-1])
            except (OSError, ValueError) as error:
                self.close()
                raise unreadable(path, error) from error

    @staticmethod
    def _number(descriptor: int) -> int | None:
        try:
            return int(os.pread(descriptor, _BYTES, 0))
        except OSError as error:
            if error.errno in _NO_DATA_NOW:
                return None
            raise

    def read(self) -> tuple[int | None, ...]:
        """One number a file, `None` where the kernel has no data at this moment. Raises `MeterFault`."""
        if self._open is None:
            raise MeterFault("the meter is closed")
        try:  # all of them nearly always have a number: what follows is for the rest
            return tuple([int(os.pread(descriptor, _BYTES, 0)) for descriptor in self._open])
        except (OSError, ValueError):
            return self._numbers(self._open)

    def _numbers(self, descriptors: Sequence[int]) -> tuple[int | None, ...]:
        numbers: list[int | None] = []
        for path, descriptor in zip(self._paths, descriptors, strict=True):
            try:
                numbers.append(self._number(descriptor))
            except OSError as error:
                raise MeterFault(f"{path}: {error.strerror}") from error
            except ValueError as error:
                raise MeterFault(f"{path} holds no number") from error
        return tuple(numbers)

    def close(self) -> None:
        """Give back the descriptors; a second call does nothing."""
        for descriptor in self._open or ():
            os.close(descriptor)
        self._open = None


def gpus(root: Path) -> tuple[str, ...]:
    """`gpu0`, `gpu1`...: the `cards` by the names of their scopes."""
    return tuple(f"gpu{index}" for index in range(len(cards(root))))


def cards(root: Path) -> tuple[Path, ...]:
    """Graphics cards on the PCI bus under `root` (`/sys`) with their own power supply, in the order of their places.

    Graphics inside a CPU draw from its package and are not listed.
    """
    return tuple(device for device in sorted((root / "bus" / "pci" / "devices").glob("*")) if _is_card(device))


def _is_card(device: Path) -> bool:
    vendor, kind = text_in(device / "vendor"), text_in(device / "class") or ""
    if vendor == "0x10de":
        return kind.startswith("0x03")
    if vendor == "0x1002":  # an AMD card that stands alone has a power limit, graphics inside a CPU has none
        return kind.startswith(("0x12", "0x0380")) or (
            kind.startswith("0x03") and any(device.glob("hwmon/hwmon*/power1_cap"))
        )
    return False
