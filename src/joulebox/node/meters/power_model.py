"""`model:`: no meter at all, only how busy the cores were. The watts are put in by `accounting.power_model`, not here.

Kind `busy_ratio` with a counter means busy core-seconds: what was added in a window, divided by its seconds and by the
cores, is the ratio. Any window can be told, whatever the reading rate.

The source is `/proc/stat`, in ticks of 10 ms. Finer ones were looked at: `/proc/schedstat` counts a thread only when it
leaves its core, so that an engine computing for a second shows up a second late; a control group's nanoseconds are the
whole machine's only outside containers. 10 ms of the 600 in a 0.3 s prompt on two cores is far below what the profile
of watts leaves open.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node import sysfs
from joulebox.node.meter import MeterFault

WHERE: Final = "/proc"
LOOKS_FOR: Final = "how busy the cores are, for the power model"
OPTIONS: Final[Mapping[str, str]] = {}

_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ = 1, 2, 3, 6, 7
_BUSY: Final = (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ)
"""Idle and waiting for discs are not busy; stolen time was another machine's; guests are in user time already."""
_BYTES: Final = 512


class PowerModelMeter:
    """Busy core-seconds of the whole machine since it started."""

    def __init__(self, folder: Path) -> None:
        """Open `stat` in `folder`. Raises `JouleboxError("meter_unreadable")`."""
        self.address = f"model:{'' if str(folder) == WHERE else folder}"
        self.missing: Sequence[str] = sysfs.gpus(folder.parent / "sys")
        self._path = folder / "stat"
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._channel = Channel(
            name="busy",
            meter=self.address,
            kind=ReadingKind.BUSY_RATIO,
            sampling=Sampling.COUNTER,
            scope="machine",
            step=1 / ticks_per_s,
            tick_s=1 / ticks_per_s,
            accuracy="busy core-seconds from /proc/stat; no meter: watts are modelled",
            simulated=sysfs.simulated(folder),
        )
        self._open: int | None = None
        try:
            self._open = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self.read()
        except (OSError, MeterFault) as error:
            self.close()
            raise JouleboxError(
                "meter_unreadable",
                f"{self._path} cannot be read ({getattr(error, 'strerror', None) or error}): the power model learns "
                "from Linux's /proc/stat how busy the cores are. Run the node on Linux, or give a meter.",
                path=str(self._path),
            ) from error

    def channels(self) -> Sequence[Channel]:
        """The one."""
        return (self._channel,)

    def read(self) -> Sequence[int | None]:
        """Ticks in which a core was busy, all cores together."""
        if self._open is None:
            raise MeterFault("the meter is closed")
        try:
            fields = os.pread(self._open, _BYTES, 0).partition(b"\n")[0].split()
        except OSError as error:
            raise MeterFault(f"{self._path}: {error.strerror}") from error
        try:
            if fields[0] != b"cpu":
                raise ValueError
            return (sum(int(fields[index]) for index in _BUSY),)
        except (ValueError, IndexError) as error:
            raise MeterFault(f"{self._path} does not begin with the cpu line of Linux") from error

    def close(self) -> None:
        """Close the file."""
        if self._open is not None:
            os.close(self._open)
        self._open = None


def open(address: str, options: Mapping[str, str]) -> PowerModelMeter:  # noqa: A001 - the name every driver offers
    """The cores of this machine, or of `address`, a folder laid out like `/proc`. Raises `meter_unreadable`."""
    return PowerModelMeter(Path(address or WHERE))
