"""Was the idle machine the same before the answer and after it? Where not, `active` stands on moving ground. Pure.

`active` takes off the idle power of the guard before. An idle power that differs afterwards, by more than noise ever
makes it differ in the idle record over the same distance, and by enough to matter, is told. Below the old one
something ended meanwhile, and what it drew before is in the figure the wrong way round. Above it that may as well be a
long tail (fans), which is the answer's own doing: then it is a note, and while the power still falls, nothing.
"""

from collections.abc import Iterator
from math import sqrt
from typing import Final

from joulebox.accounting.figures import Metered, Reckoning
from joulebox.accounting.surroundings import Finding
from joulebox.metering import Curve
from joulebox.model import Trace
from joulebox.units import nanoseconds

SURELY: Final = 4.0
"""So many times its usual spread a difference is no noise. The spread is known from a few windows only."""
WINDOWS_MIN: Final = 3
"""As many independent stretches like the answer and its guards the idle record must hold."""


def drift(trace: Trace, reckoning: Reckoning) -> Iterator[Finding]:
    """What differs between the idle power before the answer and after it, one channel at most."""
    active, quiet = reckoning.energy.active, trace.span("idle")
    if active is None or quiet is None:
        return
    for one in reckoning.metered:
        change_w = _change_w(one, quiet.start_ns, trace.released_ns)
        # drift goes on evenly, for all that is known: half of it was in the answer
        if change_w is not None and abs(change_w) / 2 * one.window.duration_s > active.u:
            idle_w = one.scale.offset_w + one.scale.slope * one.found.idle_rate
            told = (one.channel.scope, f"{idle_w:.1f}", f"{idle_w + change_w:.1f}")
            yield Finding("idle_drift", "suspect" if change_w < 0 else "note", told)
            return


def _change_w(one: Metered, quiet_from_ns: int, released_ns: int) -> float | None:
    """By how much the channel's idle power is another one afterwards; `None` where noise or a tail may be all."""
    window, curve = one.window, one.curve
    back = _back(one, released_ns)
    if back is None:
        return None
    early, late, span_ns = back
    change = late - one.found.idle_rate
    apart_ns = window.end_ns - window.start_ns + nanoseconds(window.guard_s)
    spread = _spread(curve, (max(quiet_from_ns, curve.t_ns[0]), window.start_ns), window.guard_s, apart_ns, span_ns)
    if spread is None or abs(change) <= SURELY * spread:
        return None
    if change > 0 and early - late > spread:
        return None
    return one.scale.slope * change


def _back(one: Metered, released_ns: int) -> tuple[float, float, int] | None:
    """The rate in the first and in the second half of the quiet after the answer, and how long the second is."""
    curve = one.curve
    slack_ns = nanoseconds(curve.slack_s + curve.margin_s)
    start_ns, end_ns = curve.first_at_or_after(one.window.end_ns + slack_ns), curve.last_at_or_before(released_ns)
    if start_ns is None or end_ns is None:
        return None
    middle_ns = curve.first_at_or_after((start_ns + end_ns) // 2)
    if middle_ns is None or not start_ns < middle_ns < end_ns:
        return None
    return curve.rate(start_ns, middle_ns), curve.rate(middle_ns, end_ns), end_ns - middle_ns


def _spread(curve: Curve, quiet: tuple[int, int], guard_s: float, apart_ns: int, span_ns: int) -> float | None:
    """The root mean square difference, in the idle record, between the rate of a guard and that of a stretch of
    `span_ns` which comes `apart_ns` after it."""
    guard_ns = nanoseconds(guard_s)
    whole_ns, room_ns = guard_ns + apart_ns + span_ns, quiet[1] - quiet[0]
    if room_ns < WINDOWS_MIN * whole_ns:
        return None
    differences = []
    for start_ns in range(quiet[0], quiet[1] - whole_ns + 1, max(guard_ns // 2, room_ns // 200)):
        then_ns = start_ns + guard_ns + apart_ns
        differences.append(curve.rate(then_ns, then_ns + span_ns) - curve.rate(start_ns, start_ns + guard_ns))
    return sqrt(sum(each * each for each in differences) / len(differences))
