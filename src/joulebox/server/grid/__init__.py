"""Where grams come from: the grid's carbon intensity by zone and the machine's embodied emissions, each with its range.

Intensities are yearly means of Electricity Maps (ODbL), embedded beside this module; without a zone, the world's mean.
One answer falls into one hour, and a year's mean says little about an hour, so every value carries a wide range on
purpose.
"""

import csv
import difflib
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import CarbonFactors, Embodied, Intensity, WaterFactors
from joulebox.settings import Settings

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
CENTRAL_LOW_RATIO: Final = 0.5
CENTRAL_HIGH_RATIO: Final = 1.5
"""Where an operator gives one figure for embodied emissions: published product footprints differ by about this much."""
DESKTOP_LOW_KG: Final = 196.0
DESKTOP_KG: Final = 301.0
DESKTOP_HIGH_KG: Final = 490.0
DESKTOP_SOURCE: Final = (
    "generic desktop computer, not this machine: median and 10th to 90th percentile of 259 product footprints, "
    "Boavizta open data (ODbL); JOULEBOX_EMBODIED_KG sets the maker's figure"
)
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


def factors_for(zone: str | None, settings: Settings, at: datetime) -> CarbonFactors:
    """Everything that turns joules of a run in `zone` at time `at` into grams.

    Raises `JouleboxError`: `unknown_zone` with near matches, `bad_setting` where the embodied figures contradict each
    other.
    """
    intensity = _world() if zone is None else _yearly(_zone(zone), at)
    factors = CarbonFactors(intensity=intensity, embodied=embodied_of(settings), water=water_of(settings))
    if "pue" in settings.model_fields_set:
        return replace(factors, pue=settings.pue, pue_source=settings.pue_source or "operator's setting")
    return factors


def check_zone(zone: str) -> str:
    """The zone's key as the table spells it (`de` is `DE`). Raises `JouleboxError("unknown_zone")` with near
    matches."""
    return _zone(zone).key


def zones() -> list[Zone]:
    """All zones of the embedded table, by key."""
    return list(_table().values())


def embodied_of(settings: Settings) -> Embodied:
    """What making the machine emitted: the operator's figures, else those of a generic desktop computer, saying so.

    Raises `JouleboxError("bad_setting")` where low, central and high are not in order, or central is missing.
    """
    low_kg, central_kg, high_kg = settings.embodied_low_kg, settings.embodied_kg, settings.embodied_high_kg
    if central_kg is None:
        if low_kg is not None or high_kg is not None:
            raise JouleboxError(
                "bad_setting",
                "embodied_low_kg and embodied_high_kg are a range around embodied_kg: set embodied_kg too.",
            )
        return Embodied(
            low_kg=DESKTOP_LOW_KG,
            central_kg=DESKTOP_KG,
            high_kg=DESKTOP_HIGH_KG,
            life_years=settings.life_years,
            source=DESKTOP_SOURCE,
        )
    source = settings.embodied_source or "operator's setting"
    assumed = [
        text
        for given, text in ((low_kg, f"low x{CENTRAL_LOW_RATIO}"), (high_kg, f"high x{CENTRAL_HIGH_RATIO}"))
        if given is None
    ]
    low_kg = central_kg * CENTRAL_LOW_RATIO if low_kg is None else low_kg
    high_kg = central_kg * CENTRAL_HIGH_RATIO if high_kg is None else high_kg
    if not low_kg <= central_kg <= high_kg:
        raise JouleboxError(
            "bad_setting",
            f"Embodied emissions must rise: embodied_low_kg {low_kg:g}, embodied_kg {central_kg:g}, "
            f"embodied_high_kg {high_kg:g}. Put them in order.",
        )
    if assumed:
        source += f" (range assumed: {', '.join(assumed)})"
    return Embodied(
        low_kg=low_kg, central_kg=central_kg, high_kg=high_kg, life_years=settings.life_years, source=source
    )


def water_of(settings: Settings) -> WaterFactors | None:
    """The operator's water factors; `None` where there are none."""
    on_site, electricity = settings.water_on_site_l_per_kwh, settings.water_electricity_l_per_kwh
    if on_site is None and electricity is None:
        return None
    source = settings.water_source or "operator's setting"
    return WaterFactors(on_site_l_per_kwh=on_site, electricity_l_per_kwh=electricity, source=source)


def _yearly(zone: Zone, at: datetime) -> Intensity:
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
def _world() -> Intensity:
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


def _zone(text: str) -> Zone:
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
