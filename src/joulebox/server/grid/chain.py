"""Which intensity holds for a run: the operator's, else the first live source that covers it, else the table. Pure.

One source a run: sources count different things (life cycle or direct emissions); a mean over both would be neither.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from joulebox.errors import JouleboxError
from joulebox.model import DatedIntensity, Intensity, Quality
from joulebox.server.grid.table import WORLD, world, yearly, zone_of
from joulebox.settings import Settings

SourceName = Literal["electricity-maps", "gb", "energy-charts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridValue:
    """What a live source said of a zone from `start` to `until`. `note` is its own word on how it was found."""

    zone: str
    source: SourceName
    start: datetime
    until: datetime
    g_per_kwh: float
    quality: Quality
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A live source: how a receipt names it, and what its factors count."""

    title: str
    factor: Literal["lifecycle", "direct"]


SOURCES: Final[dict[SourceName, Source]] = {
    "electricity-maps": Source(title="Electricity Maps (electricitymaps.com), flow-traced", factor="lifecycle"),
    "gb": Source(
        title="NESO Carbon Intensity API (carbonintensity.org.uk, CC BY 4.0), power stations' own emissions only, so "
        "lower than life-cycle figures",
        factor="direct",
    ),
    "energy-charts": Source(title="Energy-Charts (energy-charts.info, Fraunhofer ISE)", factor="lifecycle"),
}
"""In the order they are asked and believed."""

SPREAD: Final[dict[Quality, tuple[float, float]]] = {
    "measured": (0.85, 1.2),
    "estimated": (0.75, 1.3),
    "forecast": (0.65, 1.4),
    "static": (0.5, 1.5),
}
"""Range around a value, as ratios. Conventions: no source publishes an interval. Measured: the emission factors alone
are no surer (IPCC AR5 annex III, life cycle: coal 740 to 820 to 910, gas 410 to 490 to 650 g/kWh). Estimated and
forecast add what is not yet metered, each wider than the one before and narrower than a year's mean for an hour.
Static: as wide as a year's mean, unless the operator says."""
RANK: Final[dict[Quality, int]] = {"yearly": 0, "forecast": 1, "estimated": 2, "measured": 3, "static": 4}
"""What replaces what, when better data arrive."""


def run_intensities(
    zone: str | None, start: datetime, until: datetime, known: Iterable[GridValue], settings: Settings
) -> tuple[DatedIntensity, ...]:
    """What holds from `start` to `until`, without a gap: of the first of the chain that covers all of it.

    Raises `JouleboxError`: `unknown_zone`, `bad_setting`.
    """
    static = _static(zone, settings)
    if static is not None:
        return (_dated(start, until, static),)
    place = zone_of(zone) if zone is not None else None
    if place is not None:
        mine = [value for value in known if value.zone == place.key]
        for source in SOURCES:
            found = _covering([value for value in mine if value.source == source], start, until)
            if found:
                return found
    return (_dated(start, until, yearly(place, start) if place else world()),)


def series(
    zone: str | None, start: datetime, until: datetime, known: Iterable[GridValue], settings: Settings
) -> tuple[DatedIntensity, ...]:
    """What is known from `start` to `until`, of the first of the chain that knows anything; gaps stay gaps.

    Raises `JouleboxError`: `unknown_zone`, `bad_setting`.
    """
    if zone is not None and _static(zone, settings) is None:
        key = zone_of(zone).key
        inside = [value for value in known if value.zone == key and value.start < until and value.until > start]
        for source in SOURCES:
            found = sorted((value for value in inside if value.source == source), key=lambda value: value.start)
            if found:
                return tuple(_dated(value.start, value.until, intensity_of(value)) for value in found)
    return run_intensities(zone, start, until, (), settings)


def intensity_of(value: GridValue) -> Intensity:
    """A live value as a receipt names it."""
    source, (low, high) = SOURCES[value.source], SPREAD[value.quality]
    how = f", {value.note}" if value.note else ""
    return Intensity(
        g_per_kwh=value.g_per_kwh,
        low=value.g_per_kwh * low,
        high=value.g_per_kwh * high,
        zone=value.zone,
        at=value.start.isoformat(timespec="minutes"),
        source=f"{source.title}{how}; range: x{low} to x{high}",
        kind="average",
        factor=source.factor,
        quality=value.quality,
    )


def worst(intensities: Sequence[DatedIntensity]) -> int:
    """The rank of the least sure of them."""
    return min(RANK[one.intensity.quality] for one in intensities)


def _covering(values: Sequence[GridValue], start: datetime, until: datetime) -> tuple[DatedIntensity, ...]:
    found: list[GridValue] = []
    at = start
    while not found or at < until:
        value = next((value for value in values if value.start <= at < value.until), None)
        if value is None:
            return ()
        found.append(value)
        at = value.until
    return tuple(_dated(value.start, value.until, intensity_of(value)) for value in found)


def _static(zone: str | None, settings: Settings) -> Intensity | None:
    """The operator's own figure, for nodes in the zone of the settings; where none is set there, for every node."""
    low, central, high = settings.grid_low_g_per_kwh, settings.grid_g_per_kwh, settings.grid_high_g_per_kwh
    if central is None:
        if low is not None or high is not None:
            raise JouleboxError(
                "bad_setting",
                "grid_low_g_per_kwh and grid_high_g_per_kwh are a range around grid_g_per_kwh: set that too.",
            )
        return None
    if settings.zone is not None and (zone is None or zone_of(zone) != zone_of(settings.zone)):
        return None
    ratios = SPREAD["static"]
    assumed = [
        f"{name} x{ratio}"
        for name, given, ratio in (("low", low, ratios[0]), ("high", high, ratios[1]))
        if given is None
    ]
    low = central * ratios[0] if low is None else low
    high = central * ratios[1] if high is None else high
    if not low <= central <= high:
        raise JouleboxError(
            "bad_setting",
            f"The grid's range must hold its figure: grid_low_g_per_kwh {low:g}, grid_g_per_kwh {central:g}, "
            f"grid_high_g_per_kwh {high:g}. Put them in order.",
        )
    return Intensity(
        g_per_kwh=central,
        low=low,
        high=high,
        zone=zone_of(zone).key if zone is not None else WORLD,
        at="always",
        source=(settings.grid_source or "operator's setting")
        + (f" (range assumed: {', '.join(assumed)})" if assumed else ""),
        kind="average",
        factor=settings.grid_factor,
        quality="static",
    )


def _dated(start: datetime, until: datetime, intensity: Intensity) -> DatedIntensity:
    return DatedIntensity(start=start.isoformat(), until=until.isoformat(), intensity=intensity)
