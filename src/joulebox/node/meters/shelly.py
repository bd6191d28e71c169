"""`shelly:http://HOST`: a Shelly plug or relay with a meter, first generation (`/status`) or later ones (`/rpc`).

`GET /shelly` says which, once, at the opening. Power is of one moment, about once a second; the energy counter moves in
steps of 1 mWh (3.6 J) or, in the first generation, of a watt-minute (60 J).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.json_http import JsonHttp, field, raw_of
from joulebox.node.meter import MeterFault
from joulebox.node.options import TIMEOUT_OPTION, choice, timeout_s, whole
from joulebox.units import J_PER_WH

WHERE: Final = ""
LOOKS_FOR: Final = "a Shelly plug; networks are never searched, name its address"
OPTIONS: Final[Mapping[str, str]] = {
    "switch": "which of the device's outlets, counted from 0 (0)",
    "component": "switch, or pm1 for a device that only measures; from the second generation on (switch)",
    "energy": "on or off: read the energy counter too (on; off in the first generation)",
    "timeout": TIMEOUT_OPTION,
}

_TICK_S: Final = 1.0
_GEN1_COUNTER_TICK_S: Final = 60.0
_POWER_STEP_W, _GEN1_POWER_STEP_W = 0.1, 0.01
_MILLI_WH_J: Final = J_PER_WH / 1_000
_WATT_MINUTE_J: Final = 60.0
_GAIN_U: Final = 0.02
_OFFSET_U_W: Final = 0.5
_SIMULATED_MODEL: Final = "joulebox-rig"


class ShellyMeter:
    """Power of one outlet and its energy counter."""

    missing: Sequence[str] = ()

    def __init__(self, address: str, options: Mapping[str, str]) -> None:
        """Ask which generation it is, and read once. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
        self._switch = whole(options, "switch", 0, least=0, most=99)
        self._component = choice(options, "component", "switch", ("switch", "pm1"))
        energy = choice(options, "energy", "", ("", "on", "off"))
        self._http = JsonHttp("shelly", address, timeout_s(options), SystemClock())
        which = f",switch={self._switch}" if self._switch else ""
        self.address = f"shelly:{self._http.url}{which}{',component=pm1' if self._component == 'pm1' else ''}"
        try:
            about = self._http.get("/shelly", "/shelly")
            self._generation = _generation(about)
            self._with_energy = energy == "on" or (energy == "" and self._generation > 1)
            self.read()
        except MeterFault as fault:
            self.close()
            raise JouleboxError(
                "meter_unreadable",
                f"The Shelly cannot be read: {fault}. Check its address and outlet, switch its password off, or leave "
                "this meter out.",
            ) from fault
        simulated = _SIMULATED_MODEL in (field(about, "model"), field(about, "type"))
        self._channels = self._declared(simulated)

    def channels(self) -> Sequence[Channel]:
        """Power, and energy where read."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Power and, where read, energy in steps of what the device shows."""
        watts, counted = self._gen1() if self._generation == 1 else self._rpc()
        power = raw_of(watts, _GEN1_POWER_STEP_W if self._generation == 1 else _POWER_STEP_W, "of watts")
        if not self._with_energy:
            return (power,)
        return power, raw_of(counted, 1.0 if self._generation == 1 else 0.001, "of energy")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _gen1(self) -> tuple[Any, Any]:
        """Watts and watt-minutes, as they came. Raises `MeterFault`."""
        meter = field(self._http.get("/status", "/status"), "meters", self._switch)
        if meter is None:
            raise MeterFault(f"it has no meter at outlet {self._switch}")
        if field(meter, "is_valid") is False:
            raise MeterFault("its own check says that its meter is not working (is_valid)")
        return field(meter, "power"), field(meter, "total")

    def _rpc(self) -> tuple[Any, Any]:
        """Watts and watt-hours, as they came. Raises `MeterFault`."""
        name = "Switch" if self._component == "switch" else "PM1"
        path = f"/rpc/{name}.GetStatus?id={self._switch}"
        status = self._http.get(path, path)
        return field(status, "apower"), field(status, "aenergy", "total")

    def _declared(self, simulated: bool) -> tuple[Channel, ...]:
        gen1 = self._generation == 1
        power = Channel(
            name="power",
            meter=self.address,
            kind=ReadingKind.POWER_W,
            sampling=Sampling.SNAPSHOT,
            scope="wall",
            step=_GEN1_POWER_STEP_W if gen1 else _POWER_STEP_W,
            tick_s=_TICK_S,
            gain_u_ratio=_GAIN_U,
            offset_u=_OFFSET_U_W,
            accuracy="not calibrated: 2 % and 0.5 W taken, the maker states none for all models",
            simulated=simulated,
        )
        energy = Channel(
            name="energy",
            meter=self.address,
            kind=ReadingKind.ENERGY_J,
            sampling=Sampling.COUNTER,
            scope="wall",
            step=_WATT_MINUTE_J if gen1 else _MILLI_WH_J,
            tick_s=_GEN1_COUNTER_TICK_S if gen1 else _TICK_S,
            gain_u_ratio=_GAIN_U,
            accuracy="not calibrated: 2 % taken, the maker states none for all models",
            simulated=simulated,
        )
        return (power, energy) if self._with_energy else (power,)


def open(address: str, options: Mapping[str, str]) -> ShellyMeter:  # noqa: A001 - the name every driver offers
    """The plug at `http://HOST`. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    return ShellyMeter(address, options)


def _generation(about: Any) -> int:
    """1, or the number a later device gives itself. Raises `MeterFault` for what is no Shelly."""
    generation = field(about, "gen")
    if isinstance(generation, int) and not isinstance(generation, bool) and generation > 1:
        return generation
    if generation is None and isinstance(field(about, "type"), str) and isinstance(field(about, "mac"), str):
        return 1
    raise MeterFault("what it says of itself at /shelly is no Shelly's")
