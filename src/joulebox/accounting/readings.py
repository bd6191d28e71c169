"""What is wrong with a meter's readings themselves: holes, a value that stands, work that shows late. Pure.

An energy can come out plausible from readings that are none: each of these has a verdict code of its own.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from joulebox.accounting.figures import Metered
from joulebox.metering import FINE_TICK_S
from joulebox.model import ReadingKind, Sampling, Series
from joulebox.units import nanoseconds, seconds

GAP_READINGS: Final = 10
"""A counter's hole is told when it is as long as this many of the usual distances between readings, and a second."""
GAP_TICKS, GAP_APART = 1.1, 2.5
"""A power's hole is told when a tick is missing: this many ticks, and usual distances, without a reading."""
MOVES_MIN: Final = 5
"""A meter that moved less often says nothing of how often it should."""
CHANCE: Final = 1e-3
"""A value that stands is told when mere chance would keep it so long less often than this."""
STANDS_READINGS, STANDS_S, STANDS_W = 3, 0.25, 0.01
"""A fine counter that stands over so many readings and so long, though it could show this little power, is not
counting."""
WORK_TICKS: Final = 4
"""Work that lasts so many ticks shows in a power."""
LATE_MIN_S: Final = 0.1
LATE_HEAD, LATE_TAIL = 0.25, 0.75
"""Work shows late when less than this share of it was seen in the answer's first tick, and more than this in the tick
after its end."""


def around_ns(one: Metered) -> tuple[int, int]:
    """From the start of the guard before to the end of the guard after."""
    guard_ns = nanoseconds(one.window.guard_s)
    return one.window.start_ns - guard_ns, one.window.end_ns + guard_ns


def hole(one: Metered, series: Series) -> str | None:
    """The longest hole in the readings around the answer, if something may be lost in it."""
    times, channel = series.t_ns, one.channel
    start_ns, end_ns = around_ns(one)
    low, high = max(bisect_right(times, start_ns) - 1, 0), min(bisect_left(times, end_ns), len(times) - 1)
    if high <= low:
        return None
    usual_s = median(seconds(later - earlier) for earlier, later in pairwise(times))
    gap_s = max(seconds(later - earlier) for earlier, later in pairwise(times[low : high + 1]))
    limit_s = max(GAP_READINGS * usual_s, 1.0)
    if channel.sampling is not Sampling.COUNTER:
        limit_s = max(GAP_TICKS * channel.tick_s, GAP_APART * usual_s)
    return f"{gap_s:.1f} s without a reading of {channel.name}" if gap_s > limit_s else None


def stands(one: Metered, series: Series) -> str | None:
    """A value that stands still around the answer for longer than this meter's does by chance."""
    channel, start_ns, end_ns = one.channel, *around_ns(one)
    times, values = _per_tick(series)
    first, last = _longest_run(times, values, start_ns, end_ns)
    length, stood_s = last - first, seconds(times[last] - times[first])
    if channel.tick_s <= FINE_TICK_S and channel.kind is ReadingKind.ENERGY_J:
        told = length >= STANDS_READINGS and stood_s >= STANDS_S and channel.step < STANDS_W * stood_s
    elif channel.kind is ReadingKind.POWER_W and _all_along(one, times[first], times[last]):
        told = True
    else:
        moves = sum(later != earlier for earlier, later in pairwise(values))
        others = len(values) - 1 - length
        chance = (others - moves + 1) / (others + 2)
        told = length >= 2 and moves >= MOVES_MIN and len(values) * chance**length < CHANCE
    return f"{channel.name} stood still for {stood_s:.1f} s" if told else None


def _all_along(one: Metered, first_ns: int, last_ns: int) -> bool:
    """Whether a power showed nothing of work that lasted for some ticks."""
    window, tick_ns = one.window, nanoseconds(one.channel.tick_s)
    long = window.end_ns - window.start_ns >= WORK_TICKS * tick_ns
    return long and first_ns <= window.start_ns + tick_ns and last_ns >= window.end_ns - tick_ns


def _per_tick(series: Series) -> tuple[list[int], list[int]]:
    """One value a tick: what lies nearer together tells nothing of whether the meter moves."""
    tick_ns, times, values, due_ns = nanoseconds(series.channel.tick_s), [], [], series.t_ns[0]
    for t_ns, raw in zip(series.t_ns, series.raw, strict=True):
        if t_ns >= due_ns:
            times.append(t_ns)
            values.append(raw)
            due_ns = max(due_ns + tick_ns, t_ns - tick_ns // 2)
    return times, values


def _longest_run(times: Sequence[int], values: Sequence[int], start_ns: int, end_ns: int) -> tuple[int, int]:
    """First and last index of the longest run of equal values that touches a stretch of time."""
    best, first = (0, 0), 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[first]:
            last = index - 1
            if last - first > best[1] - best[0] and times[last] >= start_ns and times[first] <= end_ns:
                best = first, last
            first = index
    return best


def late(one: Metered) -> str | None:
    """Whether the meter shows the answer later than it was made: hardly any of it at first, nearly all of it after."""
    tick_s = max(one.channel.tick_s, LATE_MIN_S)
    window, idle_w, tick_ns = one.window, one.found.idle_rate, nanoseconds(max(one.channel.tick_s, LATE_MIN_S))
    if window.duration_s < 3 * tick_s or one.channel.kind is ReadingKind.BUSY_RATIO:
        return None
    try:
        head_w, work_w, after_w = (
            one.curve.rate(from_ns, from_ns + tick_ns) - idle_w
            for from_ns in (window.start_ns, window.end_ns - tick_ns, window.end_ns)
        )
    except ValueError:
        return None
    mean_w = one.found.active / window.duration_s
    if min(work_w, mean_w) <= max(1.0, 0.1 * idle_w) or head_w > LATE_HEAD * mean_w or after_w < LATE_TAIL * work_w:
        return None
    return f"{one.channel.name}, by more than {tick_s:.2g} s"
