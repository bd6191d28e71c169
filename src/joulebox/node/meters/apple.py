"""`apple:`: energy counters of Apple silicon (CPU, GPU, memory, neural engine) by zeus-apple-silicon. Not yet tested on
hardware.

The package counts millijoules; what a chip does not have it answers with `None`.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault

WHERE: Final = ""
LOOKS_FOR: Final = "energy counters of Apple silicon"
OPTIONS: Final[Mapping[str, str]] = {}

_PARTS: Final = (
    ("cpu_total_mj", "cpu", None),
    ("gpu_mj", "gpu0", None),
    ("gpu_sram_mj", "gpu0", "gpu0"),
    ("dram_mj", "dram", None),
    ("ane_mj", "ane", None),
)
"""The package's names, scopes, and what is a share of another: whether `gpu_mj` holds the SRAM nobody says."""


class AppleMeter:
    """The counters this chip has."""

    address = "apple:"

    def __init__(self) -> None:
        """Open the package. Raises `JouleboxError("meter_unreadable")` without package or counters."""
        try:
            self._monitor: Any = import_module("zeus_apple_silicon").AppleEnergyMonitor()
            shown = self._monitor.get_cumulative_energy()
        except ImportError as error:
            raise _unreadable("pip install zeus-apple-silicon, on a Mac with Apple silicon") from error
        except RuntimeError as error:
            raise _unreadable(f"{error}; update macOS or leave this meter out") from error
        self._parts = [part for part in _PARTS if getattr(shown, part[0], None) is not None]
        if not self._parts:
            raise _unreadable("this chip shows no energy counter; leave this meter out")
        scopes = {scope for _, scope, _ in self._parts}
        self.missing: Sequence[str] = ("wall", *(part for part in ("cpu", "dram", "gpu0") if part not in scopes))

    def channels(self) -> Sequence[Channel]:
        """One a part of the chip."""
        return tuple(
            Channel(
                name=name.removesuffix("_mj"),
                meter=self.address,
                kind=ReadingKind.ENERGY_J,
                sampling=Sampling.COUNTER,
                scope=scope,
                step=1e-3,
                tick_s=0.2,
                gain_u_ratio=0.20,
                accuracy="Apple's energy model, not calibrated: 20 % and 0.2 s assumed (Apple states neither)",
                part_of=part_of,
            )
            for name, scope, part_of in self._parts
        )

    def read(self) -> Sequence[int | None]:
        """Millijoules of each part; `None` for one that has no value now. Raises `MeterFault`."""
        if self._monitor is None:
            raise MeterFault("the meter is closed")
        try:
            shown = self._monitor.get_cumulative_energy()
        except RuntimeError as error:
            raise MeterFault(f"zeus-apple-silicon: {error}") from error
        return tuple(getattr(shown, name) for name, _, _ in self._parts)

    def close(self) -> None:
        """Let the package go."""
        self._monitor = None


def open(address: str, options: Mapping[str, str]) -> AppleMeter:  # noqa: A001 - the name every driver offers
    """This Mac; `address` is empty. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    if address:
        raise JouleboxError("bad_setting", f"Meter apple:{address} cannot be used: write apple: alone.")
    return AppleMeter()


def _unreadable(reason: str) -> JouleboxError:
    return JouleboxError("meter_unreadable", f"Apple silicon cannot be read: {reason}.")
