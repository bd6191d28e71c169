"""How sure a figure is: every part by name, as a standard uncertainty (k = 1), and the whole expanded (k = 2).

The baseline part is the spread of the very same estimator over sham windows: stretches of the idle record with the
same length and the same guards, where the true active energy is zero. (Scatter over the square root of n, the usual
way, covers 5-76 % of the truth where sham windows cover 94-98 %.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, hypot, log, sqrt
from typing import Final

from joulebox.accounting.energy import Estimate, Split, Window, Works, falls, glowing, rested_s
from joulebox.metering import LAG_DOUBT, Curve, follow_s, idle_spread
from joulebox.model import Channel, IdleSpread, Sampling, UncertaintyPart
from joulebox.units import nanoseconds

COVERAGE_FACTOR: Final = 2.0
SHAM_WINDOWS_MIN: Final = 4
GUARDS_ALIKE: Final = 0.5
"""A calibration's spread counts where its guard was no more than this share longer or shorter."""
SNAPSHOT_SCATTER: Final = 0.3
"""By how much of its rise the power of a working machine is taken to differ from look to look: reading the prompt and
writing the answer draw differently, and a snapshot says nothing of what lies between."""
UNEVEN: Final = 0.15
"""By how much of its rise the power is taken to differ from look to look within a phase, where too few looks tell."""
PHASES_APART: Final = 0.5
"""By how much of the rise the power of a phase that no look fell into is taken to differ from the other phase's."""
UNSEEN_NOISE: Final = 0.02
"""By how much of its power an idle machine is taken to come and go where no record of its idling tells."""
STAMP_S: Final = 0.001
"""How well the node knows when the engine's work ends; on the rig in real time it was off by a few tenths of this."""
BOUND: Final = sqrt(3) / 2
"""What a part with nothing but a bound is worth (k = 1) where the truth may lie at the bound every time, as with a tail
that is the same after every answer: the whole interval then still holds 95 of 100, whatever the other parts are."""
INDEPENDENT: Final = ("resolution",)
"""Parts that differ from channel to channel. All others are one error in every channel of their name: counters of one
machine tick together, and what disturbs the idle machine disturbs all of them."""
_T95: Final = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
    2.12,
    2.11,
    2.10,
)
"""Student's t for 95 %, 1 to 18 degrees of freedom (any table of the distribution); 2.0 beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What an idle machine's coming and going leaves open, in the unit of the curve (k = 1): over the stretches taken
    out `before` and `after` the answer, over the answer's own length (`active`), and over the tail's."""

    before: float
    after: float
    active: float
    tail: float


def noise(channel: Channel, curve: Curve, window: Window, found: Estimate, known: Sequence[IdleSpread]) -> Noise:
    """From the trace's own idle record and the calibration's (`known`)."""
    # The tick that the answer begins in is no idling.
    span = (window.quiet_from_ns, window.start_ns - nanoseconds(found.before_s))
    room_s = rested_s(curve, window, span[1])
    falls_rate = falls(curve, span[1], found.quiet_s)
    restless_rate = max(abs(falls_rate), UNSEEN_NOISE * abs(found.idle_rate))

    def spread(quiet_s: float, length_s: float, otherwise_rate: float | None = None) -> float:
        if length_s <= 0:
            return 0.0
        nearest_s = min((one.guard_s for one in known), key=lambda guard_s: abs(guard_s - quiet_s), default=0.0)
        alike = [one for one in known if one.guard_s == nearest_s and abs(nearest_s / quiet_s - 1) < GUARDS_ALIKE]
        own = idle_spread(curve, channel, quiet_s, length_s, *span)
        if own is None and not alike and otherwise_rate is None:  # a shorter guard tells less: on the safe side
            own = idle_spread(curve, channel, min(quiet_s, room_s / SHAM_WINDOWS_MIN), length_s, *span)
        return _spread(own, alike, length_s, restless_rate if otherwise_rate is None else otherwise_rate)

    quiet_s, whole_s, whole_rate = found.quiet_s, window.duration_s + found.tail_s, abs(found.idle_rate) / sqrt(3)
    tail = max(spread(quiet_s, found.tail_s, whole_rate), spread(quiet_s, whole_s, whole_rate) * found.tail_s / whole_s)
    # What fell in the guard may have been all of a tail's, or nothing; and noise looks like it: it is in what was taken
    # off and in the bound, more than once and less than twice.
    noise_rate = spread(quiet_s, quiet_s / 2) / (quiet_s / 2) * glowing(quiet_s, room_s)
    glow_rate = hypot(BOUND * found.glow_rate, noise_rate / BOUND)
    above_s = window.duration_s + found.before_s
    return Noise(
        before=hypot(spread(quiet_s, found.before_s), glow_rate * found.before_s),
        after=spread(follow_s(channel), found.after_s) * (1 + found.fading),
        active=hypot(spread(quiet_s, above_s, whole_rate), glow_rate * above_s),
        tail=hypot(tail, glow_rate * found.tail_s),
    )


def _spread(own: IdleSpread | None, known: Sequence[IdleSpread], length_s: float, otherwise_rate: float) -> float:
    """The standard uncertainty of idling over `length_s`: what own record and calibration say together, each as much as
    it has windows. A machine that is clearly noisier now than it was then counts as it is now.

    Few windows are widened by Student's t: as many degrees of freedom as windows, because the true value is known to be
    zero. Without any, `otherwise_rate` is what is known.
    """
    then = _looked_up(known, length_s)
    if own is None and then is None:
        return otherwise_rate * length_s
    now = None if own is None else (own.rms_j * length_s / own.length_s, own.windows)
    if now is None or then is None:
        rms, windows = now or then or (0.0, 1)
    elif now[0] > then[0] * exp(sqrt(2 / now[1] + 2 / then[1])):
        rms, windows = now
    else:
        windows = now[1] + then[1]
        rms = sqrt((now[1] * now[0] ** 2 + then[1] * then[0] ** 2) / windows)
    return rms * _widened(windows)


def _looked_up(known: Sequence[IdleSpread], length_s: float) -> tuple[float, int] | None:
    """The spread at `length_s` between those kept; beyond them it grows with the length."""
    if not known:
        return None
    ordered = sorted(known, key=lambda one: one.length_s)
    low = max((one for one in ordered if one.length_s <= length_s), key=lambda one: one.length_s, default=ordered[0])
    high = min((one for one in ordered if one.length_s >= length_s), key=lambda one: one.length_s, default=low)
    windows = min(low.windows, high.windows)
    if low.length_s == high.length_s or not low.rms_j or not high.rms_j:
        return low.rms_j * length_s / low.length_s, windows
    slope = log(high.rms_j / low.rms_j) / log(high.length_s / low.length_s)
    return low.rms_j * (length_s / low.length_s) ** slope, windows


def boundary(channel: Channel, curve: Curve, found: Estimate, works: Works, noise_after: float) -> dict[str, float]:
    """What ticks, resolution and the guards' edges leave open in the answer, in the unit of the curve (k = 1).

    `stamps`: the machine may work on for `STAMP_S` after the last token was stamped.
    """
    rise, duration_s = found.after_rate - found.idle_rate, works.duration_s
    parts = {
        "guards": hypot(rise * found.after_s, noise_after) * found.fading * BOUND,
        "stamps": abs(found.answer / duration_s - found.after_rate) * STAMP_S / sqrt(3),
        "tick": _ticking(channel, curve, found, duration_s),
        "resolution": _resolution(channel, works),
    }
    if doubt_s := _doubt_s(channel, curve):
        parts["lag"] = abs(rise) * found.steep * doubt_s / sqrt(3)
    if channel.sampling is Sampling.SNAPSHOT:
        parts["snapshots"] = between_snapshots(channel, found, works)
    return parts


def _ticking(channel: Channel, curve: Curve, found: Estimate, duration_s: float) -> float:
    """What the times of the ticks leave open between `k1` and `k2`.

    Of a fast counter nobody knows where in its tick it was read at either end, of a slow meter without a line when
    either tick was. Ticks on a line are off together, so that only the rise at the end counts; and all of them lie a
    little closer or further apart, by which a counter's stretch taken out is wrong, and all of what a mean shows. A
    power that is only looked at is stretched to the answer's edges, however far its looks are apart.
    """
    if curve.stretch is None:
        return (channel.tick_s if curve.slack_s else curve.blur_s) * hypot(found.idle_rate, found.after_rate) / sqrt(12)
    shifted = (found.after_rate - found.idle_rate) * found.steep * curve.blur_s / sqrt(3)
    whole_s = found.before_s + duration_s + found.after_s
    stretched = {Sampling.COUNTER: found.idle_rate * whole_s, Sampling.MEAN: found.active}
    return hypot(shifted, curve.stretch * stretched.get(channel.sampling, 0.0))


def cutting(
    channel: Channel, curve: Curve, found: Estimate, works: Works, cut: Split, swing: float
) -> dict[str, float]:
    """What cutting the answer at its first token leaves open in either phase, in the unit of the curve (k = 1).

    `swing` is how much a phase's energy changes from the earliest to the latest ticks that the meter's lag allows.
    Between the readings around the cut power was taken to be even: as much as it was seen not to be is uncertain.
    """
    uneven = _uneven(works, SNAPSHOT_SCATTER * abs(found.active) / works.duration_s)
    if channel.sampling is Sampling.SNAPSHOT:
        tick = 0.0
    elif curve.stretch is None:
        blur_s = channel.tick_s if curve.slack_s else curve.blur_s
        tick = blur_s * hypot(cut.cut_rate, found.after_rate) / sqrt(12)
    else:
        shifted = (cut.cut_rate - found.after_rate) * curve.blur_s / sqrt(3)
        tick = hypot(shifted, curve.stretch * cut.cut_rate * works.duration_s)
    return {"tick": tick, "lag": abs(swing) / 2 / sqrt(3), "cut": uneven * cut.gap_s}


def _doubt_s(channel: Channel, curve: Curve) -> float:
    """How far all of the curve's times may be off."""
    return LAG_DOUBT * channel.lag_s if curve.slack_s else curve.margin_s


def _resolution(channel: Channel, works: Works) -> float:
    """What the steps of the readings leave open. A power is rounded the same all the time, or each tick anew where it
    is seen to differ by half a step and more."""
    if channel.sampling is Sampling.COUNTER:
        return channel.step / sqrt(6)
    even = works.uneven_rate is None or works.uneven_rate < channel.step / 2
    same_s = works.duration_s if even else min(channel.tick_s, works.duration_s)
    return channel.step * sqrt(same_s * works.duration_s / 12)


def between_snapshots(channel: Channel, found: Estimate, works: Works, phases: Sequence[int] = (0, 1)) -> float:
    """What a power seen once a tick leaves open in prefill (0) and decode (1): what the machine drew between the looks.
    No guard cancels this, so that it stands in the interval (k = 1).

    As much as the looks inside a phase differ from one another, what lies between them may differ too; a curve goes
    through the mean of two, which hides half of it. Of a phase that no look fell into, and where too few looks are to
    differ, it is what a working machine's power is taken to differ by.
    """
    rise_w = abs(found.active) / works.duration_s
    unseen_s = sum(works.unseen_s[phase] for phase in phases)
    seen_s = sum(works.lasted_s[phase] for phase in phases) - unseen_s
    uneven_w = 2 * _uneven(works, UNEVEN * rise_w / 2)
    return hypot(uneven_w * sqrt(max(seen_s, 0.0) * channel.tick_s), rise_w * PHASES_APART * unseen_s)


def _uneven(works: Works, most: float) -> float:
    """How uneven the machine's power is at work: as it was seen, widened by Student's t, but no more than `most`."""
    if works.uneven_rate is None:
        return most
    return min(works.uneven_rate * _widened(works.freedom), most)


def _widened(freedom: int) -> float:
    """By how much so few degrees of freedom widen what is twice a standard deviation otherwise."""
    return _T95[freedom - 1] / COVERAGE_FACTOR if freedom <= len(_T95) else 1.0


def combined(parts: Iterable[UncertaintyPart]) -> float:
    """The expanded uncertainty (k = 2) of independent parts, in joules."""
    return COVERAGE_FACTOR * sqrt(sum(part.j * part.j for part in parts))


def added(groups: Sequence[Sequence[UncertaintyPart]]) -> tuple[UncertaintyPart, ...]:
    """Parts of several channels as one list. Parts of one name add up, the `INDEPENDENT` ones in quadrature."""
    together: dict[str, list[float]] = {}
    for group in groups:
        for part in group:
            together.setdefault(part.source, []).append(part.j)
    return tuple(
        UncertaintyPart(source=source, j=sqrt(sum(j * j for j in js)) if source in INDEPENDENT else sum(js))
        for source, js in together.items()
    )
