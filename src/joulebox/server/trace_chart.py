"""The power of a run as a drawing: bands by phase, words under the curve, any stretch of it. Pure: evidence to paths.

What is drawn is the mean power of each stretch, so that the area is the energy; nothing is smoothed, and a meter that
looks once a second makes steps of a second.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from joulebox.accounting.figures import MODELLED, Metered, first_token_ns, reckon
from joulebox.evidence import decode_trace
from joulebox.metering import Curve
from joulebox.model import Trace
from joulebox.units import nanoseconds, seconds

WIDE: Final = 600.0
HIGH: Final = 160.0
STRETCHES_MAX: Final = 300
TOKENS_MAX: Final = 400
SHORTEST_S: Final = 0.001
BEFORE_S: Final = 1.0
"""So much of the machine's idling is shown before it was kept for the prompt."""
Across = Callable[[int], float]
Up = Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A phase in seconds from the request on, and its part of the curve."""

    phase: str
    start_s: float
    end_s: float
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceChart:
    """A drawing of `start_s` to `end_s`, counted from the request. `tokens` are
    marks at the moments when pieces of the answer came. `joules` is the area shown."""

    scope: str
    start_s: float
    end_s: float
    top_w: float
    joules: float
    bands: tuple[Band, ...]
    tokens: str
    idle_y: float | None


def chart_of(blob: bytes, t0_s: float | None = None, t1_s: float | None = None) -> TraceChart | None:
    """The drawing of a trace from lease to release, or from `t0_s` to `t1_s`; `None` where no power is known or nothing
    is in view.

    Raises `JouleboxError("bad_evidence")`.
    """
    trace = decode_trace(blob)
    reckoning = reckon(trace)
    answer = trace.span("answer")
    if not reckoning.metered or answer is None:
        return None
    first_ns = max(one.curve.t_ns[0] for one in reckoning.metered)
    last_ns = min(one.curve.t_ns[-1] for one in reckoning.metered)
    zero_ns = answer.start_ns
    kept_ns = min(trace.leased_ns, zero_ns) - nanoseconds(BEFORE_S)
    start_ns = max(first_ns, kept_ns if t0_s is None else zero_ns + nanoseconds(t0_s))
    end_ns = last_ns if t1_s is None else min(last_ns, zero_ns + nanoseconds(t1_s))
    if end_ns - start_ns < nanoseconds(SHORTEST_S):
        return None
    phases = [one for one in _phases(trace, first_ns, last_ns) if one[1] < end_ns and one[2] > start_ns]
    cuts = _cuts(reckoning.metered, start_ns, end_ns, [edge for _, *edges in phases for edge in edges])
    powers = [_mean_w(reckoning.metered, *pair) for pair in pairwise(cuts)]
    idle_w = reckoning.power.idle_w
    top_w = max([*powers, idle_w or 0.0]) or 1.0

    def across(t_ns: int) -> float:
        return round(WIDE * (t_ns - start_ns) / (end_ns - start_ns), 2)

    def up(watts: float) -> float:
        return round(HIGH - (HIGH - 8) * max(watts, 0.0) / top_w, 1)

    return TraceChart(
        scope=MODELLED if reckoning.energy.scope == MODELLED else str(reckoning.energy.scope),
        start_s=seconds(start_ns - zero_ns),
        end_s=seconds(end_ns - zero_ns),
        top_w=top_w,
        joules=sum(watts * seconds(b - a) for watts, (a, b) in zip(powers, pairwise(cuts), strict=True)),
        bands=tuple(
            Band(
                phase=phase,
                start_s=seconds(from_ns - zero_ns),
                end_s=seconds(until_ns - zero_ns),
                path=_steps(cuts, powers, max(from_ns, start_ns), min(until_ns, end_ns), (across, up)),
            )
            for phase, from_ns, until_ns in phases
        ),
        tokens=_marks(trace, start_ns, end_ns, across),
        idle_y=up(idle_w) if idle_w is not None else None,
    )


def _phases(trace: Trace, first_ns: int, last_ns: int) -> Iterator[tuple[str, int, int]]:
    """All there is, cut into phases: what is none of the known ones is `idle`."""
    answer = trace.span("answer")
    assert answer is not None
    word_ns = first_token_ns(trace) or answer.end_ns
    load, settle, post = (trace.span(name) for name in ("load", "settle", "post"))
    known = [("load", load.start_ns, load.end_ns)] if load else []
    known += [("settle", settle.start_ns, settle.end_ns)] if settle else []
    known += [("prefill", answer.start_ns, word_ns), ("decode", word_ns, answer.end_ns)]
    known += [("tail", post.start_ns, post.end_ns)] if post else [("tail", answer.end_ns, last_ns)]
    at_ns = first_ns
    for phase, from_ns, until_ns in sorted(known, key=lambda one: one[1]):
        start_ns, end_ns = max(from_ns, at_ns), min(until_ns, last_ns)
        if start_ns > at_ns:
            yield "idle", at_ns, min(start_ns, last_ns)
        if end_ns > start_ns:
            yield phase, start_ns, end_ns
            at_ns = end_ns
    if last_ns > at_ns:
        yield "idle", at_ns, last_ns


def _cuts(metered: Sequence[Metered], start_ns: int, end_ns: int, edges: Sequence[int]) -> list[int]:
    """Where stretches begin and end: at readings of the slowest meter, no more than can be seen, and at phases."""
    slowest = max((one.curve for one in metered), key=_apart_ns)
    times = slowest.times(start_ns, end_ns)
    every = max(1, -(-len(times) // STRETCHES_MAX))
    inside = [edge for edge in edges if start_ns < edge < end_ns]
    return sorted({start_ns, *times[::every], *inside, end_ns})


def _apart_ns(curve: Curve) -> float:
    return median([after - before for before, after in pairwise(curve.t_ns)] or [0])


def _mean_w(metered: Sequence[Metered], start_ns: int, end_ns: int) -> float:
    return sum(one.scale.offset_w + one.scale.slope * one.curve.rate(start_ns, end_ns) for one in metered)


def _steps(cuts: Sequence[int], powers: Sequence[float], start_ns: int, end_ns: int, scales: tuple[Across, Up]) -> str:
    """A phase's part of the curve as an area down to zero."""
    across, up = scales
    first, last = bisect_left(cuts, start_ns), bisect_left(cuts, end_ns)
    body = "".join(f"V{up(powers[n]):g}H{across(cuts[n + 1]):g}" for n in range(first, last))
    return f"M{across(start_ns):g} {HIGH:g}{body}V{HIGH:g}Z"


def _marks(trace: Trace, start_ns: int, end_ns: int, across: Across) -> str:
    """A mark for each piece of the answer, each place once."""
    places = dict.fromkeys(round(across(one.t_ns)) for one in trace.tokens if start_ns <= one.t_ns <= end_ns)
    every = max(1, -(-len(places) // TOKENS_MAX))
    return "".join(f"M{x} 0v8" for x in list(places)[::every])
