"""What a run has drawn so far, counted from its readings as they come: it rides on the tokens of a prompt that has an
energy budget, and the server judges it."""

from itertools import pairwise
from statistics import fmean
from typing import Final

from joulebox.metering import curve_of, guard_s, headline
from joulebox.model import Sampling, Series
from joulebox.node.recorder import Recorder
from joulebox.units import nanoseconds, seconds

TICKS_LATE: Final = {Sampling.COUNTER: 0.0, Sampling.MEAN: 1.0, Sampling.SNAPSHOT: 0.5}
"""So many ticks lie between what was drawn and its reading, in the mean."""


class Running:
    """Counts since the request at `start_ns`. Nothing is worked out before the first question."""

    def __init__(self, recorder: Recorder, start_ns: int) -> None:
        self._recorder = recorder
        self._start_ns = start_ns
        self._seen_ns = start_ns
        self._counts: list[_Count] | None = None

    def so_far(self, now_ns: int) -> dict[str, float]:
        """`counted` since the request, what `idle` would have counted meanwhile, and up to when that is, `counted_s`
        after the request: joules, core-seconds of the busy counter. Empty where the readings do not tell."""
        if self._counts is None:
            self._counts = self._begin()
        fresh = {one.channel: one for one in self._recorder.series(self._seen_ns + 1, now_ns)}
        for count in self._counts:
            count.take(fresh[count.channel], self._seen_ns + 1)
        self._seen_ns = now_ns
        if not self._counts or any(count.broken for count in self._counts):
            return {}
        return {
            "counted": round(sum(count.total for count in self._counts), 6),
            "idle": round(sum(count.idle for count in self._counts), 6),
            "counted_s": round(max(seconds(count.until_ns - self._start_ns) for count in self._counts), 3),
        }

    def _begin(self) -> list["_Count"]:
        """The channels that tell the headline, each with what the guard before the request told of it."""
        chosen = headline(self._recorder.channels)
        quiet_s = max((guard_s(one) + one.tick_s for one in chosen), default=0.0)
        from_ns = self._start_ns - nanoseconds(quiet_s)
        before = self._recorder.series(from_ns, self._start_ns)
        return [_Count(one, from_ns) for one in before if one.channel in chosen]


class _Count:
    """One channel: what it counted, and since when. A counter counts from tick to tick, a power from reading to
    reading."""

    def __init__(self, before: Series, from_ns: int) -> None:
        self.channel = before.channel
        self.total = 0.0
        self.broken = len(before.t_ns) < 2
        self.t_ns = from_ns + (before.t_ns[-1] if before.t_ns else 0)
        self._counter = self.channel.sampling is Sampling.COUNTER
        self._raw = before.raw[-1] if before.raw else 0
        self._idle_rate = 0.0
        if self._counter and not self.broken:
            pairs = pairwise(zip(before.t_ns, before.raw, strict=True))
            moved = [t_ns for (_, earlier), (t_ns, raw) in pairs if raw != earlier]
            self.t_ns = from_ns + (moved[-1] if moved else before.t_ns[-1])
            curve = curve_of(before)
            self.broken = len(curve.t_ns) < 2 or bool(curve.resets_ns)
            self._idle_rate = 0.0 if self.broken else curve.rate(curve.t_ns[0], curve.t_ns[-1])
        elif not self.broken:
            self._idle_rate = fmean(before.raw) * self.channel.step
        self._begun_ns = self.t_ns

    @property
    def until_ns(self) -> int:
        """Up to when the count holds what was drawn: a mean is shown for the tick after it was drawn, and whatever a
        meter shows is as old as its lag."""
        late_s = self.channel.lag_s + self.channel.tick_s * TICKS_LATE[self.channel.sampling]
        return self.t_ns - nanoseconds(late_s)

    @property
    def idle(self) -> float:
        """What an idle machine would have counted meanwhile."""
        return self._idle_rate * seconds(self.t_ns - self._begun_ns)

    def take(self, fresh: Series, from_ns: int) -> None:
        """Further readings, their times since `from_ns`."""
        for after_ns, raw in zip(fresh.t_ns, fresh.raw, strict=True):
            t_ns = from_ns + after_ns
            if not self._counter:
                self.total += raw * self.channel.step * seconds(t_ns - self.t_ns)
            elif raw == self._raw:
                continue
            else:
                step_raw = raw - self._raw
                if step_raw < 0:
                    step_raw += self.channel.wrap_raw or 0
                    self.broken |= step_raw < 0
                self.total += step_raw * self.channel.step
            self._raw, self.t_ns = raw, t_ns
