"""`powercap:PATH`: RAPL energy counters, as Linux shows them in `class/powercap`; AMD's too appear as `intel-rapl`.

The kernel lists each zone twice, flat (`intel-rapl:0:0`) and nested (`intel-rapl:0/intel-rapl:0:0`): taken once by id.
What another control type (`intel-rapl-mmio`) shows again under the same name is the same counter, and left out.
Core and uncore are shares of their package; on AMD, `core` is one core only. psys is the platform, with the packages.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node import rapl, sysfs

WHERE: Final = "/sys/class/powercap"
LOOKS_FOR: Final = "RAPL energy counters of CPU packages and memory"
OPTIONS: Final[Mapping[str, str]] = {}

_CONTROL: Final = re.compile(r"intel-rapl(-[a-z]+)?")
_ZONE: Final = re.compile(r"(?P<control>intel-rapl(?:-[a-z]+)?)(?P<ids>(?::\d+)+)")
_COUNTS: Final = 2**32


@dataclass(frozen=True, slots=True)
class _Zone:
    folder: Path
    control: str
    ids: tuple[int, ...]
    name: str
    """With the package it belongs to: `package-0/dram`."""


class PowercapMeter:
    """RAPL zones as running counters in microjoules."""

    def __init__(self, folder: Path) -> None:
        """Open every zone. Raises `JouleboxError("meter_unreadable")` naming folder or file."""
        self.address = f"powercap:{folder}"
        zones = _zones(folder)
        if not zones:
            raise _no_rapl(folder, "holds no RAPL zone such as intel-rapl:0")
        simulated = sysfs.simulated(folder)
        self._channels = tuple(_channel(zone, self.address, simulated) for zone in zones)
        scopes = {channel.scope for channel in self._channels}
        unseen = [] if "platform" in scopes else [part for part in ("cpu", "dram") if part not in scopes]
        self.missing: Sequence[str] = ("wall", *unseen, *sysfs.gpus(folder.parent.parent))
        self._files = sysfs.NumberFiles([zone.folder / "energy_uj" for zone in zones])

    def channels(self) -> Sequence[Channel]:
        """One a zone."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Microjoules of each zone."""
        return self._files.read()

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def open(address: str, options: Mapping[str, str]) -> PowercapMeter:  # noqa: A001 - the name every driver offers
    """The counters in folder `address` (the kernel's own where empty). Raises `JouleboxError("meter_unreadable")`."""
    return PowercapMeter(Path(address or WHERE))


def _zones(folder: Path) -> list[_Zone]:
    """Every zone once, packages before their parts, the plain `intel-rapl` before its doubles."""
    found: dict[tuple[str, tuple[int, ...]], Path] = {}
    for path in _zone_folders(folder):
        if match := _ZONE.fullmatch(path.name):
            found.setdefault((match["control"], tuple(int(part) for part in match["ids"].split(":")[1:])), path)
    names: dict[tuple[str, tuple[int, ...]], str] = {}
    zones: list[_Zone] = []
    for (control, ids), path in sorted(found.items()):
        name = sysfs.text_in(path / "name")
        if not name:
            raise sysfs.unreadable(path / "name", FileNotFoundError())
        parent = names.get((control, ids[:-1]))
        names[control, ids] = f"{parent}/{name}" if parent else name
        if names[control, ids] not in {zone.name for zone in zones}:
            zones.append(_Zone(path, control, ids, names[control, ids]))
    return zones


def _zone_folders(folder: Path) -> Iterator[Path]:
    """Folders of zones, flat and nested. Only names of zones and control types are entered: others lead in circles."""
    try:
        inside = sorted(folder.iterdir())
    except FileNotFoundError as error:
        raise _no_rapl(folder, "does not exist") from error
    except OSError as error:
        raise sysfs.unreadable(folder, error) from error
    for path in inside:
        if (_ZONE.fullmatch(path.name) or _CONTROL.fullmatch(path.name)) and path.is_dir():
            yield path
            yield from _zone_folders(path)


def _no_rapl(folder: Path, what: str) -> JouleboxError:
    return JouleboxError(
        "meter_unreadable",
        f"{folder} {what} (this machine or virtual machine shows no RAPL). Load the kernel module intel_rapl_msr, give "
        "a folder laid out like the kernel's class/powercap, or leave this meter out.",
        path=str(folder),
    )


def _channel(zone: _Zone, address: str, simulated: bool) -> Channel:
    last = zone.name.rpartition("/")[2]
    scope = "platform" if last.startswith("psys") else "dram" if last.startswith("dram") else "cpu"
    gain_u_ratio, accuracy = rapl.GAIN_U[scope]
    # max_energy_range_uj is the largest count of a 32-bit counter, in µJ; zero comes one hardware step after it (61 µJ
    # on most machines). The range itself, or the range and one, taken as the period, loses that step at each wrap.
    range_uj = sysfs.number_in(zone.folder / "max_energy_range_uj")
    return Channel(
        name=zone.name,
        meter=address,
        kind=ReadingKind.ENERGY_J,
        sampling=Sampling.COUNTER,
        scope=scope,
        step=1e-6,
        tick_s=rapl.TICK_S,
        gain_u_ratio=gain_u_ratio,
        accuracy=accuracy,
        part_of="cpu" if scope == "cpu" and "/" in zone.name else None,
        wrap_raw=range_uj + max(1, round(range_uj / (_COUNTS - 1))),
        simulated=simulated,
    )
