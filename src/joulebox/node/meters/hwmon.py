"""`hwmon:PATH`: CPU temperatures, as Linux shows them in `class/hwmon`; else those of `class/thermal` beside it.

One sensor a CPU, not one a core: reading a core's sensor wakes that core. Drives, boards and networks are left out.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node import sysfs

WHERE: Final = "/sys/class/hwmon"
LOOKS_FOR: Final = "CPU temperature sensors"
OPTIONS: Final[Mapping[str, str]] = {}

_SENSORS: Final = {
    "coretemp": re.compile(r"Package id \d+|Physical id \d+"),
    "k10temp": re.compile(r"Tdie|Tctl"),
    "zenpower": re.compile(r"Tdie|Tctl"),
    "cpu_thermal": re.compile(r".*"),
}
"""Chips that sit in a CPU, and the labels of their sensor of the whole CPU."""
_THERMAL_ZONES: Final = re.compile(r"x86_pkg_temp|cpu[-_]?thermal\d*|soc[-_]?thermal")
_TICK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Sensor:
    name: str
    file: Path


class HwmonMeter:
    """CPU temperatures in thousandths of a degree."""

    missing: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        """Open the sensors. Raises `JouleboxError("meter_unreadable")` naming folder or file."""
        self.address = f"hwmon:{folder}"
        sensors = list(_chip_sensors(folder)) or list(_thermal_zones(folder.parent / "thermal"))
        if not sensors:
            raise JouleboxError(
                "meter_unreadable",
                f"{folder} {'shows no CPU temperature' if folder.is_dir() else 'does not exist'}. Load the kernel "
                "module of the sensor (coretemp on Intel, k10temp on AMD), give another folder, or leave it out.",
                path=str(folder),
            )
        simulated = sysfs.simulated(folder)
        self._channels = tuple(
            Channel(
                name=sensor.name,
                meter=self.address,
                kind=ReadingKind.TEMPERATURE_C,
                sampling=Sampling.SNAPSHOT,
                scope="cpu",
                step=1e-3,
                tick_s=_TICK_S,
                accuracy="sensor in the chip, not calibrated",
                simulated=simulated,
            )
            for sensor in sensors
        )
        self._files = sysfs.NumberFiles([sensor.file for sensor in sensors])

    def channels(self) -> Sequence[Channel]:
        """One a CPU."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Thousandths of a degree Celsius; `None` where a sensor has no value at this moment."""
        return self._files.read()

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def open(address: str, options: Mapping[str, str]) -> HwmonMeter:  # noqa: A001 - the name every driver offers
    """The sensors in folder `address` (the kernel's own where empty). Raises `JouleboxError("meter_unreadable")`."""
    return HwmonMeter(Path(address or WHERE))


def _chip_sensors(folder: Path) -> Iterator[_Sensor]:
    """Each CPU chip's sensors; of an AMD chip that has both, the temperature (Tdie), not the control value (Tctl)."""
    chips = [(sysfs.text_in(chip / "name") or "", chip) for chip in _numbered(folder, "hwmon*")]
    seen: Counter[str] = Counter()
    for name, chip in chips:
        if name not in _SENSORS:
            continue
        sensor = f"{name}-{seen[name]}" if seen[name] else name
        seen[name] += 1
        labels = {file: _label(file) for file in _numbered(chip, "temp*_input")}
        labels = {file: label for file, label in labels.items() if _SENSORS[name].fullmatch(label)}
        if "Tdie" in labels.values():
            labels = {file: label for file, label in labels.items() if label == "Tdie"}
        for file, label in labels.items():
            yield _Sensor(f"{sensor}/{label}", file)


def _label(file: Path) -> str:
    """`Package id 0` of `temp1_label`, or `temp1` where there is no such file."""
    return sysfs.text_in(file.with_name(file.name.replace("_input", "_label"))) or file.name.removesuffix("_input")


def _thermal_zones(folder: Path) -> Iterator[_Sensor]:
    for zone in _numbered(folder, "thermal_zone*"):
        kind = sysfs.text_in(zone / "type") or ""
        if _THERMAL_ZONES.fullmatch(kind):
            yield _Sensor(f"{kind}/{zone.name}", zone / "temp")


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """What matches, in the order of the numbers in the names."""
    return sorted(folder.glob(pattern), key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
