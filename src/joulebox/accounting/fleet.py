"""The SCI of a service over a period (SCI for AI, Consumer): everything its machines drew and are made of, once. Pure.

What was drawn comes in `Piece`s, each of one node, zone and, where people asked for it, model. What machines did for
nobody in particular (waiting, control prompts, the server) is shared out by the time they worked: the reports of all
models, or of all zones, add up to that of the fleet.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import fsum, hypot
from typing import Final, Literal

from joulebox.accounting.carbon import embodied
from joulebox.accounting.figures import MODELLED, meter_scale, scope_name
from joulebox.accounting.intensity import SURE
from joulebox.accounting.power_model import profile_of
from joulebox.accounting.uncertainty import COVERAGE_FACTOR, added, combined
from joulebox.model import CarbonFactors, Counted, Embodied, Grams, Intensity, ReadingKind, UncertaintyPart
from joulebox.units import kwh_from_j

Method = Literal["measured", "modelled", "sourced", "simulated"]
Part = Literal["answer", "load", "around", "failed", "control", "idle", "server", "making", "making-control", "waiting"]
ORDER: Final[tuple[Part, ...]] = (
    "answer",
    "load",
    "around",
    "failed",
    "control",
    "idle",
    "server",
    "making",
    "making-control",
    "waiting",
)
"""The components, electricity first."""
EMBODIED: Final[tuple[Part, ...]] = ("making", "making-control", "waiting")
ASKED: Final[tuple[Part, ...]] = ("answer", "load", "around", "failed")
"""What was drawn for somebody's prompt."""
IDLE: Final[tuple[Part, ...]] = ("idle", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Joules with their expanded uncertainty (k = 2), and what they cover."""

    scope: str
    j: float
    u: float

    @property
    def method(self) -> Method:
        """Whether a meter or a model gave them."""
        return "modelled" if self.scope == MODELLED else "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the sum: what one node did for one purpose. `kwh` is `None` where it is no electricity."""

    part: Part
    method: Method
    node: str
    zone: str | None
    grams: Grams
    kwh: float | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How long a node worked for people's prompts at one model, in the period."""

    node: str
    zone: str | None
    model: str
    worked_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One line of the report."""

    part: Part
    method: Method
    grams: Grams
    kwh: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """C over R: `None` where nothing was counted."""

    per_answer: Grams | None
    per_token: Grams | None
    per_output_token: Grams | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The components, their sum, and the score."""

    components: tuple[Component, ...]
    total: Grams
    kwh: float
    score: Score
    waiting: Grams
    """What waiting for prompts emitted: idle electricity, and making the machines while they waited."""
    waiting_kwh: float


def fleet(
    pieces: Iterable[Piece],
    work: Sequence[Work],
    answers: int,
    tokens: tuple[int | None, int | None],
    *,
    zone: str | None = None,
    model: str | None = None,
) -> Fleet:
    """The report of a zone, of a model, of both or of everything. `tokens`: read and written, `None` where some answer
    does not say."""
    mine = [_shared(piece, work, zone, model) for piece in pieces]
    components = tuple(_components([piece for piece in mine if piece is not None]))
    total = summed(one.grams for one in components)
    waiting = [one for one in components if one.part in IDLE]
    read, written = tokens
    both = read + written if read is not None and written is not None else None
    return Fleet(
        components=components,
        total=total,
        kwh=fsum(one.kwh or 0.0 for one in components),
        score=Score(per_answer=per(total, answers), per_token=per(total, both), per_output_token=per(total, written)),
        waiting=summed(one.grams for one in waiting),
        waiting_kwh=fsum(one.kwh or 0.0 for one in waiting),
    )


def summed(grams: Iterable[Grams]) -> Grams:
    """Ranges add up as they are, wider than chance would have it: the same meters and factors err alike."""
    every = list(grams)
    return Grams(
        g=fsum(one.g for one in every), low=fsum(one.low for one in every), high=fsum(one.high for one in every)
    )


def per(total: Grams, units: int | None) -> Grams | None:
    """Sum of C by sum of R, never a mean of ratios; of nothing there is no score."""
    return Grams(g=total.g / units, low=total.low / units, high=total.high / units) if units else None


def _shared(piece: Piece, work: Sequence[Work], zone: str | None, model: str | None) -> Piece | None:
    """The piece as far as it belongs to the zone and model asked for; `None` where nothing of it does."""
    if zone is None and model is None:
        return piece
    if piece.part == "server":
        return _times(piece, _share(work, lambda one: zone in {None, one.zone} and model in {None, one.model}))
    if zone is not None and piece.zone != zone:
        return None
    if model is None:
        return piece
    if piece.part in ASKED:
        return piece if piece.model == model else None
    own = [one for one in work if one.node == piece.node] or work
    return _times(piece, _share(own, lambda one: one.model == model))


def _share(work: Sequence[Work], wanted: Callable[[Work], bool]) -> float:
    whole_s = fsum(one.worked_s for one in work)
    return fsum(one.worked_s for one in work if wanted(one)) / whole_s if whole_s else 0.0


def _times(piece: Piece, share: float) -> Piece | None:
    if not share:
        return None
    grams = Grams(g=piece.grams.g * share, low=piece.grams.low * share, high=piece.grams.high * share)
    return replace(piece, grams=grams, kwh=None if piece.kwh is None else piece.kwh * share)


def _components(pieces: Sequence[Piece]) -> Iterable[Component]:
    def key(piece: Piece) -> tuple[int, Method]:
        return ORDER.index(piece.part), piece.method

    for (number, method), group in groupby(sorted(pieces, key=key), key):
        of_it = list(group)
        kwh = None if ORDER[number] in EMBODIED else fsum(piece.kwh or 0.0 for piece in of_it)
        yield Component(part=ORDER[number], method=method, grams=summed(piece.grams for piece in of_it), kwh=kwh)


# --- what pieces are made of ------------------------------------------------------------------------------------------


def idle_energy(counted: Sequence[Counted], lasted_s: float, cores: int, memory_bytes: int) -> Drawn:
    """What a node drew between jobs, from what its meters counted, or by the power model from how busy it was."""
    if any(one.channel.kind is ReadingKind.BUSY_RATIO for one in counted):
        profile = profile_of(cores, memory_bytes)
        busy_s, edge_s = fsum(one.amount for one in counted), fsum(one.edge for one in counted)
        j = profile.idle_w * lasted_s + profile.busy_core_w * busy_s
        ticks_u = COVERAGE_FACTOR * profile.busy_core_w * edge_s
        u = hypot(profile.idle_u_w * lasted_s, profile.busy_core_u_w * busy_s, ticks_u)
        return Drawn(scope=MODELLED, j=j, u=u)
    groups = [_meter_parts(one, lasted_s) for one in counted]
    scope = scope_name(dict.fromkeys(one.channel.scope for one in counted))
    return Drawn(scope=scope, j=fsum(one.amount for one in counted), u=combined(added(groups)))


def _meter_parts(one: Counted, lasted_s: float) -> list[UncertaintyPart]:
    scale = meter_scale(one.channel)
    return [
        UncertaintyPart(source=scale.slope_source, j=abs(one.amount) * scale.slope_u / COVERAGE_FACTOR),
        UncertaintyPart(source=scale.offset_source, j=lasted_s * scale.offset_u_w / COVERAGE_FACTOR),
        UncertaintyPart(source="tick", j=one.edge),
    ]


def server_energy(cpu_s: float) -> Drawn:
    """What the server's processor time drew above its idle machine, by the power model; what that machine idles for it
    is not in it."""
    profile = profile_of(1, 0)
    return Drawn(
        scope=MODELLED, j=profile.busy_core_w * cpu_s, u=min(profile.busy_core_u_w, profile.busy_core_w) * cpu_s
    )


def electricity(drawn: Drawn, grid: Intensity, pue: float) -> tuple[float, Grams]:
    """Kilowatt hours (x PUE) and O of what was drawn under one intensity; the range joins both ranges."""
    kwh = kwh_from_j(max(drawn.j, 0.0)) * pue
    return kwh, Grams(
        g=kwh * grid.g_per_kwh,
        low=kwh_from_j(max(drawn.j - drawn.u, 0.0)) * pue * grid.low,
        high=kwh_from_j(max(drawn.j + drawn.u, 0.0)) * pue * grid.high,
    )


def mean_intensity(stretches: Sequence[tuple[float, Intensity]]) -> Intensity:
    """The mean over seconds of a machine that draws evenly; it names every source and the least sure quality."""
    whole_s = fsum(lasted_s for lasted_s, _ in stretches)
    if not whole_s:
        return stretches[0][1]

    def mean(of: Callable[[Intensity], float]) -> float:
        return fsum(lasted_s * of(one) for lasted_s, one in stretches) / whole_s

    return replace(
        max((one for _, one in stretches), key=lambda one: SURE.index(one.quality)),
        at=stretches[0][1].at,
        source="; ".join(dict.fromkeys(one.source for _, one in stretches)),
        g_per_kwh=mean(lambda one: one.g_per_kwh),
        low=mean(lambda one: one.low),
        high=mean(lambda one: one.high),
    )


def made(te: Embodied, lasted_s: float, factors: CarbonFactors) -> Grams:
    """M of a machine over some seconds of its life."""
    return embodied(lasted_s, replace(factors, embodied=te))


def making_method(te: Embodied) -> Method:
    """Whether a published footprint or a model of the parts says what making the machine emitted."""
    return "modelled" if te.parts else "sourced"
