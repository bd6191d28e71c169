"""The embedded table: yearly mean intensities of 352 zones (Electricity Maps, ODbL), and the world's mean.

One answer falls into one hour, and a year's mean says little about an hour, so every value carries a wide range on
purpose.
"""

import csv
import difflib
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Intensity

YEAR: Final = "2025"
WORLD: Final = "world"
"""The zone that a receipt names when its node has none."""
WORLD_G_PER_KWH: Final = 458.0
WORLD_SOURCE: Final = (
    f"world mean of {YEAR}: Ember through Our World in Data (CC BY 4.0), as in EcoLogits 0.11.3; range: 19 of 20 zones "
    "of the Electricity Maps table; no zone is set, JOULEBOX_ZONE narrows it"
)
HOUR_LOW_RATIO: Final = 0.5
HOUR_HIGH_RATIO: Final = 1.5
"""An hour against the mean of its year. A convention, wide on purpose: grids with much sun and wind swing by about this
much between noon and night, hydro and nuclear grids by less. Hourly values will replace it, never a narrower guess."""
_OTHER_NAMES: Final = {"UK": "GB", "UNITED KINGDOM": "GB", "ENGLAND": "GB", "USA": "US", "AMERICA": "US"}
_NEAR_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A grid zone by its Electricity Maps key. `country` is empty where the zone is a whole country."""

    key: str
    name: str
    country: str
    g_per_kwh: float

    def __str__(self) -> str:
        return f"{self.key} ({self.name}{', ' if self.country else ''}{self.country})"


def check_zone(zone: str) -> str:
    """The zone's key as the table spells it (`de` is `DE`). Raises `JouleboxError("unknown_zone")` with near
    matches."""
    return zone_of(zone).key


def zones() -> list[Zone]:
    """All zones of the embedded table, by key."""
    return list(_table().values())


def yearly(zone: Zone, at: datetime) -> Intensity:
    """The zone's mean of the year, with a range for an hour of it."""
    later = "" if str(at.year) == YEAR else f", used for {at.year}"
    spread = f"range for one hour: x{HOUR_LOW_RATIO} to x{HOUR_HIGH_RATIO}"
    return Intensity(
        g_per_kwh=zone.g_per_kwh,
        low=zone.g_per_kwh * HOUR_LOW_RATIO,
        high=zone.g_per_kwh * HOUR_HIGH_RATIO,
        zone=zone.key,
        at=YEAR,
        source=f"Electricity Maps (ODbL), mean of {YEAR}{later}; {spread}",
        kind="average",
        factor="lifecycle",
        quality="yearly",
    )


@cache
def world() -> Intensity:
    """The world's mean, with a range that holds most zones."""
    values = sorted(zone.g_per_kwh for zone in zones())
    spare = len(values) // 40
    return Intensity(
        g_per_kwh=WORLD_G_PER_KWH,
        low=values[spare],
        high=values[-1 - spare],
        zone=WORLD,
        at=YEAR,
        source=WORLD_SOURCE,
        kind="average",
        factor="lifecycle",
        quality="yearly",
    )


@cache
def _table() -> dict[str, Zone]:
    text = resources.files(__package__).joinpath("intensity_yearly.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        row["zone"]: Zone(key=row["zone"], name=row["name"], country=row["country"], g_per_kwh=float(row["g_per_kwh"]))
        for row in rows
    }


def zone_of(text: str) -> Zone:
    """The zone of that key, however it is spelled. Raises `JouleboxError("unknown_zone")` with near matches."""
    zone = _table().get(text.strip().upper())
    if zone is not None:
        return zone
    near = _near(text.strip().upper())
    hint = f" Did you mean {' or '.join(str(match) for match in near)}?" if near else ""
    raise JouleboxError(
        "unknown_zone",
        f"Grid zone {text!r} is not in the table.{hint} Zones are Electricity Maps keys such as DE, FR or US-CAL-CISO.",
        near=[match.key for match in near],
    )


def _near(wanted: str) -> list[Zone]:
    """Zones somebody may have meant, nearest first, by key, by name and by country."""
    table = _table()
    if wanted in _OTHER_NAMES:
        return [table[_OTHER_NAMES[wanted]]]
    if not wanted:
        return []
    named = [zone for zone in table.values() if wanted in (zone.name.upper(), zone.country.upper())]
    begun = [zone for zone in table.values() if len(wanted) > 2 and zone.key.startswith(wanted)]
    if named or begun:
        return (named or begun)[:_NEAR_MAX]
    words: dict[str, str] = {}
    for zone in table.values():
        for word in filter(None, (zone.country, zone.name, zone.key)):
            words.setdefault(word.upper(), zone.key)
    found = difflib.get_close_matches(wanted, words, n=_NEAR_MAX, cutoff=0.6)
    return [table[key] for key in dict.fromkeys(words[word] for word in found)]
