"""Wait until the machine is quiet enough to begin: the guard before the answer must hold nothing but idling.

How warm it may begin is `node.cooling`'s matter, which comes first.
"""

from statistics import median
from typing import Final

from joulebox.clock import Clock
from joulebox.metering import curve_of, headline
from joulebox.model import ReadingKind, Span
from joulebox.node.recorder import Recorder
from joulebox.units import nanoseconds

WAIT_MAX_S: Final = 4.0
"""A machine that does not calm down in this time is measured as it is; the verdict then says that it was noisy."""
LOOK_S: Final = 0.1
HISTORY_MIN: Final = 3
RESTLESS_RATIO: Final = 0.25
"""The guard is restless when it lies by more than this share of the usual idle rate above it."""
RESTLESS_CORES: Final = 0.05
"""...and, so that a perfectly idle machine does not wait for nothing, by more than this: 5 % of a core, or 1 W."""
RESTLESS_W: Final = 1.0


def settle(recorder: Recorder, clock: Clock, quiet_since_ns: int) -> Span:
    """Wait until the last guard's length of readings is as quiet as the idle record, at most `WAIT_MAX_S`."""
    start_ns = clock.now_ns()
    guard_ns = nanoseconds(recorder.guard_s)
    clock.sleep_until(quiet_since_ns + guard_ns)
    limit_ns = clock.now_ns() + nanoseconds(WAIT_MAX_S)
    while guard_ns and clock.now_ns() < limit_ns and restless(recorder, clock.now_ns(), start_ns, quiet_since_ns):
        clock.sleep_until(clock.now_ns() + nanoseconds(LOOK_S))
    return Span(name="settle", start_ns=start_ns, end_ns=clock.now_ns())


def restless(recorder: Recorder, now_ns: int, leased_ns: int, quiet_since_ns: int) -> bool:
    """Whether the last guard holds more than idling. Without enough of an idle record to compare with, a whole guard
    has to pass after the lease, so that at least the asking itself is not in it."""
    guard_ns = nanoseconds(recorder.guard_s)
    rates = _idle_rates(recorder, now_ns, guard_ns, quiet_since_ns)
    if len(rates) <= HISTORY_MIN:
        return now_ns - leased_ns < guard_ns
    *history, last = rates
    usual = median(history)
    energy = any(channel.kind is not ReadingKind.BUSY_RATIO for channel in headline(recorder.channels))
    return last - usual > max(RESTLESS_RATIO * abs(usual), RESTLESS_W if energy else RESTLESS_CORES)


def _idle_rates(recorder: Recorder, now_ns: int, guard_ns: int, quiet_since_ns: int) -> list[float]:
    """The machine's rate (W or busy cores) over stretches of one guard, oldest first, the last one ending now."""
    oldest_ns = recorder.oldest_ns()
    origin_ns = max(quiet_since_ns, now_ns if oldest_ns is None else oldest_ns)
    chosen = headline(recorder.channels)
    totals: list[float] = []
    for series in recorder.series(origin_ns, now_ns):
        if series.channel not in chosen or len((curve := curve_of(series)).t_ns) < 2:
            continue
        end_ns = curve.t_ns[-1]
        count = (end_ns - curve.t_ns[0]) // guard_ns
        rates = [curve.rate(end_ns - (i + 1) * guard_ns, end_ns - i * guard_ns) for i in reversed(range(count))]
        if totals and len(totals) != len(rates):
            shorter = min(len(totals), len(rates))
            totals, rates = totals[len(totals) - shorter :], rates[len(rates) - shorter :]
        totals = [a + b for a, b in zip(totals, rates, strict=True)] if totals else rates
    return totals
