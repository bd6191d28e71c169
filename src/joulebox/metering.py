"""Readings to a curve of joules: counters unwrapped, powers added up, ticks, resets and gaps found. Pure; node and
server may use it.

A meter slower than the readings shows each value until its next tick. Of such a meter only the ticks count: a point of
its curve is the moment of a tick, less its lag, so that the energy between two points is exact in time. The ticks of a
steady meter are found far better than the readings are apart, by a line through the moments they were first seen.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, sqrt
from operator import sub
from statistics import linear_regression, median
from typing import Final

from joulebox.model import Channel, Counted, IdleSpread, ReadingKind, Sampling, Series
from joulebox.units import NS_PER_S, nanoseconds, seconds

PLAUSIBLE_W: Final = 20_000.0
"""A counter that would mean more power than this between two readings was reset, not wrapped."""

FINE_TICK_S: Final = 0.01
"""A counter that ticks at least so often is taken as it is read."""
LAG_DOUBT: Final = 0.5
"""A declared or calibrated lag is trusted to within this share of itself."""
READ_ONCE: Final = 0.8
"""Readings further apart than this share of a tick show each tick once."""
FIT_TICKS_MIN: Final = 8
FIT_SPREAD: Final = 1.5
"""A fitted line is believed while the moments lie within this many distances between readings around it."""
SLOPES_TRIED: Final = 12
FIT_LATE_RATIO: Final = 0.2
"""So many of the ticks may be seen later, where readings are missing; the line goes through the others."""
WRAP_TIMES, WRAP_FROM_W = 4.0, 1_000.0
"""A counter that would have to mean more than this many times the power seen otherwise, and more than so many watts,
was reset, not wrapped."""
REPEATS_RARE: Final = 0.1
"""Where fewer of a power's ticks than this show the value before again, such a tick may have been lost."""
STALE_STEPS: Final = 3
"""A counter that moves by so many steps from reading to reading and then shows the same again was not read anew."""

LACKING_TICKS: Final = 4.0
"""So many ticks and lags may lack at the ends of a stretch that is counted from its readings alone."""
GUARD_MIN_S: Final = 1.0
AFTER_S: Final = 0.1
"""Over so long, or one tick, the power after the answer is taken."""
WINDOWS_MIN: Final = 8
"""Of fewer stretches than this a spread is not well enough known to be used where shorter ones can be scaled up."""

POWER_KINDS: Final = (ReadingKind.ENERGY_J, ReadingKind.POWER_W)
"""Readings that tell what was drawn."""
WHOLE_SCOPES: Final = ("wall", "platform")
"""Scopes that hold the whole machine, best first; where there is one, its parts are only shown beside it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A running total against time: `total[i]` in the unit of the channel (J, or core-seconds) at `t_ns[i]`, 0 at
    first.

    `resets_ns` are the times of readings before which the counter started anew: nothing is known of the stretch
    before. A point at t holds everything up to t, or, where the ticks are too fast to tell, up to `slack_s` earlier;
    `blur_s` is how far its time may be off (full width), `margin_s` how far all of them may be, since a lag is trusted
    only so far. Points on a line are off together, and `stretch` is how far off, as a share, its slope is (k = 1);
    `None`: each is off on its own.
    """

    t_ns: tuple[int, ...]
    total: tuple[float, ...]
    resets_ns: tuple[int, ...] = ()
    slack_s: float = 0.0
    blur_s: float = 0.0
    margin_s: float = 0.0
    stretch: float | None = None
    doubts: tuple[tuple[int, float], ...] = ()
    """Ticks that may have been lost, and how far off, either way, what was added in each may be."""

    def doubt(self, start_ns: int, end_ns: int) -> float:
        """How far off, either way, lost ticks may make what was added between two moments."""
        return sum(most for t_ns, most in self.doubts if start_ns <= t_ns <= end_ns)

    def at(self, t_ns: int) -> float:
        """The total at `t_ns`, straight between the readings around it.

        Raises `ValueError` outside the readings: nothing is known there.
        """
        times, total = self.t_ns, self.total  # asked thousands of times for each receipt
        if not times or not times[0] <= t_ns <= times[-1]:
            raise ValueError("no reading on both sides of that moment")
        right = bisect_left(times, t_ns)
        after = times[right]
        if after == t_ns:
            return total[right]
        before, low = times[right - 1], total[right - 1]
        return low + (t_ns - before) / (after - before) * (total[right] - low)

    def between(self, start_ns: int, end_ns: int) -> float:
        """What was added from `start_ns` to `end_ns`."""
        return self.at(end_ns) - self.at(start_ns)

    def rate(self, start_ns: int, end_ns: int) -> float:
        """Mean rate per second between two moments (W, or busy cores)."""
        return self.between(start_ns, end_ns) / seconds(end_ns - start_ns)

    def last_at_or_before(self, t_ns: int) -> int | None:
        """The time of the last reading not after `t_ns`."""
        index = bisect_right(self.t_ns, t_ns) - 1
        return self.t_ns[index] if index >= 0 else None

    def first_at_or_after(self, t_ns: int) -> int | None:
        """The time of the first reading not before `t_ns`."""
        index = bisect_left(self.t_ns, t_ns)
        return self.t_ns[index] if index < len(self.t_ns) else None

    def times(self, start_ns: int, end_ns: int) -> tuple[int, ...]:
        """The times of the readings from one moment to another, both included."""
        return self.t_ns[bisect_left(self.t_ns, start_ns) : bisect_right(self.t_ns, end_ns)]

    def gap_s(self, start_ns: int, end_ns: int) -> float:
        """The longest stretch without a reading that touches `start_ns`..`end_ns`, in seconds."""
        low = max(bisect_right(self.t_ns, start_ns) - 1, 0)
        high = min(bisect_left(self.t_ns, end_ns), len(self.t_ns) - 1)
        stretches = [seconds(self.t_ns[i + 1] - self.t_ns[i]) for i in range(low, high)]
        return max(stretches, default=0.0)


def curve_of(series: Series, changes_ns: Sequence[int] = ()) -> Curve:
    """The running total of a channel: joules of a counter or a power, core-seconds of the busy counter.

    `changes_ns`: moments at which the machine is known to have begun something else, which powers that are only looked
    at are stretched to. Raises `ValueError` for a channel that is neither (a temperature).
    """
    channel = series.channel
    if channel.sampling is Sampling.COUNTER:
        curve = _unwrapped(series)
        if channel.tick_s <= FINE_TICK_S:
            return curve
        moved = [i for i in range(1, len(series.raw)) if series.raw[i] != series.raw[i - 1]]
        ticks = _ticks([series.t_ns[i] for i in moved], channel, _apart_s(series.t_ns))
        return Curve(
            ticks.t_ns,
            tuple(curve.total[i] for i in moved),
            curve.resets_ns,
            blur_s=ticks.blur_s,
            margin_s=ticks.margin_s,
            stretch=ticks.stretch,
        )
    if channel.kind is not ReadingKind.POWER_W:
        raise ValueError(f"channel {channel.name} is neither counter nor power")
    return _summed(series, changes_ns)


def _unwrapped(series: Series) -> Curve:
    """A counter's total, wraps undone.

    A counter that goes back is taken to have wrapped once (`wrap_raw` steps after zero) if the power this means is
    plausible, else to have been reset, as is one that jumps ahead by more than any machine draws. Two wraps between two
    readings cannot be told from one: the reading rate must be faster than the wrap. What a fast counter of energy shows
    again, though it has ticked since, is not a reading; the time that idle cores were busy stands by right.
    """
    channel = series.channel
    waits_s = [seconds(later - earlier) for earlier, later in pairwise(series.t_ns)]
    steps_raw = [later - earlier for earlier, later in pairwise(series.raw)]
    most_w = _wrap_most_w(channel, steps_raw, waits_s)
    draws = channel.kind is ReadingKind.ENERGY_J and channel.tick_s <= FINE_TICK_S
    moves = draws and bool(steps_raw) and median(steps_raw) >= STALE_STEPS
    total_raw = 0
    times, totals, resets = list(series.t_ns[:1]), [0.0] * len(series.t_ns[:1]), []
    still_s = channel.tick_s
    for t_ns, step_raw, wait_s in zip(series.t_ns[1:], steps_raw, waits_s, strict=True):
        still_s += wait_s
        if step_raw == 0:
            if moves and wait_s > 2 * (channel.tick_s + channel.lag_s):
                continue
        else:
            wrap_raw = channel.wrap_raw if step_raw < 0 else None
            added_raw = step_raw + (wrap_raw or 0)
            most_j = max((PLAUSIBLE_W if wrap_raw is None else most_w) * still_s, 2 * channel.step)
            if 0 <= added_raw * channel.step <= most_j:
                total_raw += added_raw
            else:
                resets.append(t_ns)
            still_s = channel.tick_s
        times.append(t_ns)
        totals.append(total_raw * channel.step)
    return Curve(tuple(times), tuple(totals), tuple(resets), slack_s=channel.tick_s + channel.lag_s)


def _wrap_most_w(channel: Channel, steps_raw: Sequence[int], waits_s: Sequence[float]) -> float:
    """The most power that a counter which goes back may mean, if it is to have wrapped."""
    if channel.wrap_raw is None:
        return PLAUSIBLE_W
    seen = (step * channel.step / wait_s for step, wait_s in zip(steps_raw, waits_s, strict=True) if step > 0)
    peak_w = max((watts for watts in seen if watts <= PLAUSIBLE_W), default=PLAUSIBLE_W)
    return min(PLAUSIBLE_W, max(WRAP_TIMES * peak_w, WRAP_FROM_W))


def _summed(series: Series, changes_ns: Sequence[int]) -> Curve:
    """Joules of a power: each mean counts for the tick before it, each snapshot for half a tick on either side, or up
    to a moment at which the machine is known to have changed."""
    channel = series.channel
    moved = [i for i in range(1, len(series.raw)) if series.raw[i] != series.raw[i - 1]]
    ticks = _ticks([series.t_ns[i] for i in moved], channel, _apart_s(series.t_ns))
    if not moved:
        return Curve((), ())
    tick_ns = nanoseconds(ticks.every_s)
    shown = [max(1, round((later - earlier) / tick_ns)) for earlier, later in pairwise(ticks.t_ns)]
    shown.append(1 + (series.t_ns[-1] - series.t_ns[moved[-1]]) // tick_ns)
    rare = sum(shown) - len(shown) <= REPEATS_RARE * sum(shown)
    # What was shown before the first change had been shown since the first reading, or the last hole between readings.
    first = moved[0]
    while first and series.t_ns[first] - series.t_ns[first - 1] <= 2 * tick_ns:
        first -= 1
    still = max(0, (ticks.t_ns[0] - series.t_ns[first]) // tick_ns)
    times = [ticks.t_ns[0] - turn * tick_ns for turn in range(still, 0, -1)]
    watts = [series.raw[0] * channel.step] * still
    doubts = []
    for place, (index, start_ns, turns) in enumerate(zip(moved, ticks.t_ns, shown, strict=True)):
        shown_w = series.raw[index] * channel.step
        next_w = series.raw[moved[min(place + 1, len(moved) - 1)]] * channel.step
        times += [start_ns + turn * tick_ns for turn in range(turns)]
        watts.append(shown_w)
        # A value shown again where that is rare: it may be so by chance, or the tick between was lost, which then lay
        # anywhere from this to the next.
        watts += [shown_w] * (turns - 1)
        lost_j = abs(next_w - shown_w) * ticks.every_s if rare else 0.0
        doubts += [(start_ns + turn * tick_ns, lost_j) for turn in range(1, turns) if lost_j]
    if channel.sampling is Sampling.SNAPSHOT:
        changes = sorted(set(changes_ns))
        times = _sided(times, watts, changes, nanoseconds(ticks.margin_s + ticks.blur_s))
        times, watts = _stretched(times, watts, changes)
    totals = [0.0]
    for (before_w, after_w), (start_ns, end_ns) in zip(pairwise(watts), pairwise(times), strict=True):
        mean_w = after_w if channel.sampling is Sampling.MEAN else (before_w + after_w) / 2
        totals.append(totals[-1] + mean_w * seconds(end_ns - start_ns))
    return Curve(
        tuple(times),
        tuple(totals),
        blur_s=ticks.blur_s,
        margin_s=ticks.margin_s,
        stretch=ticks.stretch,
        doubts=tuple(doubts),
    )


def _sided(times: Sequence[int], watts: Sequence[float], changes_ns: Sequence[int], doubt_ns: int) -> list[int]:
    """The moments of looks, of which one that may have been before or after a change, since moments are only known to
    within `doubt_ns`, is put where what it saw belongs: with the look before it, or with the one after. Of several that
    may have been on either side nobody knows: they stay."""
    placed = list(times)
    for change_ns in changes_ns:
        near = bisect_left(placed, change_ns - doubt_ns)
        alone = 0 < near < len(placed) - 1 and placed[near] <= change_ns + doubt_ns < placed[near + 1]
        if alone:
            back_w, on_w = abs(watts[near] - watts[near - 1]), abs(watts[near + 1] - watts[near])
            placed[near] = min(placed[near], change_ns - 2) if back_w < on_w else max(placed[near], change_ns + 1)
    return placed


def _stretched(
    times: Sequence[int], watts: Sequence[float], changes_ns: Sequence[int]
) -> tuple[list[int], list[float]]:
    """Looks at a power with what was seen last before, and first after, each change on either side of it; what came
    and went between two looks is taken to be what came after it."""
    seen: list[tuple[int, float]] = []
    for index, (t_ns, watt) in enumerate(zip(times, watts, strict=True)):
        inside = [one for one in changes_ns if index and times[index - 1] < one - 1 and one < t_ns]
        if inside:
            seen += [(inside[0] - 1, watts[index - 1]), (inside[0], watt)]
        seen.append((t_ns, watt))
    return [t_ns for t_ns, _ in seen], [watt for _, watt in seen]


@dataclass(frozen=True, slots=True)
class _Ticks:
    """When a meter ticked (its lag taken off), how far apart, and how far off these times may be."""

    t_ns: tuple[int, ...]
    every_s: float
    blur_s: float
    margin_s: float
    stretch: float | None = None


def _ticks(seen_ns: Sequence[int], channel: Channel, apart_s: float) -> _Ticks:
    """The ticks behind the moments a new value was first seen, each up to `apart_s` too late.

    A steady meter's ticks lie on a line; where they do not, a tick was half a reading's distance before it was seen.
    """
    lag_ns, margin_s = nanoseconds(channel.lag_s), LAG_DOUBT * channel.lag_s
    plain = _Ticks(
        tuple(t_ns - lag_ns - nanoseconds(apart_s / 2) for t_ns in seen_ns),
        channel.tick_s or apart_s,
        apart_s,
        # Read once a tick, as it is sent: how late is not known, and what may hold work is not taken for idle.
        margin_s + (apart_s / 2 if apart_s > READ_ONCE * channel.tick_s else 0.0),
    )
    if len(seen_ns) < FIT_TICKS_MIN or apart_s > READ_ONCE * channel.tick_s:
        return plain
    late_s = [seconds(t_ns - seen_ns[0]) for t_ns in seen_ns]
    turns = _turns(late_s, channel.tick_s)
    line = linear_regression(turns, late_s)
    off_s = [t_s - line.intercept - line.slope * turn for t_s, turn in zip(late_s, turns, strict=True)]
    latest_s = min(off_s) + FIT_SPREAD * apart_s
    kept = [index for index, one_s in enumerate(off_s) if one_s <= latest_s]
    if len(seen_ns) > len(kept) >= max((1 - FIT_LATE_RATIO) * len(seen_ns), FIT_TICKS_MIN):
        line = linear_regression([turns[index] for index in kept], [late_s[index] for index in kept])
        off_s = [late_s[index] - line.intercept - line.slope * turns[index] for index in kept]
    if max(off_s) - min(off_s) > FIT_SPREAD * apart_s or abs(line.slope / channel.tick_s - 1) > 0.2:
        return plain
    seen = [(turns[index], late_s[index]) for index in kept]
    every_s, every_u_s = _slope(seen, max(apart_s, max(off_s) - min(off_s) + apart_s / len(seen)), line.slope)
    off_s = [t_s - every_s * turn for turn, t_s in seen]
    # What of that range was not met leaves it open by so much: readings in step with the ticks are always equally late,
    # and nobody knows by how much.
    unmet_s = max(apart_s - (max(off_s) - min(off_s)), 0.0)
    base_s = min(off_s) - unmet_s / 2
    times = tuple(seen_ns[0] + nanoseconds(base_s + every_s * turn) - lag_ns for turn in turns)
    return _Ticks(times, every_s, 2 * apart_s / len(seen), margin_s + unmet_s / 2, every_u_s / every_s)


def _slope(points: Sequence[tuple[int, float]], room: float, slope: float) -> tuple[float, float]:
    """The slope of the line that all points lie above by no more than `room`, if one of `slope` does, and how far off
    it may be (k = 1). All such lines are equally likely: a slope is as likely as there is room for its line."""
    least, most = (_extreme_slope(points, room, slope, way) for way in (-1, 1))
    tried = [least + (most - least) * (place + 0.5) / SLOPES_TRIED for place in range(SLOPES_TRIED)]
    rooms = []
    for one in tried:
        offs = [y - one * x for x, y in points]
        rooms.append(max(room - max(offs) + min(offs), 0.0))
    mean = sum(one * left for one, left in zip(tried, rooms, strict=True)) / sum(rooms)
    return mean, sqrt(sum((one - mean) ** 2 * left for one, left in zip(tried, rooms, strict=True)) / sum(rooms))


def _extreme_slope(points: Sequence[tuple[int, float]], room: float, slope: float, way: int) -> float:
    """The least (`way` -1) or greatest (1) slope of a line that all points lie above by no more than `room`, if one of
    `slope` is: the spread around it grows ever faster with the slope, so that steps from outside never go too far."""
    slope += way * room  # outside: there are more than two turns from the first point to the last
    for _ in points:
        offs = [y - slope * x for x, y in points]
        if max(offs) - min(offs) <= room * (1 + 1e-9):
            break
        high, low = (points[offs.index(end)] for end in (max(offs), min(offs)))
        slope = (room - high[1] + low[1]) / (low[0] - high[0])
    return slope


def _turns(late_s: Sequence[float], tick_s: float) -> list[int]:
    """Which tick, counted from the first, was seen at each moment. A tick is seen too late, never too early: where
    readings are missing, much too late."""
    regular = [later - earlier for earlier, later in pairwise(late_s) if 0.5 < (later - earlier) / tick_s < 1.5]
    every_s = sum(regular) / len(regular) if regular else tick_s
    turns, at_s = [0], late_s[0]
    for t_s in late_s[1:]:
        turn = floor((t_s - at_s) / every_s + 0.25)
        if turn < 1 and len(turns) > 1 and turns[-1] - turns[-2] > 1:  # the one before was later than it seemed
            turns[-1], at_s, turn = turns[-1] - 1, at_s - every_s, turn + 1
        turn = max(1, turn)
        expected_s = at_s + turn * every_s
        at_s = min(t_s, expected_s + 0.1 * max(t_s - expected_s, 0.0))
        turns.append(turns[-1] + turn)
    return turns


def _apart_s(t_ns: Sequence[int]) -> float:
    """How far readings are apart, usually."""
    apart_ns = sorted(map(sub, t_ns[1:], t_ns))
    middle = apart_ns[(len(apart_ns) - 1) // 2 : len(apart_ns) // 2 + 1]
    return median(map(seconds, middle)) if middle else 0.0


def counted(series: Series, start_ns: int, end_ns: int) -> Counted | None:
    """What a channel counted from `start_ns` to `end_ns`; `None` where it does not tell. The tick or two that may lack
    at the ends are taken at the mean of the rest, and are uncertain as a whole."""
    channel, curve = series.channel, curve_of(series)
    if len(curve.t_ns) < 2 or any(start_ns <= t_ns <= end_ns for t_ns in curve.resets_ns):
        return None
    first_ns, last_ns = max(start_ns, curve.t_ns[0]), min(end_ns, curve.t_ns[-1])
    lacking_s = seconds(first_ns - start_ns) + seconds(end_ns - last_ns)
    if last_ns <= first_ns or lacking_s > LACKING_TICKS * (channel.tick_s + channel.lag_s) + 2 * _apart_s(series.t_ns):
        return None
    rate = curve.rate(first_ns, last_ns)
    edge_s = lacking_s / sqrt(3) + (curve.slack_s + curve.blur_s) / sqrt(6) + curve.margin_s / sqrt(3)
    edge = abs(rate) * edge_s + curve.doubt(start_ns, end_ns) / sqrt(3)
    if channel.sampling is Sampling.SNAPSHOT and channel.tick_s:
        seen = [raw for t_ns, raw in zip(series.t_ns, series.raw, strict=True) if start_ns <= t_ns <= end_ns]
        looks = max(seconds(end_ns - start_ns) / channel.tick_s, 1.0)
        edge += channel.tick_s * (max(seen, default=0) - min(seen, default=0)) * channel.step * sqrt(looks / 12)
    return Counted(channel=channel, amount=curve.between(first_ns, last_ns) + rate * lacking_s, edge=edge)


def value_at(series: Series, t_ns: int) -> float | None:
    """The reading nearest to `t_ns`, in the unit of the channel; `None` where there is none within 5 s."""
    right = bisect_left(series.t_ns, t_ns)
    near = [i for i in (right - 1, right) if 0 <= i < len(series.t_ns)]
    if not near:
        return None
    index = min(near, key=lambda i: abs(series.t_ns[i] - t_ns))
    if abs(series.t_ns[index] - t_ns) > 5 * NS_PER_S:
        return None
    return series.raw[index] * series.channel.step


def guard_s(channel: Channel) -> float:
    """How long the quiet stretches on either side of an answer are for this meter."""
    return max(2 * channel.tick_s + channel.lag_s, GUARD_MIN_S)


def follow_s(channel: Channel) -> float:
    """Over how long the power after an answer is taken."""
    return max(AFTER_S, channel.tick_s)


def idle_spread(
    curve: Curve, channel: Channel, quiet_s: float, length_s: float, start_ns: int, end_ns: int
) -> IdleSpread | None:
    """How well `quiet_s` of idling tell the `length_s` after them, tried all along the idle record from `start_ns` to
    `end_ns`: sham windows, in which the true energy above idle is zero.

    Where the record holds fewer than `WINDOWS_MIN` independent windows of that length the spread is of shorter ones.
    Either way the answer names the length it is of; `None` where the record tells nothing.
    """
    # From a reading on: a line over a hole reaches back into the work before.
    first_ns = curve.first_at_or_after(start_ns)
    start_ns, end_ns = end_ns if first_ns is None else first_ns, min(end_ns, curve.t_ns[-1])
    room_s = seconds(end_ns - start_ns) - quiet_s
    shortest_s = max(channel.tick_s, _apart_s(curve.t_ns))
    if not shortest_s:
        return None
    # Windows begin and end at readings: between them a straight line would hide what came and went.
    tried_s = max(1, int(min(length_s, room_s / WINDOWS_MIN) / shortest_s + 0.01)) * shortest_s
    windows = int(room_s / max(tried_s, quiet_s))
    if windows < 2:
        return None
    errors = []
    quiet_ns, tried_ns = nanoseconds(quiet_s), nanoseconds(tried_s)
    pace = max(1, int(max(tried_s / 2, room_s / 400) / shortest_s))
    first, last = bisect_left(curve.t_ns, start_ns + quiet_ns), bisect_right(curve.t_ns, end_ns - tried_ns)
    for place in range(first, last, pace):
        from_ns, here = curve.t_ns[place], curve.total[place]
        before, then = curve.at(from_ns - quiet_ns), curve.at(from_ns + tried_ns)
        errors.append(then - here - (here - before) * tried_s / quiet_s)
    if not errors:
        return None
    rms_j = sqrt(sum(error * error for error in errors) / len(errors))
    return IdleSpread(guard_s=quiet_s, length_s=tried_s, rms_j=rms_j, windows=windows)


def idle_spreads(curve: Curve, channel: Channel) -> tuple[IdleSpread, ...]:
    """A whole record of an idle machine in short: its spread for both stretches that powers are taken over, at lengths
    that double, as far as it tells."""
    if not curve.t_ns:
        return ()
    start_ns, end_ns = curve.t_ns[0], curve.t_ns[-1]
    spreads: list[IdleSpread] = []
    for quiet_s in dict.fromkeys((guard_s(channel), follow_s(channel))):
        length_s = max(channel.tick_s, _apart_s(curve.t_ns))
        while found := idle_spread(curve, channel, quiet_s, length_s, start_ns, end_ns):
            spreads.append(found)
            if found.length_s < length_s:
                break
            length_s *= 2
    return tuple(spreads)


def alternatives(channels: Sequence[Channel]) -> dict[str, list[list[Channel]]]:
    """Per scope the sets of channels of which each gives the whole figure: one per kind of meter and of reading.

    Two plugs of one kind are two supplies of one machine and add up; a plug and a BMC, or the power and the energy of
    one plug, tell the same thing twice: one of them is the figure, the others are checks.
    """
    found: dict[str, dict[tuple[str, ReadingKind], list[Channel]]] = {}
    for one in channels:
        if one.part_of is None and one.kind in POWER_KINDS:
            kind = one.meter.partition(":")[0]
            found.setdefault(one.scope, {}).setdefault((kind, one.kind), []).append(one)
    return {scope: list(sets.values()) for scope, sets in found.items()}


def counted_scopes(scopes: Sequence[str]) -> list[str]:
    """The scopes whose sum is the machine's figure: one whole scope if there is one, else all parts."""
    whole = [scope for scope in WHOLE_SCOPES if scope in scopes]
    return whole[:1] or list(scopes)


def headline(channels: Sequence[Channel]) -> list[Channel]:
    """The channels to watch live: of every counted scope the set with the fastest tick; without any, the busy counter
    of the power model. Parts of other scopes are never added."""
    sets = alternatives(channels)
    chosen = [
        min(sets[scope], key=lambda one: max(channel.tick_s for channel in one)) for scope in counted_scopes(list(sets))
    ]
    return [channel for one in chosen for channel in one] or [
        one for one in channels if one.kind is ReadingKind.BUSY_RATIO
    ]
