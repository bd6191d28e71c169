"""Do the meters of this machine agree? All are read at once while it works in steps; those that must agree are fitted.

A plug that hangs on another machine does not follow the steps; two meters of one thing that differ by more than both
allow are told; of a whole and its parts the line between them is found (`joulebox.agreement`), by which every answer is
checked.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import hypot
from statistics import fmean, stdev
from typing import Final, Literal

from joulebox.agreement import Pair, expected_w, fit_of, fitted, label, pairs, words
from joulebox.clock import Clock
from joulebox.metering import Curve, curve_of
from joulebox.model import Channel, MetersFit
from joulebox.node.meter import Meter
from joulebox.node.recorder import TICK_MAX_S, Recorder
from joulebox.units import nanoseconds, seconds

LEVELS: Final = (0.0, 1.0, 0.5, 0.0, 1.0, 0.5, 0.0, 1.0, 0.5, 0.0)
"""Shares of the machine that work, in turn."""
READING_HZ: Final = 20.0
STRETCH_MIN_S: Final = 2.5
TICKS_A_STRETCH: Final = 4
CALM_S: Final = 0.5
"""After a step so long passes, and a tick and the lag, before the meters are compared."""
FOLLOWS_RATIO: Final = 0.5
"""A whole rises by more than its parts do. One that surely rises by less than this share of it sees something else."""
RISE_MIN_W: Final = 1.0
SLOPE_LEAST, SLOPE_MOST = 1.0, 1.7
"""A watt more in the parts is more than a watt at the whole, by what supply and regulators lose; not by half as much
again."""

GLANCE_W, GLANCE_RATIO = 1.0, 0.10
"""Meters looked at one after another see different moments of a machine that is not idle."""

Code = Literal["agrees", "closure", "swapped", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What was found of two sets of channels: `closure` where they contradict each other, `swapped` where one sees
    something else, `unknown` where the work could not be seen. Only a whole that agrees with its parts has a `fit`;
    `rises_w` is by how much each of the parts rose from rest to full work, in the fit's order."""

    code: Code
    sentence: str
    fit: MetersFit | None = None
    rises_w: tuple[float, ...] = ()


def compare(
    meters: Sequence[Meter], clock: Clock, load: Callable[[float], AbstractContextManager[object]]
) -> tuple[Agreement, ...]:
    """Let the machine work in steps and hold the meters against one another. Nothing where no two must agree.

    Takes half a minute, or what ten times four ticks of the slowest meter take. The meters stay open.
    """
    channels = [one for meter in meters for one in meter.channels() if one.tick_s <= TICK_MAX_S]
    checked = pairs(channels)
    if not checked:
        return ()
    wanted = {one for pair in checked for one in (*pair.whole, *pair.parts)}
    calm_s = CALM_S + max(one.tick_s + 1.5 * one.lag_s for one in wanted)
    slowest_s = max(one.tick_s for one in wanted)  # at either end a tick may hold some of the next stretch
    stretch_s = max(STRETCH_MIN_S, calm_s + (TICKS_A_STRETCH + 1) * slowest_s)
    recorder = Recorder([_StaysOpen(meter) for meter in meters], clock, READING_HZ)
    recorder.start()
    try:
        start_ns = clock.now_ns()
        steps = _steps(clock, load, stretch_s)
        series = recorder.series(start_ns, clock.now_ns())
    finally:
        recorder.stop()
    curves = {one.channel: curve_of(one) for one in series if one.channel in wanted}
    stretches = [
        (level, a + nanoseconds(calm_s) - start_ns, b - nanoseconds(slowest_s) - start_ns) for level, a, b in steps
    ]
    return tuple(_agreement(pair, curves, stretches) for pair in checked) + tuple(_exchanged(curves, stretches))


def at_a_glance(watts: Mapping[Channel, float], fits: Sequence[MetersFit]) -> tuple[Agreement, ...]:
    """Whether mean powers read one after another make sense together: a rough look, without any work. `fits` are those
    of a calibration that holds."""
    found = []
    for pair in pairs(tuple(watts)):
        parts_w, whole_w = (sum(watts[one] for one in side) for side in (pair.parts, pair.whole))
        fit = None if pair.same else fit_of(pair, fits)
        wanted_w, u_w = expected_w(fit, parts_w) if fit else (parts_w, _declared_w(pair.parts, parts_w))
        allowed_w = hypot(u_w, 0.0 if fit else _declared_w(pair.whole, whole_w), GLANCE_W, GLANCE_RATIO * whole_w)
        off_w = whole_w - wanted_w
        wrong = off_w < -allowed_w or (off_w > allowed_w and (pair.same or fit is not None))
        told = f"{words(pair.whole)} shows {whole_w:.1f} W, {words(pair.parts)} {parts_w:.1f} W"
        led = f" and by calibration {wanted_w:.1f} W were to be expected" if fit else ""
        found.append(
            Agreement(
                code="closure" if wrong else "agrees",
                sentence=f"{told}{led}: "
                + (
                    f"that cannot be, give or take {allowed_w:.1f} W. Does one of them look at another machine or part?"
                    if wrong
                    else "that makes sense."
                ),
            )
        )
    return tuple(found)


class _StaysOpen:
    """A meter that a recorder does not close."""

    def __init__(self, meter: Meter) -> None:
        self.address = meter.address
        self.missing = meter.missing
        self.channels = meter.channels
        self.read = meter.read

    def close(self) -> None:
        """It belongs to who opened it."""


def _steps(
    clock: Clock, load: Callable[[float], AbstractContextManager[object]], stretch_s: float
) -> list[tuple[float, int, int]]:
    """Level, begin and end of each stretch."""
    steps = []
    for level in LEVELS:
        start_ns = clock.now_ns()
        if level:
            with load(level):
                clock.sleep_until(start_ns + nanoseconds(stretch_s))
        else:
            clock.sleep_until(start_ns + nanoseconds(stretch_s))
        steps.append((level, start_ns, start_ns + nanoseconds(stretch_s)))
    return steps


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Mean watts of both sides while the machine worked at a level."""

    level: float
    parts_w: float
    whole_w: float


def _agreement(pair: Pair, curves: Mapping[Channel, Curve], stretches: Sequence[tuple[float, int, int]]) -> Agreement:
    seen = []
    for level, start_ns, end_ns in stretches:
        parts_w, whole_w = (_mean_w(side, curves, start_ns, end_ns) for side in (pair.parts, pair.whole))
        if parts_w is not None and whole_w is not None:
            seen.append(_Stretch(level, parts_w, whole_w))
    parts_rise_w, parts_u_w = _rise([(one.level, one.parts_w) for one in seen])
    whole_rise_w, whole_u_w = _rise([(one.level, one.whole_w) for one in seen])
    told = f"{words(pair.whole)} and {words(pair.parts)}"
    if max(parts_rise_w - parts_u_w, whole_rise_w - whole_u_w) < RISE_MIN_W:
        return Agreement(
            code="unknown",
            sentence=f"{told}: neither followed the work (was the machine busy before?): nothing can be told.",
        )
    if whole_rise_w + whole_u_w < FOLLOWS_RATIO * (parts_rise_w - parts_u_w):
        return _swapped(pair.whole, whole_rise_w, pair.parts, parts_rise_w)
    if pair.same and parts_rise_w + parts_u_w < FOLLOWS_RATIO * (whole_rise_w - whole_u_w):
        return _swapped(pair.parts, parts_rise_w, pair.whole, whole_rise_w)
    if pair.same:
        return _two_of_one(pair, seen)
    if parts_rise_w - parts_u_w < RISE_MIN_W:
        return Agreement(
            code="unknown", sentence=f"{told}: {words(pair.parts)} saw nothing of the work, so there is no line to fit."
        )
    found = _part_of_whole(pair, seen)
    rises_w = (_rise(_levels([one], curves, stretches))[0] for one in sorted(pair.parts, key=label))
    return replace(found, rises_w=tuple(rises_w)) if found.fit is not None else found


def _swapped(still: Sequence[Channel], still_w: float, moved: Sequence[Channel], moved_w: float) -> Agreement:
    return Agreement(
        code="swapped",
        sentence=f"{words(still)} does not follow the work: while {words(moved)} rose by {moved_w:.1f} W it changed by "
        f"{still_w:.1f} W. It looks at another machine or part: mend that, or leave it out, then calibrate again.",
    )


def _two_of_one(pair: Pair, seen: Sequence[_Stretch]) -> Agreement:
    """Two meters of the same thing must show the same, to within what both say of themselves."""
    mean_w = fmean(one.parts_w for one in seen)
    off_w = fmean(one.whole_w - one.parts_w for one in seen)
    scatter_w = stdev(one.whole_w - one.parts_w for one in seen) if len(seen) > 1 else 0.0
    allowed_w = hypot(_declared_w(pair.whole, mean_w), _declared_w(pair.parts, mean_w), scatter_w)
    told = f"{words(pair.whole)} shows {abs(off_w):.2f} W {'more' if off_w > 0 else 'less'} than {words(pair.parts)}"
    if abs(off_w) <= allowed_w:
        return Agreement(code="agrees", sentence=f"{told} at {mean_w:.1f} W: they agree to within {allowed_w:.2f} W.")
    return Agreement(
        code="closure",
        sentence=f"{told} at {mean_w:.1f} W, and together they may differ by {allowed_w:.2f} W: one of the two is "
        "wrong. Hold both against a third, and leave the wrong one out.",
    )


def _part_of_whole(pair: Pair, seen: Sequence[_Stretch]) -> Agreement:
    """Parts are inside the whole: a line leads from one to the other, and its slope must make sense."""
    fit = fitted(pair, [(one.parts_w, one.whole_w) for one in seen])
    if fit is None:
        return Agreement(
            code="unknown", sentence=f"{words(pair.whole)}: too few readings to hold it against its parts."
        )
    gains = hypot(
        _declared_w(pair.whole, fit.high_w * fit.slope) / (fit.high_w * fit.slope),
        _declared_w(pair.parts, fit.high_w) / fit.high_w,
    )
    u_slope = hypot(fit.u_slope, gains * fit.slope)
    at_rest = f"{fit.rest_w:.1f} W" if fit.rest_w >= 0 else "nothing"
    line = f"{words(pair.whole)} = {fit.rest_w:.1f} W + {fit.slope:.3f} x {words(pair.parts)}"
    if not SLOPE_LEAST - u_slope <= fit.slope <= SLOPE_MOST + u_slope:
        return Agreement(
            code="closure",
            sentence=f"{line}: a slope of {SLOPE_LEAST:g} to {SLOPE_MOST:g} is possible, give or take the "
            f"{u_slope:.2f} that both meters and the line allow. One of the two is wrong: hold both against a third.",
        )
    _, u_w = expected_w(fit, fit.high_w)
    return Agreement(
        code="agrees",
        sentence=f"{line}, to within {u_w:.1f} W at {fit.rest_w + fit.slope * fit.high_w:.0f} W: {at_rest} go where no "
        "part looks (board, fans, what the supply always loses).",
        fit=fit,
    )


def _exchanged(curves: Mapping[Channel, Curve], stretches: Sequence[tuple[float, int, int]]) -> list[Agreement]:
    """While only cores work, memory does not rise by more than the processor."""
    rises = {}
    for scope in ("cpu", "dram"):
        side = [one for one in curves if one.scope == scope]
        rises[scope] = side, *_rise(_levels(side, curves, stretches))
    (cpu, cpu_w, cpu_u_w), (dram, dram_w, dram_u_w) = rises["cpu"], rises["dram"]
    if not cpu or not dram or dram_w - dram_u_w < max(cpu_w + cpu_u_w, RISE_MIN_W):
        return []
    sentence = (
        f"{words(dram)} rose by {dram_w:.1f} W and {words(cpu)} by {cpu_w:.1f} W while only the cores worked: the two "
        "look exchanged. Put their names right, then calibrate again."
    )
    return [Agreement(code="swapped", sentence=sentence)]


def _levels(
    side: Sequence[Channel], curves: Mapping[Channel, Curve], stretches: Sequence[tuple[float, int, int]]
) -> list[tuple[float, float]]:
    """The level of each stretch with the mean watts of these channels."""
    seen = [(level, _mean_w(side, curves, start_ns, end_ns)) for level, start_ns, end_ns in stretches]
    return [(level, watts) for level, watts in seen if watts is not None]


def _declared_w(side: Sequence[Channel], watts: float) -> float:
    """What these meters say that they may be off together, as errors of one kind, in watts (k = 2)."""
    return max(one.gain_u_ratio for one in side) * abs(watts) + sum(one.offset_u for one in side)


def _rise(seen: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """From rest to full work, and how far that may be off (k = 2), in watts."""
    ends = [[watts for level, watts in seen if level == wanted] for wanted in (1.0, 0.0)]
    if min(map(len, ends)) < 2:
        return 0.0, 0.0
    (worked, rested), u_w = ends, 2 * hypot(*(stdev(one) / len(one) ** 0.5 for one in ends))
    return fmean(worked) - fmean(rested), u_w


def _mean_w(side: Sequence[Channel], curves: Mapping[Channel, Curve], start_ns: int, end_ns: int) -> float | None:
    """Mean watts of all of them together; a meter that ticks late is taken up to its last tick."""
    total_w = 0.0
    for channel in side:
        curve = curves.get(channel)
        last_ns = curve.last_at_or_before(end_ns) if curve else None
        if curve is None or last_ns is None or last_ns <= start_ns or curve.t_ns[0] > start_ns:
            return None
        if seconds(last_ns - start_ns) < channel.tick_s:
            return None
        total_w += curve.rate(start_ns, last_ns)
    return total_w
