"""`hwmon:PATH`: CPU temperatures, as Linux shows them in `class/hwmon`; else those of `class/thermal` beside it.

One sensor a CPU, not one a core: reading a core's sensor wakes that core. Drives, boards and networks are left out.

Power rails (INA3221 of a Jetson, amd_energy, SCMI...) only on request: what a rail feeds the kernel does not say. With
`rails=on` they are recorded beside and never added; `rails=VDD_IN:platform` counts that rail as that scope.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node import sysfs

WHERE: Final = "/sys/class/hwmon"
LOOKS_FOR: Final = "CPU temperature sensors"
OPTIONS: Final[Mapping[str, str]] = {
    "rails": "`on`: power rails too, added to nothing; LABEL:SCOPE joined by + (blanks as _): these are counted",
}

_SENSORS: Final = {
    "coretemp": re.compile(r"Package id \d+|Physical id \d+"),
    "k10temp": re.compile(r"Tdie|Tctl"),
    "zenpower": re.compile(r"Tdie|Tctl"),
    "cpu_thermal": re.compile(r".*"),
}
"""Chips that sit in a CPU, and the labels of their sensor of the whole CPU."""
_THERMAL_ZONES: Final = re.compile(r"x86_pkg_temp|cpu[-_]?thermal\d*|soc[-_]?thermal")
_TICK_S: Final = 1.0
_RAIL_TICKS_S: Final = {"amd_energy": 0.001}
"""From the kernel's page of that driver; others say theirs in a file, or it is taken as `_TICK_S`."""
_CORES: Final = re.compile(r"Ecore\d+")
_SCOPES: Final = re.compile(r"wall|platform|cpu|dram|gpu\d+")
_RAIL_GAIN_U_RATIO: Final = 0.10


@dataclass(frozen=True, slots=True)
class _Sensor:
    """Files whose product is the reading: one, or on an INA3221 millivolts and milliamperes."""

    name: str
    files: tuple[Path, ...]
    kind: ReadingKind = ReadingKind.TEMPERATURE_C
    sampling: Sampling = Sampling.SNAPSHOT
    tick_s: float = _TICK_S
    scope: str = "cpu"
    part_of: str | None = None

    @property
    def label(self) -> str:
        """The rail's own name, as it is written in an option."""
        return self.name.rpartition("/")[2].replace(" ", "_")


class HwmonMeter:
    """CPU temperatures in thousandths of a degree, and rails in microwatts or microjoules."""

    missing: Sequence[str] = ()

    def __init__(self, folder: Path, rails: str | None = None) -> None:
        """Open the sensors. Raises `JouleboxError`: `meter_unreadable` naming folder or file, `bad_setting`."""
        self.address = f"hwmon:{folder}"
        sensors = list(_chip_sensors(folder)) or list(_thermal_zones(folder.parent / "thermal"))
        if rails is not None:
            sensors += _wanted(list(_rails(folder)), rails, folder)
        if not sensors:
            raise JouleboxError(
                "meter_unreadable",
                f"{folder} {'shows no CPU temperature' if folder.is_dir() else 'does not exist'}. Load the kernel "
                "module of the sensor (coretemp on Intel, k10temp on AMD), give another folder, or leave it out.",
                path=str(folder),
            )
        simulated = sysfs.simulated(folder)
        self._sensors = tuple(sensors)
        self._channels = tuple(_channel(sensor, self.address, simulated) for sensor in sensors)
        self._files = sysfs.NumberFiles([file for sensor in sensors for file in sensor.files])

    def channels(self) -> Sequence[Channel]:
        """One a CPU, then one a rail."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Raw values; `None` where a sensor has no value at this moment."""
        numbers = iter(self._files.read())
        values: list[int | None] = []
        for sensor in self._sensors:
            factors = [next(numbers) for _ in sensor.files]
            known = [factor for factor in factors if factor is not None]
            values.append(prod(known) if len(known) == len(factors) else None)
        return tuple(values)

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def open(address: str, options: Mapping[str, str]) -> HwmonMeter:  # noqa: A001 - the name every driver offers
    """The sensors in folder `address` (the kernel's own where empty).

    Raises `JouleboxError`: `meter_unreadable`, `bad_setting`.
    """
    return HwmonMeter(Path(address or WHERE), options.get("rails"))


def _channel(sensor: _Sensor, address: str, simulated: bool) -> Channel:
    heat = sensor.kind is ReadingKind.TEMPERATURE_C
    return Channel(
        name=sensor.name,
        meter=address,
        kind=sensor.kind,
        sampling=sensor.sampling,
        scope=sensor.scope,
        step=1e-3 if heat else 1e-6,
        tick_s=sensor.tick_s,
        gain_u_ratio=0.0 if heat else _RAIL_GAIN_U_RATIO,
        accuracy="sensor in the chip, not calibrated" if heat else "rail sensor, not calibrated: 10 % assumed",
        part_of=sensor.part_of,
        simulated=simulated,
    )


def _wanted(rails: list[_Sensor], option: str, folder: Path) -> list[_Sensor]:
    """The rails of option `rails`. Raises `JouleboxError`: `meter_unreadable` without any, `bad_setting`."""
    if not rails:
        raise JouleboxError(
            "meter_unreadable", f"{folder} shows no power rail: leave out rails=, or give another folder."
        )
    if option == "on":
        return rails
    chosen: list[_Sensor] = []
    for pair in option.split("+"):
        label, _, scope = pair.rpartition(":")
        found = [rail for rail in rails if label in (rail.label, rail.name.replace(" ", "_"))]
        if len(found) != 1 or not _SCOPES.fullmatch(scope) or found[0].name in {rail.name for rail in chosen}:
            names = ", ".join(rail.name.replace(" ", "_") for rail in rails)
            raise JouleboxError(
                "bad_setting",
                f"Meter option rails={option} cannot be used at {pair!r}: write `on`, or LABEL:SCOPE for each rail to "
                f"count, with a scope wall, platform, cpu, dram or gpu0... Rails here: {names}.",
            )
        rail = found[0]
        chosen.append(_Sensor(rail.name, rail.files, rail.kind, rail.sampling, rail.tick_s, scope))
    return chosen


def _rails(folder: Path) -> Iterator[_Sensor]:
    """Every chip's rails, as shares of the machine that are never added."""
    for name, chip in _named_chips(folder):
        update_s = _milliseconds(chip / "update_interval") or _RAIL_TICKS_S.get(name, _TICK_S)
        for file in _numbered(chip, "energy*_input"):
            if not _CORES.fullmatch(_label(file)):  # as with temperatures: reading a core wakes it
                yield _rail(f"{name}/{_label(file)}", (file,), ReadingKind.ENERGY_J, Sampling.COUNTER, update_s)
        for file in _numbered(chip, "power*_average"):
            tick_s = _milliseconds(file.with_name(f"{file.name}_interval")) or update_s
            yield _rail(f"{name}/{_label(file)}", (file,), ReadingKind.POWER_W, Sampling.MEAN, tick_s)
        for file in _numbered(chip, "power*_input"):
            if not file.with_name(file.name.replace("_input", "_average")).exists():
                yield _rail(f"{name}/{_label(file)}", (file,), ReadingKind.POWER_W, Sampling.SNAPSHOT, update_s)
        if name.startswith("ina3221"):  # it shows volts and amperes of each of its three channels, no watts
            for volts in _numbered(chip, "in[123]_input"):
                files = volts, volts.with_name(volts.name.replace("in", "curr", 1))
                if files[1].exists():
                    yield _rail(f"{name}/{_label(volts)}", files, ReadingKind.POWER_W, Sampling.SNAPSHOT, update_s)


def _rail(name: str, files: tuple[Path, ...], kind: ReadingKind, sampling: Sampling, tick_s: float) -> _Sensor:
    return _Sensor(name, files, kind, sampling, tick_s, scope="platform", part_of="platform")


def _named_chips(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every chip with its name; the second of a name is `coretemp-1`."""
    seen: Counter[str] = Counter()
    for chip in _numbered(folder, "hwmon*"):
        name = sysfs.text_in(chip / "name") or ""
        yield (f"{name}-{seen[name]}" if seen[name] else name), chip
        seen[name] += 1


def _milliseconds(file: Path) -> float | None:
    """Seconds from a file in milliseconds; `None` without one."""
    text = sysfs.text_in(file) or ""
    return int(text) / 1_000 if text.isascii() and text.isdigit() and int(text) else None


def _chip_sensors(folder: Path) -> Iterator[_Sensor]:
    """Each CPU chip's sensors; of an AMD chip that has both, the temperature (Tdie), not the control value (Tctl)."""
    for sensor, chip in _named_chips(folder):
        name = sysfs.text_in(chip / "name") or ""
        if name not in _SENSORS:
            continue
        labels = {file: _label(file) for file in _numbered(chip, "temp*_input")}
        labels = {file: label for file, label in labels.items() if _SENSORS[name].fullmatch(label)}
        if "Tdie" in labels.values():
            labels = {file: label for file, label in labels.items() if label == "Tdie"}
        for file, label in labels.items():
            yield _Sensor(f"{sensor}/{label}", (file,))


def _label(file: Path) -> str:
    """`Package id 0` of `temp1_label`, or `temp1` where there is no such file."""
    stem = file.name.rpartition("_")[0]
    return sysfs.text_in(file.with_name(f"{stem}_label")) or stem


def _thermal_zones(folder: Path) -> Iterator[_Sensor]:
    for zone in _numbered(folder, "thermal_zone*"):
        kind = sysfs.text_in(zone / "type") or ""
        if _THERMAL_ZONES.fullmatch(kind):
            yield _Sensor(f"{kind}/{zone.name}", (zone / "temp",))


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """What matches, in the order of the numbers in the names."""
    return sorted(folder.glob(pattern), key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
