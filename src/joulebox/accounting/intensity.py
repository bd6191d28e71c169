"""The grid's intensity over a run: each stretch's energy at its own intensity, never a mean times a mean. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from joulebox.accounting.figures import Metered
from joulebox.model import CarbonFactors, Intensity, IntensitySlot, Quality, Trace
from joulebox.units import NS_PER_US, seconds

SURE: Final[tuple[Quality, ...]] = ("static", "measured", "estimated", "forecast", "yearly")
"""Qualities from the surest: a mean is as good as the worst of its slots."""


def over(factors: CarbonFactors, trace: Trace, metered: Sequence[Metered], window: tuple[int, int]) -> CarbonFactors:
    """The factors for one stretch of the run (nanoseconds since its origin), their intensity that stretch's mean.

    Each slot counts with the share of the energy drawn in it; without energy, with its share of the time.
    """
    stretches = _stretches(factors, trace.origin, window)
    shares = _shares([(start, end) for start, end, _ in stretches], metered)
    slots = tuple(_slot(trace.origin, stretch, share) for stretch, share in zip(stretches, shares, strict=True))
    return replace(factors, intensity=_mean([intensity for _, _, intensity in stretches], slots))


Stretch = tuple[int, int, Intensity]


def _stretches(factors: CarbonFactors, origin: datetime, window: tuple[int, int]) -> list[Stretch]:
    """The window cut where the intensity changes."""
    start_ns, end_ns = window
    changes = [(start_ns, factors.intensity)]
    for change in factors.later:
        at_ns = (datetime.fromisoformat(change.start) - origin) // timedelta(microseconds=1) * NS_PER_US
        if at_ns <= start_ns:
            changes = [(start_ns, change.intensity)]
        elif at_ns < end_ns:
            changes.append((at_ns, change.intensity))
    ends = [at_ns for at_ns, _ in changes[1:]] + [end_ns]
    return [(at_ns, end, intensity) for (at_ns, intensity), end in zip(changes, ends, strict=True)]


def _shares(stretches: Sequence[tuple[int, int]], metered: Sequence[Metered]) -> list[float]:
    """How much of the whole falls into each stretch; together exactly 1."""
    if len(stretches) == 1:
        return [1.0]
    drawn = [max(sum(_drawn_j(one, *stretch) for one in metered), 0.0) for stretch in stretches]
    if sum(drawn) <= 0:
        drawn = [seconds(end_ns - start_ns) for start_ns, end_ns in stretches]
    marks = [0.0]
    for part in drawn:
        marks.append(marks[-1] + part)
    return [(later - earlier) / marks[-1] for earlier, later in pairwise(marks)]


def _drawn_j(one: Metered, start_ns: int, end_ns: int) -> float:
    """What the meter's curve rose by. Beyond its ends the machine is taken to idle as its guards did."""
    curve, found = one.curve, one.found
    first_ns, last_ns = curve.t_ns[0], curve.t_ns[-1]
    inner_start_ns = min(max(start_ns, first_ns), last_ns)
    inner_end_ns = max(min(end_ns, last_ns), inner_start_ns)
    units = curve.between(inner_start_ns, inner_end_ns)
    units += found.idle_rate * seconds(max(min(end_ns, first_ns) - start_ns, 0))
    units += found.after_rate * seconds(max(end_ns - max(start_ns, last_ns), 0))
    return one.joules(units, seconds(end_ns - start_ns))


def _slot(origin: datetime, stretch: Stretch, share: float) -> IntensitySlot:
    start_ns, end_ns, intensity = stretch
    return IntensitySlot(
        start=_moment(origin, start_ns),
        end=_moment(origin, end_ns),
        energy_share=share,
        g_per_kwh=intensity.g_per_kwh,
        low=intensity.low,
        high=intensity.high,
        at=intensity.at,
        quality=intensity.quality,
    )


def _moment(origin: datetime, t_ns: int) -> str:
    return (origin + timedelta(microseconds=t_ns // NS_PER_US)).isoformat(timespec="milliseconds")


def _mean(intensities: Sequence[Intensity], slots: tuple[IntensitySlot, ...]) -> Intensity:
    if len(intensities) == 1:
        return replace(intensities[0], slots=slots)
    return replace(
        max(intensities, key=lambda one: SURE.index(one.quality)),
        g_per_kwh=sum(slot.energy_share * slot.g_per_kwh for slot in slots),
        low=sum(slot.energy_share * slot.low for slot in slots),
        high=sum(slot.energy_share * slot.high for slot in slots),
        at=intensities[0].at,
        source="; ".join(dict.fromkeys(one.source for one in intensities)),
        slots=slots,
    )
