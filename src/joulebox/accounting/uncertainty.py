"""How sure a figure is: every part by name, as a standard uncertainty (k = 1), and the whole expanded (k = 2).

The baseline part is the spread of the very same estimator over sham windows: stretches of the idle record with the
same length and the same guards, where the true active energy is zero. (Scatter over the square root of n, the usual
way, covers 5-76 % of the truth where sham windows cover 94-98 %.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

from joulebox.accounting.energy import Estimate, Window, estimate
from joulebox.metering import Curve
from joulebox.model import Channel, UncertaintyPart
from joulebox.units import nanoseconds, seconds

COVERAGE_FACTOR: Final = 2.0
SHAM_WINDOWS_MIN: Final = 3
COMMON: Final = ("gain", "offset", "power model")
"""What the names of parts begin with that are the same error in every channel of their name."""
_T95: Final = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
    2.12,
    2.11,
    2.10,
)
"""Student's t for 95 %, 1 to 18 degrees of freedom (any table of the distribution); 2.0 beyond."""


@dataclass(frozen=True, slots=True)
class Sham:
    """What the estimator says where nothing happened: root mean square in the unit of the curve, over `n` windows."""

    spread: float
    n: float
    stretched: float
    """By how much the spread was scaled up because the idle record is shorter than the window needs; 1.0 if it is not.
    """


def sham_windows(curve: Curve, window: Window, quiet_from_ns: int) -> Sham | None:
    """The estimator's own spread on the idle record from `quiet_from_ns` to the window's start.

    A record shorter than the window needs gives a shorter sham window whose spread is scaled with the length, as drift
    would; `None` where not even that fits.
    """
    room_s = seconds(window.start_ns - quiet_from_ns)
    wrap_s = 2 * window.guard_s + window.tick_s + window.lag_s
    length_s = min(window.duration_s, (room_s - wrap_s) / SHAM_WINDOWS_MIN)
    if length_s <= 0.02:
        return None
    pace_ns = nanoseconds(max(length_s / 2, room_s / 200))
    spreads = []
    start_ns = quiet_from_ns + nanoseconds(window.guard_s)
    last_ns = window.start_ns - nanoseconds(length_s + window.guard_s + window.tick_s + window.lag_s)
    while start_ns <= last_ns:
        sham = replace(window, start_ns=start_ns, end_ns=start_ns + nanoseconds(length_s))
        found = estimate(curve, sham)
        if found is not None:
            spreads.append(found.active)
        start_ns += pace_ns
    if len(spreads) < SHAM_WINDOWS_MIN:
        return None
    stretched = window.duration_s / length_s
    rms = sqrt(sum(spread * spread for spread in spreads) / len(spreads))
    independent = min(float(len(spreads)), max(1.0, room_s / (length_s + window.guard_s)))
    return Sham(rms * stretched, independent, stretched)


def boundary(channel: Channel, found: Estimate) -> dict[str, float]:
    """What tick, resolution and the guards' edges leave open in the answer, in the unit of the curve (k = 1)."""
    return {
        "resolution": channel.step / sqrt(6),
        "tick": channel.tick_s * sqrt((found.idle_rate**2 + found.after_rate**2) / 12),
        "guards": abs(found.after_rate - found.idle_rate) * found.after_s / sqrt(12),
    }


def baseline(found: Estimate, window: Window, sham: Sham | None) -> float:
    """The standard uncertainty of the idle power taken off, over the window, in the unit of the curve.

    Few sham windows are widened by Student's t. Without any, all of the idle part is uncertain (as of a rectangle).
    """
    if sham is None:
        return abs(found.idle_rate) * window.duration_s / sqrt(3)
    degrees = max(int(sham.n) - 1, 1)
    widened = _T95[degrees - 1] / COVERAGE_FACTOR if degrees <= len(_T95) else 1.0
    return sham.spread * widened


def combined(parts: Iterable[UncertaintyPart]) -> float:
    """The expanded uncertainty (k = 2) of independent parts, in joules."""
    return COVERAGE_FACTOR * sqrt(sum(part.j * part.j for part in parts))


def added(groups: Sequence[Sequence[UncertaintyPart]]) -> tuple[UncertaintyPart, ...]:
    """Parts of several channels as one list. Meters of one kind err alike, so that a gain or offset of one name adds
    up; every other part is independent and adds in quadrature."""
    together: dict[str, list[float]] = {}
    for group in groups:
        for part in group:
            together.setdefault(part.source, []).append(part.j)
    return tuple(
        UncertaintyPart(source=source, j=sum(js) if source.startswith(COMMON) else sqrt(sum(j * j for j in js)))
        for source, js in together.items()
    )
