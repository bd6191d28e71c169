"""Prefill and decode behind meters too slow to tell them apart. Pure.

The token times say exactly when the first token came, and the guards what the whole answer took; what lacks is how the
two phases share it. Fast counters in the same evidence tell that, through the line calibration fitted between them and
the slow meter. Without them the node's calibration may know how much more this model draws above idle while it reads
than while it writes. Without either the phases stay null. Prefill and decode add up to the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, hypot
from typing import Final

from joulebox.accounting.energy import TAIL_S
from joulebox.accounting.figures import MODELLED, Metered, Reckoning, answer_window, phase_figure
from joulebox.agreement import REST_U_RATIO, WORK_U_RATIO, fit_of, pairs
from joulebox.model import Figure, MetersFit, PhaseFigure, PhasePowers, Trace
from joulebox.units import seconds

FOLLOWING_RATIO: Final = 0.2
"""So much of the power above idle may come and go `TAIL_S` late. Assumed (k = 2); counters, where there are, see it."""


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds of prefill and decode, and where they are in the trace."""

    start_ns: int
    first_ns: int
    end_ns: int

    @property
    def prefill_s(self) -> float:
        return seconds(self.first_ns - self.start_ns)

    @property
    def decode_s(self) -> float:
        return seconds(self.end_ns - self.first_ns)


def with_split(trace: Trace, reckoning: Reckoning) -> Reckoning:
    """The figures with `calibrated_split` phases where they could not be measured, or not so surely."""
    energy, answer = reckoning.energy, reckoning.energy.answer
    start_ns, end_ns = answer_window(trace)
    first_ns = trace.tokens[0].t_ns if trace.tokens else start_ns
    if answer is None or energy.scope == MODELLED or not start_ns < first_ns < end_ns:
        return reckoning
    times = _Times(start_ns, first_ns, end_ns)
    split = _by_counters(trace, reckoning, times, answer) or _by_model(trace, reckoning, times, answer)
    measured_u, decode_u = (energy.phases[name].u for name in ("prefill", "decode"))
    if split is None or (measured_u is not None and decode_u is not None and measured_u <= split[0][1]):
        return reckoning
    (prefill_j, prefill_u_j), (decode_j, decode_u_j) = split
    phases = {
        "prefill": PhaseFigure(j=prefill_j, u=prefill_u_j, s=times.prefill_s, method="calibrated_split"),
        "decode": PhaseFigure(j=decode_j, u=decode_u_j, s=times.decode_s, method="calibrated_split"),
    }
    return replace(reckoning, energy=replace(energy, phases=energy.phases | phases))


Split = tuple[tuple[float, float], tuple[float, float]]
"""Joules and their uncertainty (k = 2) of prefill and of decode."""


def _by_counters(trace: Trace, reckoning: Reckoning, times: _Times, answer: Figure) -> Split | None:
    """As the calibrated line makes the whole's power of the counters', scaled to the answer."""
    by_channel = {one.channel: one for one in reckoning.seen}
    whole = {one.channel for one in reckoning.metered}
    for pair in pairs(tuple(by_channel)):
        if pair.same or set(pair.whole) != whole or trace.calibration is None:
            continue
        fit = fit_of(pair, trace.calibration.fits)
        shared = _share(fit, [by_channel[one] for one in pair.parts], times) if fit is not None else None
        if shared is not None:
            share, u = shared
            return (
                (share * answer.j, hypot(share * answer.u, u * answer.j)),
                ((1 - share) * answer.j, hypot((1 - share) * answer.u, u * answer.j)),
            )
    return None


def _share(fit: MetersFit, parts: Sequence[Metered], times: _Times) -> tuple[float, float] | None:
    """Which share of the answer the prefill has by the line, and its uncertainty (k = 2)."""
    bare = [replace(one, scale=replace(one.scale, slope_u=0.0, offset_u_w=0.0)) for one in parts]
    prefill = phase_figure(bare, (times.start_ns, times.first_ns), "measured")
    decode = phase_figure(bare, (times.first_ns, times.end_ns), "measured")
    if prefill.j is None or prefill.u is None or decode.j is None:
        return None
    read_s, write_s = times.prefill_s, times.decode_s
    whole_j = fit.rest_w * (read_s + write_s) + fit.slope * (prefill.j + decode.j)
    share = (fit.rest_w * read_s + fit.slope * prefill.j) / whole_j
    # what the line may be off by, as it moves the share; kinds of work differ between the phases
    moves_s = read_s - share * (read_s + write_s)
    read_j, write_j = (j - fit.low_w * s for j, s in ((prefill.j, read_s), (decode.j, write_s)))
    centred_j = (prefill.j - fit.centre_w * read_s) - share * (prefill.j + decode.j - fit.centre_w * (read_s + write_s))
    u_j = hypot(
        hypot(fit.u_centre_w, REST_U_RATIO * fit.rest_w) * moves_s,
        fit.u_slope * centred_j,
        WORK_U_RATIO * fit.slope * (1 - share) * read_j,
        WORK_U_RATIO * fit.slope * share * write_j,
        fit.slope * prefill.u,
    )
    return share, u_j / whole_j


def _by_model(trace: Trace, reckoning: Reckoning, times: _Times, answer: Figure) -> Split | None:
    """As this model's power above idle differs between reading and writing, on this node and at this scope."""
    active, powers = reckoning.energy.active, _powers(trace, reckoning.energy.scope)
    if active is None or powers is None:
        return None
    read_s, write_s = times.prefill_s, times.decode_s
    share = powers.ratio * read_s / (powers.ratio * read_s + write_s)
    u_share = share * (1 - share) * powers.u_ratio / powers.ratio
    idle_w = (answer.j - active.j) / (read_s + write_s)
    idle_u_w = 2 * sum(one.idle("active").j for one in reckoning.metered) / (read_s + write_s)
    # clocks and fans follow the work with some delay: the shorter phase has some of what was before it
    following_j = FOLLOWING_RATIO * active.j / (read_s + write_s) * TAIL_S * (1 - exp(-min(read_s, write_s) / TAIL_S))
    moves_j = hypot(
        idle_u_w * (read_s - share * (read_s + write_s)),
        active.j * u_share,
        WORK_U_RATIO * share * (1 - share) * active.j,
        following_j,
    )
    prefill_j = idle_w * read_s + share * active.j
    return (
        (prefill_j, hypot(share * answer.u, moves_j)),
        (answer.j - prefill_j, hypot((1 - share) * answer.u, moves_j)),
    )


def _powers(trace: Trace, scope: str | None) -> PhasePowers | None:
    if trace.calibration is None or trace.model is None:
        return None
    known = (one for one in trace.calibration.splits if (one.model, one.scope) == (trace.model.digest, scope))
    return next(known, None)
