"""What earlier attempts at a prompt drew: an engine that died, a node that broke. It is part of `full`. Pure.

Their evidence holds no answer, so that there is no window and no guard: only what the meters counted from lease to
release. An attempt that left no evidence, or whose meters cover something else, is unknown; `full` is then a lower
bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

from joulebox.accounting.figures import MODELLED, Reckoning, Scale, at_wall, grade, meter_scale, model_scale, scope_name
from joulebox.accounting.uncertainty import COVERAGE_FACTOR, SNAPSHOT_SCATTER, added, combined
from joulebox.metering import WHOLE_SCOPES, alternatives, counted_scopes, curve_of
from joulebox.model import Channel, EarlierAttempt, Figure, ReadingKind, Sampling, Series, Trace, UncertaintyPart
from joulebox.units import seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the earlier attempts drew: `j` and `u` (k = 2) over `reserved_s`, as far as `known`; the rest is unknown."""

    j: float = 0.0
    u: float = 0.0
    reserved_s: float = 0.0
    known: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()


def spent_before(earlier: Sequence[EarlierAttempt], scope: str | None) -> Spent:
    """The earlier attempts in the scope of the receipt. Uncertainties add up: the same meters err alike."""
    total = Spent()
    for attempt in earlier:
        drawn = _drawn(attempt.trace, scope) if attempt.trace is not None and scope is not None else None
        if drawn is None or attempt.trace is None:
            total = replace(total, unknown=(*total.unknown, attempt.number))
        else:
            total = replace(
                total,
                j=total.j + drawn[0],
                u=total.u + drawn[1],
                reserved_s=total.reserved_s + seconds(attempt.trace.released_ns - attempt.trace.leased_ns),
                known=(*total.known, attempt.number),
            )
    return total


def left_alone(trace: Trace) -> tuple[str, float, float] | None:
    """What an attempt drew that led to no answer at all, from lease to release: scope, joules and `u`; `None` where no
    meter tells."""
    scopes = counted_scopes(list(alternatives([series.channel for series in trace.series])))
    busy = any(series.channel.kind is ReadingKind.BUSY_RATIO for series in trace.series)
    scope = scope_name(scopes) if scopes else MODELLED if busy else None
    found = _drawn(trace, scope) if scope is not None else None
    return (scope, *found) if scope is not None and found is not None else None


def with_earlier(reckoning: Reckoning, spent: Spent) -> Reckoning:
    """The figures with what earlier attempts drew in `full`."""
    energy = reckoning.energy
    if energy.full is None or energy.scope is None or not spent.known:
        return reckoning
    j, u = energy.full.j + spent.j, energy.full.u + spent.u
    full = Figure(j=j, u=u, grade=grade(energy.scope, j, u, calibrated=at_wall(reckoning.metered)))
    return replace(reckoning, energy=replace(energy, full=full))


def _drawn(trace: Trace, scope: str) -> tuple[float, float] | None:
    """Joules from lease to release with `u`, `None` where no meter tells them in this scope."""
    total_j, groups = 0.0, []
    for ways in _scopes(trace, scope):
        found = next((each for way in ways if (each := _of_way(trace, way, scope)) is not None), None)
        if found is None:
            return None
        total_j += found[0]
        groups += found[1]
    return (total_j, combined(added(groups))) if groups else None


def _scopes(trace: Trace, scope: str) -> list[list[list[Channel]]]:
    """For each part of `scope` the sets of channels that tell it, the quickest first; empty where it is not told."""
    channels = [series.channel for series in trace.series]
    sets = alternatives(channels)
    if scope == MODELLED:
        return [[[one for one in channels if one.kind is ReadingKind.BUSY_RATIO]]] if not sets else []
    names = [name for name in sets if (name == scope if scope in WHOLE_SCOPES else name not in WHOLE_SCOPES)]
    if scope_name(names) != scope:
        return []
    return [sorted(sets[name], key=lambda way: max(one.tick_s for one in way)) for name in names]


def _of_way(trace: Trace, way: Sequence[Channel], scope: str) -> tuple[float, list[list[UncertaintyPart]]] | None:
    """Joules of all these channels with the parts of their uncertainty; `None` where one of them does not tell."""
    total_j, groups = 0.0, []
    for series in trace.series:
        if series.channel not in way:
            continue
        scale = model_scale(trace) if scope == MODELLED else meter_scale(series.channel)
        counted = _of_channel(series, trace.leased_ns, trace.released_ns, scale)
        if counted is None:
            return None
        total_j += counted[0]
        groups.append(counted[1])
    return (total_j, groups) if groups else None


def _of_channel(
    series: Series, leased_ns: int, released_ns: int, scale: Scale
) -> tuple[float, list[UncertaintyPart]] | None:
    """What one channel counted. The tick or two that lack at the ends are taken at the mean of the rest, and are
    uncertain as a whole."""
    channel, curve = series.channel, curve_of(series)
    if len(curve.t_ns) < 2 or any(leased_ns <= t_ns <= released_ns for t_ns in curve.resets_ns):
        return None
    start_ns, end_ns = max(leased_ns, curve.t_ns[0]), min(released_ns, curve.t_ns[-1])
    lacking_s = seconds(start_ns - leased_ns) + seconds(released_ns - end_ns)
    if end_ns <= start_ns or lacking_s > 4 * (channel.tick_s + channel.lag_s):
        return None
    duration_s = seconds(released_ns - leased_ns)
    rate = curve.rate(start_ns, end_ns)
    units = curve.between(start_ns, end_ns) + rate * lacking_s
    edge_s = lacking_s / sqrt(3) + (curve.slack_s + curve.blur_s) / sqrt(6) + curve.margin_s / sqrt(3)
    parts = [
        UncertaintyPart(source=scale.slope_source, j=abs(units) * scale.slope_u / COVERAGE_FACTOR),
        UncertaintyPart(source=scale.offset_source, j=duration_s * scale.offset_u_w / COVERAGE_FACTOR),
        UncertaintyPart(source="tick", j=scale.slope * rate * edge_s),
    ]
    if channel.sampling is Sampling.SNAPSHOT:
        watts = [pair[1] for pair in zip(series.t_ns, series.raw, strict=True) if leased_ns <= pair[0] <= released_ns]
        rise_w = (max(watts) - min(watts)) * channel.step if watts else rate
        looks = 1 / 6 + duration_s / channel.tick_s * SNAPSHOT_SCATTER**2
        parts.append(UncertaintyPart(source="snapshots", j=channel.tick_s * rise_w * sqrt(looks)))
    return scale.offset_w * duration_s + scale.slope * units, parts
