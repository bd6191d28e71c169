"""Joules from a curve: the answer, what it added above idle, and what came after. Pure.

The estimator stands on readings, never on the prompt's edges alone. `k1` is the last reading at or before `t_s`, `k2`
the first one that surely holds everything up to `t_e` (tick and lag later). What lies between the edges and these
readings is taken out at the power that the guards themselves measured: idle before, idle and tail after.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import exp, expm1, sqrt
from typing import Final

from joulebox.metering import AFTER_S, Curve
from joulebox.units import nanoseconds, seconds

TAIL_S: Final = 0.8
"""How fast clocks and voltages are taken to come down after the work at most; they may also stay up. Half of what this
means is taken off, and the interval holds all of it."""

LINGER_TICKS: Final = 2
"""Behind a shorter answer a slow meter's first tick may hold most of it."""
LINGERS: Final = 0.75
"""Work goes on in a tick that shows more than this share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What to measure: the answer from `start_ns` to `end_ns`, between quiet guards of `guard_s` on either side, of
    which the one before does not reach back beyond `quiet_from_ns`, when other work ended."""

    start_ns: int
    end_ns: int
    guard_s: float
    tick_s: float
    lag_s: float
    quiet_from_ns: int

    @property
    def duration_s(self) -> float:
        """Seconds from request to last token."""
        return seconds(self.end_ns - self.start_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Energy of one curve over one window, in the unit of the curve.

    `answer` is everything from start to end; `active` what lies above `idle_rate`; `tail` what lies above it
    afterwards, up to `tail_s` after the end. `idle_rate` was seen over `quiet_s`, less `glow_rate`: half of what other
    work's tail, if it dies away, still has in it. `before_s` and `after_s` are the
    stretches taken out at `idle_rate` and `after_rate`; `fading` is how much of the rise seen after the answer is
    expected to have been missed (a share), as a tail that dies away was higher before: nothing, or twice as much. At
    the answer's end, or where the end may be on the meter's clock, it was `steep` times as high as it was seen.
    `late_s` is how old a reading is on average.
    """

    answer: float
    active: float
    tail: float
    idle_rate: float
    after_rate: float
    glow_rate: float
    quiet_s: float
    before_s: float
    after_s: float
    tail_s: float
    fading: float
    steep: float
    late_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """An answer's two phases. `cut_rate` is the rate at the cut, `gap_s` the effective stretch around it over which the
    machine's power was taken to be even."""

    prefill: float
    decode: float
    cut_rate: float
    gap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """How the machine worked in prefill and decode: how long they took, and of that how long in a phase that no reading
    fell into; and how much its rate differed from one reading to the next within a phase (`None`: not told), with so
    many degrees of freedom."""

    lasted_s: tuple[float, float]
    unseen_s: tuple[float, float]
    uneven_rate: float | None
    freedom: int

    @property
    def duration_s(self) -> float:
        """Both phases."""
        return sum(self.lasted_s)


def estimate(curve: Curve, window: Window) -> Estimate | None:
    """The energy in the window, or `None` where the guards hold too few readings to know it."""
    slack_ns, margin_ns = nanoseconds(curve.slack_s), nanoseconds(curve.margin_s)
    guard_ns = nanoseconds(window.guard_s)
    before = curve.last_at_or_before(window.start_ns - margin_ns)
    after = curve.first_at_or_after(window.end_ns + slack_ns + margin_ns)
    if before is None or after is None:
        return None
    quiet = curve.first_at_or_after(max(before - guard_ns, window.quiet_from_ns))
    if quiet is None or quiet >= before:
        quiet = curve.first_at_or_after(before - guard_ns)
    last = curve.last_at_or_before(window.end_ns + nanoseconds(window.tick_s + window.lag_s) + guard_ns)
    if quiet is None or quiet >= before or last is None or last <= after:
        return None
    follow = curve.first_at_or_after(after + nanoseconds(max(AFTER_S, window.tick_s))) or last
    quiet_s = seconds(before - quiet)
    glow_rate = max(falls(curve, before, quiet_s), 0.0) * glowing(quiet_s, rested_s(curve, window, before))
    idle_rate = curve.rate(quiet, before) - glow_rate
    after_rate = curve.rate(after, follow)
    before_s = seconds(window.start_ns - before)
    after_s = seconds(after - window.end_ns)
    late_s = window.tick_s / 2 + window.lag_s if curve.slack_s else 0.0
    fading = _faded(after_s, seconds(follow - after)) / 2
    # A fast counter shows at either end what was drawn until half a tick ago; a tail fades.
    answer = curve.between(before, after) - idle_rate * before_s - after_rate * after_s
    answer += (after_rate - idle_rate) * (late_s - fading * after_s)
    tail_s = seconds(last - window.end_ns)
    tail = curve.between(before, last) - idle_rate * before_s - answer - idle_rate * tail_s
    return Estimate(
        answer=answer,
        active=answer - idle_rate * window.duration_s,
        tail=tail,
        idle_rate=idle_rate,
        after_rate=after_rate,
        glow_rate=glow_rate,
        quiet_s=quiet_s,
        before_s=before_s,
        after_s=after_s,
        tail_s=tail_s,
        fading=fading,
        steep=_steep(after_s, seconds(follow - after), curve.margin_s / sqrt(3)),
        late_s=late_s,
    )


def falls(curve: Curve, end_ns: int, quiet_s: float) -> float:
    """By how much the first half of the guard that ends at `end_ns` lies above its second."""
    half_ns = nanoseconds(quiet_s / 2)
    start_ns = max(end_ns - 2 * half_ns, curve.t_ns[0])
    if end_ns - half_ns <= start_ns or end_ns > curve.t_ns[-1]:
        return 0.0
    return curve.rate(start_ns, end_ns - half_ns) - curve.rate(end_ns - half_ns, end_ns)


def glowing(quiet_s: float, rested_s: float) -> float:
    """Half of what a tail that dies away with `TAIL_S` has in the guard, as a share of how much the guard falls; less,
    the longer the machine had rested before."""
    left = exp(-quiet_s / 2 / TAIL_S)
    return (1 + left) / (1 - left) / 4 * exp(-max(rested_s - quiet_s, 0.0) / TAIL_S)


def rested_s(curve: Curve, window: Window, before_ns: int) -> float:
    """How long the machine was seen to rest until `before_ns`."""
    first_ns = curve.first_at_or_after(window.quiet_from_ns)
    return 0.0 if first_ns is None else max(seconds(before_ns - first_ns), 0.0)


def lingering(curve: Curve, window: Window, found: Estimate) -> float:
    """What a slow meter may lack of the answer because it showed things late from some moment on, in the unit of the
    curve: where it shows the work for a tick and more after its end, and then that it fell. Work that truly went on, or
    clocks that stayed up, look the same.
    """
    tick_ns, rise_rate = nanoseconds(window.tick_s), found.active / window.duration_s
    if not tick_ns or curve.slack_s or window.duration_s < LINGER_TICKS * window.tick_s or rise_rate <= 0:
        return 0.0
    try:
        work_rate = curve.rate(window.end_ns - tick_ns, window.end_ns)
    except ValueError:
        return 0.0
    if work_rate <= found.idle_rate:
        return 0.0
    least_rate = found.idle_rate + LINGERS * min(rise_rate, work_rate - found.idle_rate)
    last_ns = curve.t_ns[-1]
    begins_ns = range(window.end_ns, last_ns - tick_ns // 2, tick_ns)
    rates = (curve.rate(t_ns, min(t_ns + tick_ns, last_ns)) for t_ns in begins_ns)
    ticks = next((n for n, rate in enumerate(rates) if rate < least_rate), 0)
    return ticks * window.tick_s * work_rate


def _faded(after_s: float, follow_s: float) -> float:
    """By which share a tail that dies away with `TAIL_S` is higher over `after_s` than over the `follow_s` after it."""
    if after_s <= 0:
        return 0.0
    return _steep(after_s, follow_s) * (1 - exp(-after_s / TAIL_S)) * TAIL_S / after_s - 1


def _steep(after_s: float, follow_s: float, earlier_s: float = 0.0) -> float:
    """How many times as high such a tail is at its beginning, and over `earlier_s` before, as it is over `follow_s`,
    `after_s` later."""
    earlier = expm1(earlier_s / TAIL_S) * TAIL_S / earlier_s if earlier_s else 1.0
    return follow_s / TAIL_S / (1 - exp(-follow_s / TAIL_S)) * exp(after_s / TAIL_S) * earlier


def split(curve: Curve, window: Window, found: Estimate, first_ns: int, shift_s: float = 0.0) -> Split | None:
    """The answer's energy before and after its first token, or `None` where no reading tells them apart.

    Both ends are those of the answer, between guards. At the cut the machine works: between the two readings around it
    each phase is taken to draw what it draws in the rest of its time. `shift_s` asks what it would be if the meter's
    ticks were so much later than they are taken to be.
    """
    shift_ns = nanoseconds(shift_s)
    before = curve.last_at_or_before(window.start_ns - nanoseconds(curve.margin_s))
    low, high = curve.last_at_or_before(first_ns - shift_ns), curve.first_at_or_after(first_ns - shift_ns)
    if before is None or low is None or high is None:
        return None
    begun = curve.at(before) + found.idle_rate * (found.before_s + found.late_s - shift_s)
    whole = found.answer + (found.idle_rate - found.after_rate) * shift_s
    least_s = max(window.tick_s / 2, 2 * curve.margin_s)
    low_s, high_s = seconds(low + shift_ns - window.start_ns), seconds(window.end_ns - high - shift_ns)
    gap_s, into_s = seconds(high - low), seconds(first_ns - low - shift_ns)
    first_rate = (curve.at(low) - begun) / low_s if low_s > least_s else None
    then_rate = (begun + whole - curve.at(high)) / high_s if high_s > least_s else None
    if first_rate is None and then_rate is None:
        return None
    cut, stretch_s = _cut(curve.at(low), curve.at(high), first_rate, then_rate, into_s, gap_s)
    cut_rate = first_rate if first_rate is not None else then_rate or 0.0
    prefill = cut + cut_rate * found.late_s - begun
    return Split(prefill=prefill, decode=whole - prefill, cut_rate=cut_rate, gap_s=stretch_s)


def _cut(
    low: float, high: float, first_rate: float | None, then_rate: float | None, into_s: float, gap_s: float
) -> tuple[float, float]:
    """The total `into_s` after one reading and before the next, `gap_s` apart, and over how long power had to be
    guessed."""
    if not gap_s:
        return low, 0.0
    if first_rate is None:
        return high - (then_rate or 0.0) * (gap_s - into_s), gap_s - into_s
    if then_rate is None:
        return low + first_rate * into_s, into_s
    share = into_s / gap_s
    rest = high - low - first_rate * into_s - then_rate * (gap_s - into_s)
    return low + first_rate * into_s + rest * share, gap_s * share * (1 - share)


def works(curve: Curve, window: Window, first_ns: int | None) -> Works:
    """How evenly the machine worked in either phase, as far as the readings tell."""
    cut_ns = window.end_ns if first_ns is None else first_ns
    spans = ((window.start_ns, cut_ns), (cut_ns, window.end_ns))
    squares, steps, freedom = 0.0, 0, 0
    unseen_s = []
    for start_ns, end_ns in spans:
        times = curve.times(start_ns, end_ns - 1)
        rates = [curve.rate(a, b) for a, b in pairwise(times)]
        squares += sum((later - earlier) ** 2 for earlier, later in pairwise(rates)) / 2
        steps += max(len(rates) - 1, 0)
        inside = curve.times(start_ns + 1, end_ns - 2)
        freedom += max(len(inside) - 1, 0)
        unseen_s.append(0.0 if inside else seconds(end_ns - start_ns))
    return Works(
        lasted_s=(seconds(cut_ns - window.start_ns), seconds(window.end_ns - cut_ns)),
        unseen_s=(unseen_s[0], unseen_s[1]),
        uneven_rate=sqrt(squares / steps) if steps and freedom else None,
        freedom=freedom,
    )
