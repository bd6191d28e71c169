"""`nvml:`: NVIDIA graphics cards by NVIDIA's own library: energy counters, else power, and temperatures.

Volta and newer have an energy counter in millijoules; older cards have power only. On MIG the figure is the whole
card's: NVML has none for a slice of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault

WHERE: Final = ""
LOOKS_FOR: Final = "NVIDIA graphics cards"
OPTIONS: Final[Mapping[str, str]] = {}

_TICK_S: Final = 0.1
"""The slowest of the published 20 to 100 ms (arXiv 2312.02741); calibration finds the card's own."""
_POWER_TICK_S: Final = 1.0
_GAIN_U_RATIO: Final = 0.05
_ACCURACY: Final = "NVML, not calibrated: 5 % (arXiv 2312.02741)"
_PART_TIME: Final = ((8, 0), (9, 0))
"""Compute capability of A100 and H100: there the sensor looks at a quarter of the time only (same paper)."""
_GA100: Final = (8, 0)
_MIG_ON: Final = 1
_CORE_TEMPERATURE: Final = 0


@dataclass(frozen=True, slots=True)
class _Source:
    """A channel and the call that reads it."""

    channel: Channel
    call: Callable[[Any], int]
    handle: Any


class NvmlMeter:
    """All cards the driver shows, each with energy or power, and its temperature."""

    missing: Sequence[str] = ("wall", "cpu", "dram")

    def __init__(self) -> None:
        """Open the library. Raises `JouleboxError("meter_unreadable")` without package, library, driver or card."""
        self.address = "nvml:"
        try:
            self._nvml: Any = import_module("pynvml")
        except ImportError as error:
            raise _unreadable("the package nvidia-ml-py is not installed: pip install 'joulebox[nvidia]'") from error
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise _unreadable(f"{error}: install NVIDIA's driver (its libnvidia-ml.so.1), or leave it out") from error
        self._open = True
        try:
            cards = range(self._nvml.nvmlDeviceGetCount())
            self._sources = tuple(source for index in cards for source in self._card(index))
            if not self._sources:
                raise _unreadable("the driver shows no card: see what nvidia-smi prints, or leave it out")
            self.read()
        except (self._nvml.NVMLError, MeterFault) as error:
            self.close()
            raise _unreadable(f"{error}: see what nvidia-smi prints, or leave it out") from error
        except JouleboxError:
            self.close()
            raise

    def channels(self) -> Sequence[Channel]:
        """Per card energy or power, then temperature."""
        return tuple(source.channel for source in self._sources)

    def read(self) -> Sequence[int | None]:
        """Millijoules or milliwatts, and degrees. Raises `MeterFault` naming the card."""
        if not self._open:
            raise MeterFault("the meter is closed")
        values: list[int | None] = []
        for source in self._sources:
            try:
                values.append(source.call(source.handle))
            except self._nvml.NVMLError as error:
                raise MeterFault(f"{source.channel.name}: {error}") from error
        return tuple(values)

    def close(self) -> None:
        """Give the library back."""
        if self._open:
            self._open = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                return

    def _card(self, index: int) -> list[_Source]:
        """What card `index` can tell. Raises `NVMLError`."""
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        card = f"gpu{index}/{nvml.nvmlDeviceGetUUID(handle)}"
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
        accuracy = _ACCURACY
        if capability in _PART_TIME:
            accuracy += "; the sensor looks at a quarter of the time"
        if self._or_none(lambda: nvml.nvmlDeviceGetMigMode(handle)[0]) == _MIG_ON:
            accuracy += "; MIG is on: the whole card with all its slices"

        def channel(name: str, kind: ReadingKind, sampling: Sampling, step: float, tick_s: float) -> Channel:
            measured = kind is not ReadingKind.TEMPERATURE_C
            return Channel(
                name=f"{card}/{name}",
                meter=self.address,
                kind=kind,
                sampling=sampling,
                scope=f"gpu{index}",
                step=step,
                tick_s=tick_s,
                gain_u_ratio=_GAIN_U_RATIO if measured else 0.0,
                accuracy=accuracy if measured else "sensor in the chip, not calibrated",
            )

        if self._or_none(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) is not None:
            energy = channel("energy", ReadingKind.ENERGY_J, Sampling.COUNTER, 1e-3, _TICK_S)
            sources = [_Source(energy, nvml.nvmlDeviceGetTotalEnergyConsumption, handle)]
        else:
            # NVIDIA's reference: a mean over one second on Ampere and newer, but a moment's value on GA100 and older.
            averaged = capability > _GA100
            sampling, tick_s = (Sampling.MEAN, _POWER_TICK_S) if averaged else (Sampling.SNAPSHOT, _TICK_S)
            power = channel("power", ReadingKind.POWER_W, sampling, 1e-3, tick_s)
            sources = [_Source(power, nvml.nvmlDeviceGetPowerUsage, handle)]
        warmth = channel("temperature", ReadingKind.TEMPERATURE_C, Sampling.SNAPSHOT, 1.0, 1.0)
        if self._or_none(lambda: nvml.nvmlDeviceGetTemperature(handle, _CORE_TEMPERATURE)) is not None:
            sources.append(_Source(warmth, lambda one: nvml.nvmlDeviceGetTemperature(one, _CORE_TEMPERATURE), handle))
        return sources

    def _or_none(self, call: Callable[[], int]) -> int | None:
        """The answer, or `None` where this card or driver does not offer it. Other errors of NVML are raised."""
        nvml = self._nvml
        try:
            return call()
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                return None
            raise


def open(address: str, options: Mapping[str, str]) -> NvmlMeter:  # noqa: A001 - the name every driver offers
    """All cards of this machine; `address` is empty. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    if address:
        raise JouleboxError(
            "bad_setting", f"Meter nvml:{address} cannot be used: write nvml: alone, it reads all cards."
        )
    return NvmlMeter()


def _unreadable(reason: str) -> JouleboxError:
    return JouleboxError("meter_unreadable", f"NVIDIA cards cannot be read: {reason}.")
