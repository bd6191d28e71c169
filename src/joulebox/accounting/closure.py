"""Do the meters of this receipt agree? What should be equal, what should be a line apart, and what never can be. Pure.

With a line that calibration fitted between a whole and its parts, the gains of both are in it: what is left to be
uncertain are the edges of the answer on either meter and the line itself. Without one both meters have all they claim,
and only what physics forbids is told: parts that take more than the whole. Contradictions are told beyond the joint
interval only.
"""

from collections.abc import Iterator, Sequence
from math import hypot
from typing import Final

from joulebox.accounting.figures import Metered, Reckoning
from joulebox.accounting.surroundings import Finding
from joulebox.accounting.uncertainty import added, combined
from joulebox.agreement import Pair, expected_w, fit_of, pairs, words
from joulebox.model import CalibrationRef, MetersFit, Trace
from joulebox.units import seconds

FOLLOWS_RATIO: Final = 0.5
"""A whole that surely rose by less than this share of what its parts rose by looks at something else."""
RISE_MIN_W: Final = 2.0
"""Parts that rose by less, on average, tell nothing of whether the whole follows."""


def contradictions(trace: Trace, reckoning: Reckoning) -> Iterator[Finding]:
    """What the meters say against one another, at most one sentence for two of them."""
    by_channel = {one.channel: one for one in reckoning.seen}
    for pair in pairs(tuple(by_channel)):
        whole, parts = ([by_channel[one] for one in side] for side in (pair.whole, pair.parts))
        found = _elsewhere(pair, whole, parts, reckoning)
        if found is None and pair.same:
            found = _two_of_one(pair, whole, parts)
        elif found is None:
            fit = fit_of(pair, trace.calibration.fits) if trace.calibration else None
            found = _impossible(pair, whole, parts)
            if found is None and fit is not None and trace.calibration is not None:
                found = _off_the_line(pair, whole, parts, fit, trace.calibration)
                found = found or _off_at_rest(trace, pair, (whole, parts), fit, trace.calibration)
        if found is not None:
            yield found


def _elsewhere(pair: Pair, whole: Sequence[Metered], parts: Sequence[Metered], reckoning: Reckoning) -> Finding | None:
    """One side worked, and the other, which holds it, surely did not: it looks at another machine or part."""
    sides = ((pair.whole, whole, pair.parts, parts), (pair.parts, parts, pair.whole, whole))
    for still, still_seen, moved, moved_seen in sides[: 2 if pair.same else 1]:
        duration_s = still_seen[0].window.duration_s
        (still_j, still_u_j), (moved_j, moved_u_j) = _active(still_seen), _active(moved_seen)
        least_j = moved_j - moved_u_j
        if least_j > RISE_MIN_W * duration_s and still_j + still_u_j < FOLLOWS_RATIO * least_j:
            counted = any(one in reckoning.metered for one in still_seen)
            told = f"{words(still)} rose by {_said(still_j)} above idle while {words(moved)} rose by {_said(moved_j)}"
            return Finding("swapped", "invalid" if counted else "suspect", (told,))
    return None


def _two_of_one(pair: Pair, whole: Sequence[Metered], parts: Sequence[Metered]) -> Finding | None:
    """Both sides are the same figure."""
    (one_j, one_u_j), (other_j, other_u_j) = _answer(whole), _answer(parts)
    joint_j = hypot(one_u_j, other_u_j)
    if abs(one_j - other_j) <= joint_j:
        return None
    told = (
        f"{words(pair.whole)} says {_said(one_j)} and {words(pair.parts)} says {_said(other_j)} of the same, "
        f"further apart than the {_said(joint_j)} both allow"
    )
    return Finding("closure", "suspect", (told,))


def _impossible(pair: Pair, whole: Sequence[Metered], parts: Sequence[Metered]) -> Finding | None:
    """Parts take no more than the whole, idling included."""
    (whole_j, whole_u_j), (parts_j, parts_u_j) = _answer(whole), _answer(parts)
    joint_j = hypot(whole_u_j, parts_u_j)
    if parts_j - whole_j <= joint_j:
        return None
    told = (
        f"{words(pair.parts)} says {_said(parts_j)}, more than the {_said(whole_j)} of {words(pair.whole)} around "
        f"it, beyond the {_said(joint_j)} that both allow"
    )
    return Finding("closure", "suspect", (told,))


def _off_the_line(
    pair: Pair, whole: Sequence[Metered], parts: Sequence[Metered], fit: MetersFit, calibration: CalibrationRef
) -> Finding | None:
    """The answer's energy at the whole against what its parts lead to expect."""
    duration_s = whole[0].window.duration_s
    whole_j, parts_j = (sum(one.joules(one.found.answer, duration_s) for one in side) for side in (whole, parts))
    line_w, line_u_w = expected_w(fit, parts_j / duration_s)
    joint_j = hypot(line_u_w * duration_s, _edges_j(whole), fit.slope * _edges_j(parts))
    if abs(whole_j - line_w * duration_s) <= joint_j:
        return None
    told = (
        f"{words(pair.whole)} says {_said(whole_j)} where {words(pair.parts)} and the calibration of "
        f"{calibration.at[:10]} lead to {_said(line_w * duration_s)}, give or take {_said(joint_j)}"
    )
    return Finding("closure", "suspect", (told,))


def _off_at_rest(
    trace: Trace,
    pair: Pair,
    sides: tuple[Sequence[Metered], Sequence[Metered]],
    fit: MetersFit,
    calibration: CalibrationRef,
) -> Finding | None:
    """The same of the idle record, as far as all of them have one."""
    every, quiet = (*sides[0], *sides[1]), trace.span("idle")
    ends = [one.curve.last_at_or_before(one.window.start_ns) for one in every]
    if quiet is None or None in ends:
        return None
    start_ns = max(quiet.start_ns, *(one.curve.t_ns[0] for one in every))
    end_ns = min(end for end in ends if end is not None)
    if seconds(end_ns - start_ns) < max(one.window.guard_s for one in every):
        return None
    whole_w, parts_w = (sum(one.joules(one.curve.rate(start_ns, end_ns), 1.0) for one in side) for side in sides)
    line_w, line_u_w = expected_w(fit, parts_w)
    noise_w = hypot(*(2 * one.idle("active").j / one.window.duration_s for one in every))
    joint_w = hypot(line_u_w, noise_w)
    if abs(whole_w - line_w) <= joint_w:
        return None
    told = (
        f"{words(pair.whole)} shows {whole_w:.1f} W at rest where {words(pair.parts)} and the calibration of "
        f"{calibration.at[:10]} lead to {line_w:.1f} W, give or take {joint_w:.1f} W"
    )
    return Finding("closure", "suspect", (told,))


def _answer(side: Sequence[Metered]) -> tuple[float, float]:
    """The answer as these meters tell it, and all that leaves it open (k = 2), in joules."""
    total_j = sum(one.joules(one.found.answer, one.window.duration_s) for one in side)
    parts = added([[*one.systematic(one.found.answer, one.window.duration_s), *one.edges()] for one in side])
    return total_j, combined(parts)


def _active(side: Sequence[Metered]) -> tuple[float, float]:
    """The same of what lies above idle."""
    total_j = sum(one.scale.slope * one.found.active for one in side)
    parts = added([[*one.systematic(one.found.active, 0.0), *one.edges("active"), one.idle("active")] for one in side])
    return total_j, combined(parts)


def _edges_j(side: Sequence[Metered]) -> float:
    """What the answer's edges leave open on these meters, without their gains (k = 2), in joules."""
    return combined(added([one.edges() for one in side]))


def _said(j: float) -> str:
    return f"{j:.0f} J" if abs(j) >= 100 else f"{j:.1f} J"
