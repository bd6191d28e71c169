"""From a Trace to named energy figures: which channels count, what each figure is, how sure, and its grade. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, inf, sqrt
from typing import Final, Literal

from joulebox.accounting.energy import Estimate, Split, Window, Works, estimate, lingering, split, works
from joulebox.accounting.power_model import profile_of
from joulebox.accounting.uncertainty import (
    COVERAGE_FACTOR,
    Noise,
    added,
    between_snapshots,
    boundary,
    combined,
    cutting,
    noise,
)
from joulebox.metering import POWER_KINDS, WHOLE_SCOPES, Curve, alternatives, counted_scopes, curve_of, guard_s
from joulebox.model import (
    CalibrationRef,
    Channel,
    Energy,
    Figure,
    Grade,
    IdleSpread,
    PhaseFigure,
    PhaseMethod,
    Power,
    ReadingKind,
    Sampling,
    ScopeFigure,
    Trace,
    UncertaintyPart,
)
from joulebox.units import nanoseconds, seconds

PEAK_S: Final = 0.05
MODELLED: Final = "modelled"
CALIBRATED_GAIN: Final = "gain of the counters, found at the wall"
"""One error in all of them: they were calibrated together."""
PHASES: Final = ("load", "prefill", "decode", "tail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Joules of a curve's unit: `offset_w * seconds + slope * units`; `u` expanded. Counters: 0 and 1; the power
    model: watts."""

    offset_w: float
    offset_u_w: float
    slope: float
    slope_u: float
    offset_source: str
    slope_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """One channel that counts towards the figures, with what the estimator found on it."""

    channel: Channel
    curve: Curve
    window: Window
    scale: Scale
    found: Estimate
    noise: Noise
    works: Works
    calibrated: bool = False
    """Its gain was found at the wall, and no big part of the machine lacks a meter."""

    def joules(self, units: float, duration_s: float) -> float:
        """Units of the curve over a duration as joules."""
        return self.scale.offset_w * duration_s + self.scale.slope * units

    def systematic(self, units: float, duration_s: float) -> list[UncertaintyPart]:
        """What the meter's own gain and offset leave open in `units` over `duration_s`."""
        scale = self.scale
        parts = [UncertaintyPart(source=scale.slope_source, j=abs(units) * scale.slope_u / COVERAGE_FACTOR)]
        if scale.offset_u_w:
            parts.append(UncertaintyPart(source=scale.offset_source, j=duration_s * scale.offset_u_w / COVERAGE_FACTOR))
        return parts

    def edges(self, name: str = "answer") -> list[UncertaintyPart]:
        """What ticks, lost ones and late ones too, resolution, guards and the idle machine's noise leave open at the
        ends of a figure. The noise before the answer is in `active` and `tail` part of their baseline."""
        parts = boundary(self.channel, self.curve, self.found, self.works, self.noise.after)
        noise, whole = self.noise.after, hypot(self.noise.before, self.noise.after)
        parts["idle noise"] = {"answer": whole, "active": noise, "tail": noise}[name]
        return self._parts(parts | self._lost())

    def idle(self, name: Literal["active", "tail"]) -> UncertaintyPart:
        """What the idle power taken off leaves open in `active` or `tail`."""
        found, noise = self.found, self.noise
        ways = {"active": (noise.active, self.window.duration_s), "tail": (noise.tail, found.tail_s)}
        noise_units, over_s = ways[name]
        before_ns = self.window.start_ns - nanoseconds(found.before_s)
        lost = self.curve.doubt(before_ns - nanoseconds(found.quiet_s), before_ns) / sqrt(3)
        (part,) = self._parts({"idle baseline": hypot(noise_units, lost * over_s / found.quiet_s)})
        return part

    def phase(self, name: str, cut: Split, swing: float) -> list[UncertaintyPart]:
        """What is open in prefill or decode besides gain and offset: the cut between them, and the other end."""
        decode = name == "decode"
        parts = cutting(self.channel, self.curve, self.found, self.works, cut, swing)
        end = boundary(self.channel, self.curve, self.found, self.works, self.noise.after)
        shared = ("resolution", *(("guards", "stamps") if decode else ()))
        parts |= {source: units for source, units in end.items() if source in shared}
        parts["idle noise"] = self.noise.after if decode else self.noise.before
        if self.channel.sampling is Sampling.SNAPSHOT:
            parts["snapshots"] = between_snapshots(self.channel, self.found, self.works, (int(decode),))
        return self._parts(parts | self._lost())

    def _lost(self) -> dict[str, float]:
        lost = self.curve.doubt(self.window.start_ns, self.window.end_ns + nanoseconds(self.window.tick_s))
        parts = {"lost ticks": lost, "seen late": lingering(self.curve, self.window, self.found)}
        return {source: most / sqrt(3) for source, most in parts.items() if most}

    def doubts_s(self) -> tuple[float, float, float]:
        """How much later than taken its ticks may be: as taken, the least and the most."""
        return 0.0, -self.curve.margin_s, self.curve.margin_s

    def _parts(self, units: Mapping[str, float]) -> list[UncertaintyPart]:
        return [UncertaintyPart(source=source, j=self.scale.slope * value) for source, value in units.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """The energy figures of a trace and what the verdict needs to know of how they came about."""

    energy: Energy
    power: Power
    metered: tuple[Metered, ...]
    seen: tuple[Metered, ...]
    """Also the channels that do not count: what others must agree with."""
    unmeasured: bool
    """Meters were there, but the guards hold too few readings to say anything."""
    parts: Mapping[str, tuple[UncertaintyPart, ...]] = field(default_factory=dict)
    """What each figure's interval is made of (k = 1); of phases where they are known."""


def reckon(trace: Trace) -> Reckoning:
    """All energy figures of the trace. Where nothing can be known a figure is `None`, never zero."""
    window = answer_window(trace)
    channels = [series.channel for series in trace.series]
    sets = alternatives(channels)
    modelled = not sets
    metered = _metered(trace, window, modelled=modelled)
    best = {scope: _surest(ways, metered) for scope, ways in sets.items()}
    chosen = metered if modelled else _counted(best)
    if not chosen:
        nothing = Power(mean_w=None, idle_w=None, peak_w=None)
        wished = bool(sets) or any(channel.kind is ReadingKind.BUSY_RATIO for channel in channels)
        return Reckoning(energy=_nothing(trace), power=nothing, metered=(), seen=(), unmeasured=wished)
    scope = MODELLED if modelled else scope_name(one.channel.scope for one in chosen)
    found = {name: _figure(chosen, scope, name) for name in ("answer", "active", "tail")}
    phases = list(_phases(chosen, trace, window, modelled=modelled))
    parts = {name: parts for name, (_, parts) in found.items()} | {name: parts for name, _, parts in phases}
    answer = found["answer"][0]
    energy = Energy(
        scope=scope,
        missing=trace.missing,
        answer=answer,
        active=found["active"][0],
        tail=found["tail"][0],
        full=_full(chosen, scope, trace),
        phases={name: _no_phase() for name in PHASES} | {name: phase for name, phase, _ in phases},
        scopes=_scopes(best),
        uncertainty=parts["answer"],
    )
    power = _power(chosen, answer, window)
    return Reckoning(
        energy=energy, power=power, metered=tuple(chosen), seen=tuple(metered), unmeasured=False, parts=parts
    )


def answer_window(trace: Trace) -> tuple[int, int]:
    """`t_s` and `t_e` of the trace. Raises `ValueError` where there is no answer in it."""
    answer = trace.span("answer")
    if answer is None or answer.end_ns <= answer.start_ns:
        raise ValueError("the trace holds no answer span")
    return answer.start_ns, answer.end_ns


def _metered(trace: Trace, window: tuple[int, int], *, modelled: bool) -> list[Metered]:
    """Every channel that the estimator can make an energy of: those of scopes, or the busy counter of the model."""
    quiet = trace.span("idle")
    quiet_from_ns = quiet.start_ns if quiet else window[0]
    first_ns = first_token_ns(trace)
    changes_ns = (window[0], window[1] if first_ns is None else first_ns, window[1])
    result = []
    for series in trace.series:
        channel = series.channel
        counts = channel.kind is ReadingKind.BUSY_RATIO if modelled else channel.kind in POWER_KINDS
        if not counts or channel.part_of is not None:
            continue
        curve = curve_of(series, changes_ns)
        own = Window(
            start_ns=window[0],
            end_ns=window[1],
            guard_s=guard_s(channel),
            tick_s=channel.tick_s,
            lag_s=channel.lag_s,
            quiet_from_ns=quiet_from_ns,
        )
        found = estimate(curve, own)
        if found is None or (channel.sampling is Sampling.SNAPSHOT and own.duration_s < 2 * channel.tick_s):
            continue
        scale = model_scale(trace) if modelled else meter_scale(channel)
        result.append(
            Metered(
                channel=channel,
                curve=curve,
                window=own,
                scale=scale,
                found=found,
                noise=noise(channel, curve, own, found, _known(trace.calibration, channel)),
                works=works(curve, own, first_ns),
                calibrated=_calibrated(channel, trace.missing),
            )
        )
    return result


def _known(calibration: CalibrationRef | None, channel: Channel) -> tuple[IdleSpread, ...]:
    """What the calibration kept of the channel's idle record."""
    kept = calibration.idle if calibration else ()
    return next((one.spreads for one in kept if (one.meter, one.name) == (channel.meter, channel.name)), ())


def _surest(ways: Sequence[Sequence[Channel]], metered: Sequence[Metered]) -> list[Metered]:
    """Of the sets of channels that tell a scope, the one whose answer is surest; empty where none is complete."""
    complete = []
    for way in ways:
        found = [one for one in metered if one.channel in way]
        if len(found) == len(way):
            complete.append(found)
    return min(complete, key=lambda found: combined(_total(found, "answer")[1])) if complete else []


def _counted(best: Mapping[str, list[Metered]]) -> list[Metered]:
    """The channels of the headline: those of a whole scope if one has them, else of all parts, none missing."""
    scopes = counted_scopes([scope for scope, found in best.items() if found or scope not in WHOLE_SCOPES])
    return [one for scope in scopes for one in best[scope]] if all(best[scope] for scope in scopes) else []


def meter_scale(channel: Channel) -> Scale:
    """What a meter's channel is worth in joules."""
    return Scale(
        offset_w=0.0,
        offset_u_w=channel.offset_u,
        slope=1.0,
        slope_u=channel.gain_u_ratio,
        offset_source=f"offset of the {channel.scope} meter",
        slope_source=CALIBRATED_GAIN if channel.at_wall else f"gain of the {channel.scope} meter",
    )


def model_scale(trace: Trace) -> Scale:
    """What the trace's machine draws by the power model."""
    profile = profile_of(trace.cores, trace.memory_bytes)
    return Scale(
        offset_w=profile.idle_w,
        offset_u_w=profile.idle_u_w,
        slope=profile.busy_core_w,
        slope_u=profile.busy_core_u_w,
        offset_source="power model: idle machine",
        slope_source="power model: busy cores",
    )


def scope_name(scopes: Iterable[str]) -> str:
    """The name of what parts cover together."""
    kinds = {"gpu" if scope.startswith("gpu") else scope for scope in scopes}
    return "+".join(sorted(kinds, key=lambda kind: (kind not in ("cpu", "dram"), kind)))


def _total(chosen: Sequence[Metered], name: str) -> tuple[float, tuple[UncertaintyPart, ...]]:
    """Joules of a figure over all channels, and what its interval is made of."""
    total_j = 0.0
    groups = []
    for one in chosen:
        found, duration_s = one.found, one.window.duration_s
        if name == "answer":
            total_j += one.joules(found.answer, duration_s)
            groups.append([*one.systematic(found.answer, duration_s), *one.edges(name)])
        elif name == "active":
            total_j += one.scale.slope * found.active
            groups.append([*one.systematic(found.active, 0.0), *one.edges(name), one.idle("active")])
        else:
            total_j += one.scale.slope * found.tail
            groups.append([*one.systematic(found.tail, 0.0), *one.edges(name), one.idle("tail")])
    return total_j, added(groups)


def _figure(chosen: Sequence[Metered], scope: str, name: str) -> tuple[Figure, tuple[UncertaintyPart, ...]]:
    total_j, parts = _total(chosen, name)
    u = combined(parts)
    return Figure(j=total_j, u=u, grade=grade(scope, total_j, u, calibrated=at_wall(chosen))), parts


def _full(chosen: Sequence[Metered], scope: str, trace: Trace) -> Figure | None:
    total_j = 0.0
    groups = []
    reserved_s = seconds(trace.released_ns - trace.leased_ns)
    for one in chosen:
        units = _reserved(one, trace.leased_ns, trace.released_ns)
        if units is None:
            return None
        total_j += one.joules(units, reserved_s)
        groups.append([*one.systematic(units, reserved_s), *one.edges("answer")])
    u = combined(added(groups))
    return Figure(j=total_j, u=u, grade=grade(scope, total_j, u, calibrated=at_wall(chosen)))


def _reserved(one: Metered, leased_ns: int, released_ns: int) -> float | None:
    """What the curve rose by from lease to release. The ticks of a slow meter need not reach both: the tick or two that
    lack are idling, at the power the guards measured."""
    start_ns, end_ns = max(leased_ns, one.curve.t_ns[0]), min(released_ns, one.curve.t_ns[-1])
    before_s, after_s = seconds(start_ns - leased_ns), seconds(released_ns - end_ns)
    if end_ns <= start_ns or max(before_s, after_s) > 2 * (one.window.tick_s + one.window.lag_s):
        return None
    return one.curve.between(start_ns, end_ns) + one.found.idle_rate * before_s + one.found.after_rate * after_s


def _phases(
    chosen: Sequence[Metered], trace: Trace, window: tuple[int, int], *, modelled: bool
) -> Iterator[tuple[str, PhaseFigure, tuple[UncertaintyPart, ...]]]:
    method: PhaseMethod = "modelled" if modelled else "measured"
    load = trace.span("load")
    if load:
        yield "load", phase_figure(chosen, (load.start_ns, load.end_ns), method), ()
    first_ns = first_token_ns(trace)
    if first_ns is not None:
        yield "prefill", *_half(chosen, "prefill", first_ns, seconds(first_ns - window[0]), method)
        if first_ns < window[1]:
            yield "decode", *_half(chosen, "decode", first_ns, seconds(window[1] - first_ns), method)
    tail_j, parts = _total(chosen, "tail")
    longest_s = max(one.found.tail_s for one in chosen)
    yield "tail", PhaseFigure(j=tail_j, u=combined(parts), s=longest_s, method=method), parts


def first_token_ns(trace: Trace) -> int | None:
    """When the first token came, where that was inside the answer."""
    start_ns, end_ns = answer_window(trace)
    first_ns = trace.tokens[0].t_ns if trace.tokens else None
    return first_ns if first_ns is not None and start_ns < first_ns <= end_ns else None


def _no_phase() -> PhaseFigure:
    return PhaseFigure(j=None, u=None, s=None, method=None)


def phase_figure(chosen: Sequence[Metered], span: tuple[int, int], method: PhaseMethod) -> PhaseFigure:
    """What was drawn from one moment to another inside the record, idle included; null where ticks are too coarse. The
    machine was idle before: at either edge a tick's worth of what was drawn just before may be missing."""
    duration_s = seconds(span[1] - span[0])
    total_j = 0.0
    groups = []
    for one in chosen:
        blur_s = one.curve.slack_s + one.curve.blur_s + max(_distance_s(one.curve, edge) for edge in span)
        if duration_s <= 0 or blur_s > duration_s / 4:
            return PhaseFigure(j=None, u=None, s=duration_s, method=None)
        try:
            units = one.curve.between(*span)
        except ValueError:
            return PhaseFigure(j=None, u=None, s=duration_s, method=None)
        total_j += one.joules(units, duration_s)
        rates = hypot(one.found.idle_rate, units / duration_s)
        tick = UncertaintyPart(source="tick", j=one.scale.slope * rates * blur_s / sqrt(3))
        groups.append([*one.systematic(units, duration_s), tick])
    return PhaseFigure(j=total_j, u=combined(added(groups)), s=duration_s, method=method)


def _half(
    chosen: Sequence[Metered], name: str, first_ns: int, duration_s: float, method: PhaseMethod
) -> tuple[PhaseFigure, tuple[UncertaintyPart, ...]]:
    """Prefill or decode: the answer cut at its first token. Null where readings do not tell them apart."""
    total_j, groups = 0.0, []
    for one in chosen:
        cut, early, late = (split(one.curve, one.window, one.found, first_ns, doubt_s) for doubt_s in one.doubts_s())
        coarse_s = max(4 * (one.curve.slack_s + one.curve.blur_s), 2 * one.curve.margin_s)
        if coarse_s > duration_s or cut is None or early is None or late is None:
            return PhaseFigure(j=None, u=None, s=duration_s, method=None), ()
        units = cut.prefill if name == "prefill" else cut.decode
        total_j += one.joules(units, duration_s)
        parts = one.phase(name, cut, late.prefill - early.prefill if name == "prefill" else late.decode - early.decode)
        groups.append([*one.systematic(units, duration_s), *parts])
    whole = added(groups)
    return PhaseFigure(j=total_j, u=combined(whole), s=duration_s, method=method), whole


def _distance_s(curve: Curve, t_ns: int) -> float:
    """How far the nearest reading is from a moment."""
    near = [t for t in (curve.last_at_or_before(t_ns), curve.first_at_or_after(t_ns)) if t is not None]
    return min(abs(seconds(t - t_ns)) for t in near)


def _scopes(best: Mapping[str, list[Metered]]) -> dict[str, ScopeFigure]:
    scopes = {}
    for scope, found in best.items():
        if found:
            total_j, parts = _total(found, "answer")
            scopes[scope] = ScopeFigure(j=total_j, u=combined(parts))
    return scopes


def _power(chosen: Sequence[Metered], answer: Figure, window: tuple[int, int]) -> Power:
    return Power(
        mean_w=answer.j / seconds(window[1] - window[0]),
        idle_w=sum(one.scale.offset_w + one.scale.slope * one.found.idle_rate for one in chosen),
        peak_w=max((_mean_w(chosen, *stretch) for stretch in _stretches(chosen, window)), default=None),
    )


def _stretches(chosen: Sequence[Metered], window: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """To every reading in the answer the shortest stretch before it of `PEAK_S` or more, so that no tick makes a
    peak."""
    first_ns = max(one.curve.last_at_or_before(window[0]) or 0 for one in chosen)
    times = [t for t in chosen[0].curve.t_ns if first_ns <= t <= window[1]]
    start = 0
    for end_ns in times:
        while times[start] < end_ns and end_ns - times[start + 1] >= nanoseconds(PEAK_S):
            start += 1
        if end_ns - times[start] >= nanoseconds(PEAK_S):
            yield times[start], end_ns


def _mean_w(chosen: Sequence[Metered], start_ns: int, end_ns: int) -> float:
    return sum(one.scale.offset_w + one.scale.slope * one.curve.rate(start_ns, end_ns) for one in chosen)


def _nothing(trace: Trace) -> Energy:
    return Energy(
        scope=None,
        missing=trace.missing,
        answer=None,
        active=None,
        tail=None,
        full=None,
        phases={name: _no_phase() for name in PHASES},
        scopes={},
        uncertainty=(),
    )


def at_wall(chosen: Sequence[Metered]) -> bool:
    """Whether the gain of all of them was found at the wall."""
    return all(one.calibrated for one in chosen)


def _calibrated(channel: Channel, missing: Sequence[str]) -> bool:
    """Whether this is a counter of one big part, all others being metered as well, with a gain found at the wall.
    Memory that was not tried there counts with what its driver claims."""
    lacks = any(part in ("cpu", "dram") or part.startswith("gpu") for part in missing)
    return not lacks and (channel.at_wall or channel.scope == "dram")


def grade(scope: str, j: float, u: float, *, calibrated: bool = False) -> Grade:
    """A: at the wall, U <= 2 %. B: at the wall, U <= 10 %, or counters of everything big, `calibrated` at the wall,
    U <= 5 %. C: measured, U <= 30 %, or big parts missing. D: modelled, or worse."""
    ratio = u / abs(j) if j else inf
    if scope == MODELLED or ratio > 0.30:
        return "D"
    if scope == "wall":
        return "A" if ratio <= 0.02 else "B" if ratio <= 0.10 else "C"
    return "B" if calibrated and ratio <= 0.05 else "C"
