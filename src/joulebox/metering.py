"""Readings to a curve of joules: counters unwrapped, resets and gaps found. Pure; node and server may use it.

Only running counters are turned into curves (joules, or busy core-seconds of the power model): other kinds of meter are
not built yet.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from joulebox.model import Channel, ReadingKind, Sampling, Series
from joulebox.units import NS_PER_S, seconds

PLAUSIBLE_W: Final = 20_000.0
"""A counter that would mean more power than this between two readings was reset, not wrapped."""

WHOLE_SCOPES: Final = ("wall", "platform")
"""Scopes that hold the whole machine, best first; where there is one, its parts are only shown beside it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A running total against time: `total[i]` in the unit of the channel (J, or core-seconds) at `t_ns[i]`, 0 at
    first.

    `resets_ns` are the times of readings before which the counter started anew: nothing is known of the stretch
    before.
    """

    t_ns: tuple[int, ...]
    total: tuple[float, ...]
    resets_ns: tuple[int, ...] = ()

    def at(self, t_ns: int) -> float:
        """The total at `t_ns`, straight between the readings around it.

        Raises `ValueError` outside the readings: nothing is known there.
        """
        if not self.t_ns or not self.t_ns[0] <= t_ns <= self.t_ns[-1]:
            raise ValueError("no reading on both sides of that moment")
        right = bisect_left(self.t_ns, t_ns)
        if self.t_ns[right] == t_ns:
            return self.total[right]
        before, after = self.t_ns[right - 1], self.t_ns[right]
        share = (t_ns - before) / (after - before)
        return self.total[right - 1] + share * (self.total[right] - self.total[right - 1])

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

    def gap_s(self, start_ns: int, end_ns: int) -> float:
        """The longest stretch without a reading that touches `start_ns`..`end_ns`, in seconds."""
        low = max(bisect_right(self.t_ns, start_ns) - 1, 0)
        high = min(bisect_left(self.t_ns, end_ns), len(self.t_ns) - 1)
        stretches = [seconds(self.t_ns[i + 1] - self.t_ns[i]) for i in range(low, high)]
        return max(stretches, default=0.0)


def curve_of(series: Series) -> Curve:
    """The running total of a counter, wraps undone.

    A counter that goes back is taken to have wrapped once (`wrap_raw` steps after zero) if the power this means is
    plausible, else to have been reset. Two wraps between two readings cannot be told from one: the reading rate must be
    faster than the wrap. Raises `ValueError` for a channel that is not a counter.
    """
    channel = series.channel
    if channel.sampling is not Sampling.COUNTER:
        raise ValueError(f"channel {channel.name} is no counter")
    total_raw = 0
    totals: list[float] = []
    resets: list[int] = []
    for index, raw in enumerate(series.raw):
        if index:
            step_raw = raw - series.raw[index - 1]
            if step_raw < 0:
                wait_s = seconds(series.t_ns[index] - series.t_ns[index - 1])
                wrapped = step_raw + (channel.wrap_raw or 0)
                if channel.wrap_raw is None or not 0 <= wrapped * channel.step <= PLAUSIBLE_W * wait_s:
                    resets.append(series.t_ns[index])
                    wrapped = 0
                step_raw = wrapped
            total_raw += step_raw
        totals.append(total_raw * channel.step)
    return Curve(series.t_ns, tuple(totals), tuple(resets))


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


def headline(channels: Sequence[Channel]) -> list[Channel]:
    """The channels whose sum is the machine's figure: one whole-machine scope if there is one, else all parts, else the
    busy counter of the power model, else none. Parts of other scopes are never added."""
    energy = [one for one in channels if one.kind is ReadingKind.ENERGY_J and one.part_of is None]
    for scope in WHOLE_SCOPES:
        whole = [one for one in energy if one.scope == scope]
        if whole:
            return whole
    return energy or [one for one in channels if one.kind is ReadingKind.BUSY_RATIO]
