"""What if an answer had been given elsewhere or at another time: the same energy and machine under another grid. Pure.

Only O moves. M stays: the machine was made, wherever it stands. Like is compared with like: what is known hour by hour
with what is known hour by hour, means of a year with means of a year, and never life cycle with direct emissions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from joulebox.model import DatedIntensity, Intensity

HOURLY: Final = ("measured", "estimated", "forecast")
"""Qualities that tell one hour from another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A place, and a time where the hour is known (ISO 8601, UTC), with O there and then."""

    zone: str
    start: str | None
    until: str | None
    g_per_kwh: float
    quality: str
    O_g: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """From one option to another: `saved_g` of O (never below zero), and its share of O + M."""

    to: Option
    instead: Option
    saved_g: float
    saved_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What moving the answer would have saved. `by`: whether places are compared `hourly`, for the present hour, or by
    means of the year; `hour` and `best` are `None` where nothing is known of hours."""

    here: Option
    M_g: float
    E_kwh: float
    by: Literal["hourly", "yearly"]
    place: Move | None
    hour: Move | None
    best: Move | None
    places: tuple[Option, ...]
    hours: tuple[Option, ...]


def what_if(
    ran: tuple[float, float, Intensity],
    zone: str,
    hourly: Mapping[str, Sequence[DatedIntensity]],
    yearly: Mapping[str, Intensity],
    now: datetime,
) -> WhatIf:
    """The answer that `ran` with E (kWh, PUE included), M (grams) and I in `zone`, elsewhere and at other hours.

    `hourly` holds what live sources said of the hours around now, by zone; `yearly` the mean of every zone.
    """
    kwh, made_g, grid = ran
    here = Option(
        zone=zone, start=None, until=None, g_per_kwh=grid.g_per_kwh, quality=grid.quality, O_g=kwh * grid.g_per_kwh
    )
    told = {
        name: options
        for name, dated in hourly.items()
        if (options := [_option(name, one, kwh) for one in dated if _comparable(one.intensity, grid)])
    }
    present = {name: found for name, options in told.items() if (found := _at(options, now)) is not None}
    by: Literal["hourly", "yearly"] = "hourly" if zone in present and len(present) > 1 else "yearly"
    means = {name: _mean(name, one, kwh) for name, one in yearly.items() if one.factor == grid.factor}
    places = present if by == "hourly" else means
    instead = places.get(zone, here) if grid.quality != "static" else here
    hours = tuple(told.get(zone, ()))
    every = [option for options in told.values() for option in options]
    return WhatIf(
        here=here,
        M_g=made_g,
        E_kwh=kwh,
        by=by,
        place=_move(places.values(), instead, made_g),
        hour=_move(hours, here, made_g) if len(hours) > 1 else None,
        best=_move(every, here, made_g) if len(told) > 1 else None,
        places=tuple(sorted(places.values(), key=lambda one: (one.g_per_kwh, one.zone))),
        hours=hours,
    )


def _comparable(one: Intensity, grid: Intensity) -> bool:
    return one.quality in HOURLY and one.factor == grid.factor and one.kind == grid.kind


def _option(zone: str, dated: DatedIntensity, kwh: float) -> Option:
    one = dated.intensity
    return Option(
        zone=zone,
        start=dated.start,
        until=dated.until,
        g_per_kwh=one.g_per_kwh,
        quality=one.quality,
        O_g=kwh * one.g_per_kwh,
    )


def _mean(zone: str, one: Intensity, kwh: float) -> Option:
    return Option(
        zone=zone, start=None, until=None, g_per_kwh=one.g_per_kwh, quality=one.quality, O_g=kwh * one.g_per_kwh
    )


def _at(options: Sequence[Option], now: datetime) -> Option | None:
    for option in options:
        assert option.start is not None
        assert option.until is not None
        if datetime.fromisoformat(option.start) <= now < datetime.fromisoformat(option.until):
            return option
    return None


def _move(options: Iterable[Option], instead: Option, made_g: float) -> Move | None:
    """To the greenest of them; to stay, where nothing is greener."""
    to = min(options, key=lambda one: (one.g_per_kwh, one.start or "", one.zone), default=None)
    if to is None:
        return None
    saved_g = max(instead.O_g - to.O_g, 0.0)
    whole_g = instead.O_g + made_g
    return Move(to=to, instead=instead, saved_g=saved_g, saved_ratio=saved_g / whole_g if whole_g else 0.0)


def window(now: datetime) -> tuple[datetime, datetime]:
    """The hours that are looked at: a day back and a day ahead."""
    return now - timedelta(hours=24), now + timedelta(hours=24)
