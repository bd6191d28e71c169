"""What is wrong with a meter's readings themselves: holes, a value that stands, work that shows late. Pure.

An energy can come out plausible from readings that are none: each of these has a verdict code of its own.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from joulebox.accounting.figures import Metered
from joulebox.metering import FINE_TICK_S, LAG_DOUBT
from joulebox.model import Channel, ReadingKind, Sampling, Series
from joulebox.units import nanoseconds, seconds

GAP_READINGS: Final = 10
"""A counter's hole is told when it is as long as this many of the usual distances between readings, and a second."""
GAP_TICKS, GAP_APART = 1.1, 2.5
"""A power's hole is told when a tick is missing: this many ticks, and usual distances, without a reading."""
MOVES_MIN: Final = 5
"""A meter that moved less often says nothing of how often it should."""
CHANCE: Final = 1e-3
"""A value that stands is told when mere chance would keep it so long less often than this."""
FINE_STEPS: Final = 2
"""A power of which a quarter of the moves are smaller than this may stand for as long as the machine draws the same."""
STANDS_READINGS, STANDS_S, STANDS_W = 3, 0.25, 0.01
"""A fine counter that stands over so many readings and so long, though it could show this little power, is not
counting."""
WORK_TICKS: Final = 4
"""Work that lasts so many ticks shows in a power."""
LATE_MIN_S: Final = 0.1
LATE_ALONE_S: Final = 0.5
"""Behind a meter that ticks so seldom it is enough that nothing of the work is seen in its first tick."""
LATE_STEPS: Final = 4
"""Work that is less than this many steps a tick tells nothing of when it was seen."""
EVEN_TICKS_MIN: Final = 8
HASTY, HASTY_RARE = 0.5, 0.05
"""Two values within this share of a tick are told where no more than this share of the ticks are so near."""
SKIPPED, LACKING = 1.5, 0.25
"""A counter that stood for so many ticks lost some of them where more than this share is lacking of what was drawn
before and after."""
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
    apart_s = sorted(seconds(later - earlier) for earlier, later in pairwise(times))
    usual_s = apart_s[len(apart_s) // 4]  # a recorder that was held up for most of the record makes long ones usual
    gap_s = max(seconds(later - earlier) for earlier, later in pairwise(times[low : high + 1]))
    limit_s = max(GAP_READINGS * usual_s, 1.0)
    if channel.sampling is not Sampling.COUNTER:
        limit_s = max(GAP_TICKS * channel.tick_s, GAP_APART * usual_s)
    return f"{gap_s:.1f} s without a reading of {channel.name}" if gap_s > limit_s else None


def stands(one: Metered, series: Series) -> str | None:
    """A value that stands still around the answer for longer than this meter's does by chance. Of an idle machine the
    time that its cores were busy stands by right."""
    channel, start_ns, end_ns = one.channel, *around_ns(one)
    if channel.kind is ReadingKind.BUSY_RATIO:
        return None
    times, values = _per_tick(series)
    first, last = _longest_run(times, values, start_ns, end_ns)
    length, stood_s = last - first, seconds(times[last] - times[first])
    power = channel.kind is ReadingKind.POWER_W
    if channel.tick_s <= FINE_TICK_S and not power:
        told = length >= STANDS_READINGS and stood_s >= STANDS_S and channel.step < STANDS_W * stood_s
    else:
        # How a power moves at rest tells how often chance repeats it; work moves it farther, and a step does not.
        known = [
            n for n in range(1, len(values)) if not (first < n <= last or (power and times[n] > one.window.start_ns))
        ]
        moves = sorted(abs(values[n] - values[n - 1]) for n in known if values[n] != values[n - 1])
        chance = (len(known) - len(moves) + 1) / (len(known) + 2)
        fine = len(moves) >= MOVES_MIN and (not power or moves[len(moves) // 4] >= FINE_STEPS)
        told = fine and len(values) * chance**length < CHANCE
    if told:
        return f"{channel.name} stood still for {stood_s:.1f} s"
    if power and _misses_work(one, series):
        return f"{channel.name} stood still where work began or ended"
    return None


def _misses_work(one: Metered, series: Series) -> bool:
    """Whether a power showed nothing at all of work that lasted for some ticks, or nothing of its beginning or end."""
    window, tick_ns = one.window, nanoseconds(one.channel.tick_s)
    start_ns, end_ns = window.start_ns, window.end_ns
    if end_ns - start_ns < WORK_TICKS * tick_ns:
        return False
    follows_ns = nanoseconds(max(2 * one.channel.tick_s, LATE_ALONE_S) + (1 + LAG_DOUBT) * one.channel.lag_s)
    moved = abs(one.found.active) > one.channel.step * window.duration_s
    at_edge = moved and any(_even(series, t_ns, t_ns + follows_ns) for t_ns in (start_ns, end_ns))
    return at_edge or _even(series, start_ns, end_ns - tick_ns)


def _even(series: Series, start_ns: int, end_ns: int) -> bool:
    """Whether one value stood all that time."""
    low, high = bisect_right(series.t_ns, start_ns) - 1, bisect_left(series.t_ns, end_ns)
    return low >= 0 and high < len(series.t_ns) and len(set(series.raw[low : high + 1])) == 1


def _per_tick(series: Series) -> tuple[list[int], list[int]]:
    """One value a tick: what lies nearer together tells nothing of whether the meter moves."""
    tick_ns, times, values, due_ns = nanoseconds(series.channel.tick_s), [], [], series.t_ns[0]
    for t_ns, raw in zip(series.t_ns, series.raw, strict=True):
        if t_ns >= due_ns:
            times.append(t_ns)
            values.append(raw)
            due_ns = max(due_ns + tick_ns, t_ns + tick_ns // 2)
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


def late(one: Metered, series: Series) -> tuple[str, str] | None:
    """Whether the meter shows the answer later than it was made, as a verdict code and its detail: hardly any of it at
    first, and nearly all of it after. Behind a meter so slow that whatever an engine does before it works is short, the
    beginning is enough; where it still showed the value of before, it stood."""
    tick_s = max(one.channel.tick_s, LATE_MIN_S)
    window, idle_w, tick_ns = one.window, one.found.idle_rate, nanoseconds(tick_s)
    if window.duration_s < 3 * tick_s or one.channel.kind is ReadingKind.BUSY_RATIO:
        return None
    try:
        head_w, work_w, after_w = (
            one.curve.rate(from_ns, from_ns + tick_ns) - idle_w
            for from_ns in (window.start_ns, window.end_ns - tick_ns, window.end_ns)
        )
    except ValueError:
        return None
    mean_w, least_w = one.found.active / window.duration_s, max(1.0, 0.1 * idle_w, LATE_STEPS * _step_w(one.channel))
    if min(work_w, mean_w) <= least_w or head_w > LATE_HEAD * mean_w:
        return None
    if after_w < LATE_TAIL * work_w and tick_s < LATE_ALONE_S:
        return None
    halves = (bisect_right(series.t_ns, window.start_ns + part * tick_ns // 2) - 1 for part in (1, 3))
    if len({series.raw[max(index, 0)] for index in halves}) == 1:
        return "meter_frozen", f"{one.channel.name} stood still when the work began"
    return "meter_late", f"{one.channel.name}, by more than {tick_s:.2g} s"


def _step_w(channel: Channel) -> float:
    """The power that one step means from tick to tick."""
    return channel.step / channel.tick_s if channel.sampling is Sampling.COUNTER and channel.tick_s else channel.step


def skipped(one: Metered) -> str | None:
    """A counter that skipped ticks around the answer and did not make up for them."""
    curve, tick_s, (start_ns, end_ns) = one.curve, one.channel.tick_s, around_ns(one)
    if tick_s <= FINE_TICK_S or one.channel.sampling is not Sampling.COUNTER:
        return None
    low, high = bisect_left(curve.t_ns, start_ns), bisect_right(curve.t_ns, end_ns)
    for at in range(max(low, 1), min(high, len(curve.t_ns) - 2)):
        from_ns, until_ns = curve.t_ns[at : at + 2]
        if (long_s := seconds(until_ns - from_ns)) <= SKIPPED * tick_s:
            continue
        before_w, after_w = (curve.rate(*curve.t_ns[n : n + 2]) for n in (at - 1, at + 1))
        inside = [t_ns for t_ns in (one.window.start_ns, one.window.end_ns) if from_ns < t_ns < until_ns]
        cut_ns = inside[0] if inside else from_ns if after_w < before_w else until_ns
        least_j = before_w * seconds(cut_ns - from_ns) + after_w * seconds(until_ns - cut_ns)
        lacking_j = least_j - curve.between(from_ns, until_ns)
        if len(inside) < 2 and lacking_j > max(LACKING * least_j, LATE_STEPS * one.channel.step):
            return f"{one.channel.name} stood for {long_s:.1f} s and did not count what was drawn meanwhile"
    return None


def hasty(one: Metered, series: Series) -> str | None:
    """A meter that ticks evenly and showed two values at once around the answer: it had been late."""
    channel, tick_s, times = one.channel, one.channel.tick_s, series.t_ns
    moved = [i for i in range(1, len(times)) if series.raw[i] != series.raw[i - 1]]
    if tick_s <= FINE_TICK_S or len(moved) < EVEN_TICKS_MIN:
        return None
    usual_s = median(seconds(later - earlier) for earlier, later in pairwise(times))
    # A tick seen late because readings are missing was not late itself.
    seen = [i for i in moved if seconds(times[i] - times[i - 1]) <= GAP_APART * usual_s]
    waits = [(seconds(times[later] - times[earlier]), times[later]) for earlier, later in pairwise(seen)]
    short = [(wait_s, t_ns) for wait_s, t_ns in waits if wait_s < HASTY * tick_s]
    start_ns, end_ns = around_ns(one)
    told = [wait_s for wait_s, t_ns in short if start_ns <= t_ns <= end_ns]
    if not told or len(short) > max(HASTY_RARE * len(waits), 1):
        return None
    return f"{channel.name} was behind, and caught up within {min(told):.2g} s"
