"""Joules from a curve: the answer, what it added above idle, and what came after. Pure.

The estimator stands on readings, never on the prompt's edges alone. `k1` is the last reading at or before `t_s`, `k2`
the first one that surely holds everything up to `t_e` (tick and lag later). What lies between the edges and these
readings is taken out at the power that the guards themselves measured: idle before, idle and tail after.
"""

from dataclasses import dataclass

from joulebox.metering import AFTER_S, Curve
from joulebox.units import nanoseconds, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What to measure: the answer from `start_ns` to `end_ns`, between quiet guards of `guard_s` on either side."""

    start_ns: int
    end_ns: int
    guard_s: float
    tick_s: float
    lag_s: float

    @property
    def duration_s(self) -> float:
        """Seconds from request to last token."""
        return seconds(self.end_ns - self.start_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Energy of one curve over one window, in the unit of the curve.

    `answer` is everything from start to end; `active` what lies above `idle_rate`; `tail` what lies above it
    afterwards, up to `tail_s` after the end. `before_s` and `after_s` are the stretches taken out at `idle_rate` and
    `after_rate`.
    """

    answer: float
    active: float
    tail: float
    idle_rate: float
    after_rate: float
    before_s: float
    after_s: float
    tail_s: float


def estimate(curve: Curve, window: Window) -> Estimate | None:
    """The energy in the window, or `None` where the guards hold too few readings to know it."""
    slack_ns, margin_ns = nanoseconds(curve.slack_s), nanoseconds(curve.margin_s)
    guard_ns = nanoseconds(window.guard_s)
    before = curve.last_at_or_before(window.start_ns - margin_ns)
    after = curve.first_at_or_after(window.end_ns + slack_ns + margin_ns)
    if before is None or after is None:
        return None
    quiet = curve.first_at_or_after(before - guard_ns)
    last = curve.last_at_or_before(window.end_ns + nanoseconds(window.tick_s + window.lag_s) + guard_ns)
    if quiet is None or quiet >= before or last is None or last <= after:
        return None
    follow = curve.first_at_or_after(after + nanoseconds(max(AFTER_S, window.tick_s))) or last
    idle_rate = curve.rate(quiet, before)
    after_rate = curve.rate(after, follow)
    before_s = seconds(window.start_ns - before)
    after_s = seconds(after - window.end_ns)
    answer = curve.between(before, after) - idle_rate * before_s - after_rate * after_s
    tail_s = seconds(last - window.end_ns)
    tail = curve.between(before, last) - idle_rate * before_s - answer - idle_rate * tail_s
    return Estimate(
        answer=answer,
        active=answer - idle_rate * window.duration_s,
        tail=tail,
        idle_rate=idle_rate,
        after_rate=after_rate,
        before_s=before_s,
        after_s=after_s,
        tail_s=tail_s,
    )
