"""`amdsmi:`: energy counters of AMD graphics cards by AMD's own library. Not yet tested on hardware.

From AMD's reference: `energy_accumulator * counter_resolution` is microjoules since the last restart. Temperatures are
left out: reference and library disagree about their unit.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault

WHERE: Final = ""
LOOKS_FOR: Final = "AMD graphics cards"
OPTIONS: Final[Mapping[str, str]] = {}


class AmdSmiMeter:
    """One energy counter a card."""

    address = "amdsmi:"
    missing: Sequence[str] = ("wall", "cpu", "dram")

    def __init__(self) -> None:
        """Open the library. Raises `JouleboxError("meter_unreadable")` without package, driver, card or counter."""
        try:
            self._smi: Any = import_module("amdsmi")
        except (ImportError, OSError, KeyError) as error:  # the package raises the last two without its library
            raise _unreadable("install the package amdsmi of your ROCm version (pip install amdsmi)") from error
        self._cards: dict[str, Any] | None = None
        try:
            self._smi.amdsmi_init()
            self._cards = {}
            for handle in self._smi.amdsmi_get_processor_handles():
                # A card in partitions shows each as a function of one device, with the energy of the whole.
                device = self._smi.amdsmi_get_gpu_device_bdf(handle).rpartition(".")[0]
                self._cards.setdefault(device, handle)
            handles = list(self._cards.values())
            self._channels = tuple(self._channel(index, handle) for index, handle in enumerate(handles))
        except (self._smi.AmdSmiException, MeterFault) as error:
            self.close()
            raise _unreadable(f"{error}; see what amd-smi prints, or leave it out") from error
        if not self._channels:
            self.close()
            raise _unreadable("the driver shows no card; see what amd-smi prints, or leave it out")

    def channels(self) -> Sequence[Channel]:
        """One a card."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Counts of each card. Raises `MeterFault`."""
        if self._cards is None:
            raise MeterFault("the meter is closed")
        try:
            return tuple(_count(self._smi.amdsmi_get_energy_count(handle)) for handle in self._cards.values())
        except self._smi.AmdSmiException as error:
            raise MeterFault(f"AMD's library: {error}") from error

    def close(self) -> None:
        """Give the library back."""
        if self._cards is not None:
            self._cards = None
            try:
                self._smi.amdsmi_shut_down()
            except self._smi.AmdSmiException:
                return

    def _channel(self, index: int, handle: Any) -> Channel:
        answer = self._smi.amdsmi_get_energy_count(handle)
        _count(answer)
        return Channel(
            name=f"gpu{index}/{self._smi.amdsmi_get_gpu_device_uuid(handle)}/energy",
            meter=self.address,
            kind=ReadingKind.ENERGY_J,
            sampling=Sampling.COUNTER,
            scope=f"gpu{index}",
            step=answer["counter_resolution"] * 1e-6,
            tick_s=0.1,
            gain_u_ratio=0.10,
            accuracy="AMD SMI, not calibrated: 10 % and 0.1 s assumed (AMD states neither)",
        )


def open(address: str, options: Mapping[str, str]) -> AmdSmiMeter:  # noqa: A001 - the name every driver offers
    """All cards of this machine; `address` is empty. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    if address:
        raise JouleboxError("bad_setting", f"Meter amdsmi:{address} cannot be used: write amdsmi: alone.")
    return AmdSmiMeter()


def _count(answer: Mapping[str, Any]) -> int:
    """`energy_accumulator`, called `power` before ROCm 6.4. Raises `MeterFault`."""
    count = answer.get("energy_accumulator", answer.get("power"))
    if not isinstance(count, int):
        raise MeterFault(f"AMD's library answers {count!r} for the energy")
    return count


def _unreadable(reason: str) -> JouleboxError:
    return JouleboxError("meter_unreadable", f"AMD cards cannot be read: {reason}.")
