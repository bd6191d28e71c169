"""The contract of a meter driver: say what you cover, read once. No sleep, no loop, no retry, no arithmetic.

Times belong to the recorder: a driver never stamps a reading. Four outcomes, kept apart: a raw number; `None` (no data
at this moment); `MeterFault` (broken now, may come back); `JouleboxError("meter_unreadable")` when it cannot be opened
at all.
"""

from collections.abc import Sequence
from typing import Protocol

from joulebox.model import Channel


class MeterFault(Exception):
    """A meter failed to answer this once; `str()` says how. The recorder notes it and goes on."""


class Meter(Protocol):
    """An instrument, opened and ready."""

    address: str
    """As the operator wrote it, e.g. `powercap:/sys/class/powercap`."""

    missing: Sequence[str]
    """Big parts of the machine this meter looked for and did not find, e.g. `dram`."""

    def channels(self) -> Sequence[Channel]:
        """What it covers; fixed from opening to closing."""

    def read(self) -> Sequence[int | None]:
        """One raw value per channel, in the order of `channels()`. Raises `MeterFault`."""

    def close(self) -> None:
        """Give back descriptors; never raises."""
