"""What a period holds, gathered from the books: every job that ended in it, every stretch without one, every machine.

A job belongs to the period in which it came to its end, with all its attempts, so that neighbouring periods share
nothing. What no meter told of is time without energy, never zero joules. Of each job only sums are kept, and when its
node worked: sixteen bytes.
"""

import asyncio
import json
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol

from joulebox.accounting.attempts import Spent, left_alone, spent_before
from joulebox.accounting.fleet import Drawn, Part, Piece, Work, electricity, idle_energy, mean_intensity, summed
from joulebox.evidence import decode_trace
from joulebox.model import AttemptState, Intensity, JobState, Purpose
from joulebox.server.delivery import attempts_before, run_of
from joulebox.server.grid.live import Grid
from joulebox.server.idle import NodeIdle, ServerTime
from joulebox.server.jobs import FinishedJob, NodeRecord

_log = logging.getLogger(__name__)
JOBS_AT_ONCE: Final = 200
NOT_METERED: Final = "not metered: taken as 1.0"


@dataclass(frozen=True, slots=True)
class Period:
    """From one moment to another, by the calendar."""

    start: datetime
    until: datetime

    def clipped_s(self, start: datetime, until: datetime) -> float:
        """Seconds of a stretch that lie within."""
        return max((min(until, self.until) - max(start, self.start)).total_seconds(), 0.0)


Doing = Purpose | Literal["idle"] | None
"""What a node did: worked for a purpose, waited, or (`None`) worked at what counts in another period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """When a node did what."""

    node: str
    start: datetime
    until: datetime
    doing: Doing
    model: str = ""
    zone: str | None = None


@dataclass(slots=True)
class Used:
    """An intensity and the electricity it was applied to."""

    intensity: Intensity
    kwh: float = 0.0
    g: float = 0.0
    low: float = 0.0
    high: float = 0.0


@dataclass(slots=True)
class Answers:
    """How many answers, and the tokens they read and wrote: `None` where one does not say."""

    count: int = 0
    read: int | None = 0
    written: int | None = 0

    def add(self, count: int, read: int | None, written: int | None) -> None:
        """So many more."""
        self.count += count
        self.read = None if self.read is None or read is None else self.read + read
        self.written = None if self.written is None or written is None else self.written + written


@dataclass(slots=True)
class Gathered:
    """Everything of a period. `stretches` are seconds since its start, from and until in turn, by node and what it did;
    `worked_s` is of prompts that people asked, by node, zone and model."""

    period: Period
    pieces: dict[tuple[str | None, ...], Piece] = field(default_factory=dict)
    """Summed up: one for each part, method, node, zone and model."""
    stretches: "defaultdict[tuple[str, Doing], array[float]]" = field(
        default_factory=lambda: defaultdict(lambda: array("d"))
    )
    worked_s: defaultdict[tuple[str, str | None, str], float] = field(default_factory=lambda: defaultdict(float))
    zones: dict[str, str] = field(default_factory=dict)
    """Where nodes were by the first run that tells."""
    hosts: dict[str, str] = field(default_factory=dict)
    """The node on each machine that told of waiting."""
    server: list[ServerTime] = field(default_factory=list)
    answers: defaultdict[tuple[str | None, str], Answers] = field(default_factory=lambda: defaultdict(Answers))
    """To people, by zone and model."""
    control_runs: int = 0
    fruitless: Counter[str] = field(default_factory=Counter)
    """Prompts that ended without an answer, though a node had worked at them, by model."""
    no_energy: int = 0
    """Answers whose energy nobody knows."""
    no_evidence: int = 0
    """Attempts that left no evidence of what they drew."""
    simulated: set[str] = field(default_factory=set)
    scopes: dict[str, set[str]] = field(default_factory=dict)
    missing: dict[str, set[str]] = field(default_factory=dict)
    idle_w: dict[str, float] = field(default_factory=dict)
    used: dict[tuple[str, str, str], Used] = field(default_factory=dict)
    pues: dict[str, float] = field(default_factory=dict)

    def add(self, part: Part, drawn: Drawn, run: Run, grid: Intensity, pue: tuple[float, str]) -> None:
        """A piece of electricity."""
        kwh, grams = electricity(drawn, grid, pue[0])
        method = "simulated" if drawn.method == "measured" and run.node in self.simulated else drawn.method
        model = run.model if run.doing == "prompt" else None
        self.put(Piece(part=part, method=method, node=run.node, zone=run.zone, grams=grams, kwh=kwh, model=model))
        self.scopes.setdefault(run.node, set()).add(drawn.scope)
        self.pues[pue[1]] = pue[0]
        self.note(grid, kwh)

    def put(self, piece: Piece) -> None:
        """One more piece, summed up with those that differ in nothing but how much."""
        key = (piece.part, piece.method, piece.node, piece.zone, piece.model)
        if (held := self.pieces.get(key)) is not None:
            kwh = None if held.kwh is None or piece.kwh is None else held.kwh + piece.kwh
            piece = replace(held, grams=summed((held.grams, piece.grams)), kwh=kwh)
        self.pieces[key] = piece

    def ran(self, run: Run) -> None:
        """A node did something for a while."""
        begin_s, end_s = ((at - self.period.start).total_seconds() for at in (run.start, run.until))
        self.stretches[run.node, run.doing].extend((begin_s, end_s))
        if run.zone and run.doing != "idle":
            self.zones.setdefault(run.node, run.zone)
        if run.doing == "prompt":
            self.worked_s[run.node, run.zone, run.model] += self.period.clipped_s(run.start, run.until)

    def note(self, grid: Intensity, kwh: float) -> None:
        """Under this intensity so much was drawn."""
        used = self.used.setdefault((grid.zone, grid.source, grid.quality), Used(grid))
        used.kwh += kwh
        used.g += kwh * grid.g_per_kwh
        used.low += kwh * grid.low
        used.high += kwh * grid.high

    def work(self) -> list[Work]:
        """How long each node worked for people, by model."""
        return [
            Work(node=node, zone=zone, model=model, worked_s=worked_s)
            for (node, zone, model), worked_s in self.worked_s.items()
        ]


class Books(Protocol):
    """What this needs of the store."""

    async def finished_jobs(self, start: datetime, until: datetime, after: int, limit: int) -> Sequence[FinishedJob]:
        """Jobs that came to their end in a period, in the order of asking, from number `after` on."""

    async def evidence(self, job_id: str) -> Sequence[tuple[int, str, AttemptState, bytes | None]]:
        """All attempts at a job: number, node, how it ended, and its evidence."""

    async def under_way(self, start: datetime, until: datetime) -> Sequence[tuple[str, datetime, datetime]]:
        """When nodes worked in a period at what came to its end after it."""

    async def first_signs(self) -> Mapping[str, datetime]:
        """When each node first took a job or told of waiting."""

    async def node_idle(self, start: datetime, until: datetime) -> Sequence[NodeIdle]:
        """What nodes drew between jobs, in rows that touch the period."""

    async def server_time(self, start: datetime, until: datetime) -> Sequence[ServerTime]:
        """What servers used, in rows that touch the period."""


async def gather(books: Books, grid: Grid, period: Period) -> Gathered:
    """Everything of a period. Raises `JouleboxError("database")`."""
    found = Gathered(period)
    after = 0
    while jobs := await books.finished_jobs(period.start, period.until, after, JOBS_AT_ONCE):
        after = jobs[-1].number
        for job in jobs:
            await _job(found, books, grid, job)
    for node, start, until in await books.under_way(period.start, period.until):
        found.ran(Run(node=node, start=start, until=until, doing=None))
    found.server = list(await books.server_time(period.start, period.until))
    for stretch in await books.node_idle(period.start, period.until):
        await _idle(found, grid, stretch)
    return found


async def _job(found: Gathered, books: Books, grid: Grid, job: FinishedJob) -> None:
    answered = job.state == JobState.COMPLETED
    evidence = await books.evidence(job.id) if job.tries > 1 or (job.tries and not job.body) else ()
    earlier = [(number, blob) for number, _, state, blob in evidence if state is not AttemptState.DONE]
    known = 0
    for _, node, state, blob in evidence:
        if job.body is None or state is not AttemptState.DONE:
            known += await _alone(found, grid, job, (node, blob), "answer" if state is AttemptState.DONE else "failed")
    if job.body is not None:
        receipt = json.loads(job.body)
        scope = receipt["energy"]["scope"]
        if earlier:
            spent = await asyncio.to_thread(lambda: spent_before(attempts_before(earlier), scope))
        else:
            spent = spent_before((), scope)
        _receipt(found, job, receipt, spent)
    elif job.purpose == "prompt" and answered:
        found.no_energy += not known
        found.answers[None, job.model].add(1, None, None)
    elif job.purpose == "prompt" and job.tries:
        found.fruitless[job.model] += 1
    found.control_runs += answered and job.purpose == "control"


def _receipt(found: Gathered, job: FinishedJob, receipt: Mapping[str, Any], spent: Spent) -> None:
    """An answer's receipt without the failed attempts before it: those are told by their own evidence."""
    energy, usage, node = receipt["energy"], receipt["usage"], receipt["node"]
    until = datetime.fromisoformat(receipt["created"])
    lasted_s = receipt["sci"]["reserved"]["TiR_s"] - spent.reserved_s
    run = Run(
        node=node,
        start=until - timedelta(seconds=lasted_s),
        until=until,
        doing=job.purpose,
        model=job.model,
        zone=receipt["zone"],
    )
    found.ran(run)
    if receipt["simulated"]:
        found.simulated.add(node)
    found.missing.setdefault(node, set()).update(energy["missing"])
    if receipt["power"]["idle_w"] is not None:
        found.idle_w[node] = receipt["power"]["idle_w"]
    if job.purpose == "prompt":
        found.answers[receipt["zone"], job.model].add(1, usage["input_tokens"], usage["output_tokens"])
    if energy["full"] is None:
        found.no_energy += job.purpose == "prompt"
        return
    carbon = {"pue": 1.0, "pue_source": NOT_METERED} | receipt["carbon"]
    for part, drawn in parts_of(energy, spent, job.purpose):
        found.add(part, drawn, run, _grid_of(receipt), (carbon["pue"], carbon["pue_source"]))


def parts_of(energy: Mapping[str, Any], spent: Spent, purpose: Purpose) -> list[tuple[Part, Drawn]]:
    """What a run itself drew, in parts that add up to it; each has its share of the uncertainty."""
    whole_j, whole_u = max(energy["full"]["j"] - spent.j, 0.0), max(energy["full"]["u"] - spent.u, 0.0)
    load = energy["phases"].get("load") or {}
    wanted: list[tuple[Part, float]] = [("answer", energy["answer"]["j"]), ("load", load.get("j") or 0.0)]
    if purpose == "control":
        wanted = [("control", whole_j)]
    left_j, parts = whole_j, []
    for part, part_j in wanted:
        taken_j = min(max(part_j, 0.0), left_j)
        parts.append((part, taken_j))
        left_j -= taken_j
    parts.append(("around", left_j))
    return [
        (part, Drawn(scope=energy["scope"], j=j, u=whole_u * j / whole_j if whole_j else 0.0)) for part, j in parts if j
    ]


def _grid_of(receipt: Mapping[str, Any]) -> Intensity:
    """The intensity over the whole time the machine was reserved, with the range that the receipt names for the
    answer's."""
    named = dict(receipt["carbon"]["intensity"])
    mean, g = receipt["sci"]["reserved"]["I_g_per_kwh"], named["g_per_kwh"]
    if g > 0:
        named |= {"low": named["low"] * mean / g, "high": named["high"] * mean / g}
    return Intensity(**(named | {"g_per_kwh": mean, "slots": ()}))


async def _alone(found: Gathered, grid: Grid, job: FinishedJob, attempt: tuple[str, bytes | None], part: Part) -> bool:
    """An attempt without a receipt of its own; whether its evidence tells what it drew."""
    node, blob = attempt
    trace = await asyncio.to_thread(decode_trace, blob) if blob is not None else None
    told = await asyncio.to_thread(left_alone, trace) if trace is not None else None
    if trace is None or told is None:
        found.no_evidence += 1
        return False
    start, until = run_of(trace)
    run = Run(node=node, start=start, until=until, doing=job.purpose, model=job.model, zone=trace.zone)
    found.ran(run)
    if any(series.channel.simulated for series in trace.series):
        found.simulated.add(node)
    scope, j, u = told
    intensity, pue = await _conditions(grid, trace.zone, start, until)
    found.add("control" if job.purpose == "control" else part, Drawn(scope=scope, j=j, u=u), run, intensity, pue)
    return True


async def _idle(found: Gathered, grid: Grid, stretch: NodeIdle) -> None:
    """What a node drew between jobs, as far as it lies in the period."""
    lasted_s = (stretch.until - stretch.start).total_seconds()
    share = found.period.clipped_s(stretch.start, stretch.until) / lasted_s
    whole = idle_energy(stretch.counted, lasted_s, stretch.cores, stretch.memory_bytes)
    drawn = Drawn(scope=whole.scope, j=whole.j * share, u=whole.u * share)
    run = Run(node=stretch.node, start=stretch.start, until=stretch.until, doing="idle", zone=stretch.zone)
    found.ran(run)
    if stretch.host is not None:
        found.hosts[stretch.host] = stretch.node
    found.idle_w[stretch.node] = whole.j / lasted_s
    if any(one.channel.simulated for one in stretch.counted):
        found.simulated.add(stretch.node)
    intensity, pue = await _conditions(grid, stretch.zone, stretch.start, stretch.until)
    found.add("idle", drawn, run, intensity, pue)


async def _conditions(
    grid: Grid, zone: str | None, start: datetime, until: datetime
) -> tuple[Intensity, tuple[float, str]]:
    """The mean intensity of a stretch, and the building's PUE with its source."""
    stretch = Period(start, until)
    known = await grid.look_up(zone, start, until)
    pairs = [
        (stretch.clipped_s(datetime.fromisoformat(one.start), datetime.fromisoformat(one.until)), one.intensity)
        for one in known
    ]
    factors = grid.factors(zone, start, until)
    return mean_intensity(pairs), (factors.pue, factors.pue_source)


# --- time -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """How a node spent the seconds it was in service: for prompts, for control prompts, waiting as it told, at what
    counts in another period, and unknown."""

    node: str
    zone: str | None
    since: datetime
    service_s: float
    asked_s: float
    control_s: float
    idle_s: float
    elsewhere_s: float
    unknown_s: float


def node_times(found: Gathered, nodes: Sequence[NodeRecord], first: Mapping[str, datetime]) -> list[NodeTime]:
    """Every node in service: from its first sign of life until the end of the period, if it gave one in it."""
    seen = {node.offer.node: node for node in nodes}
    alive = {node for node, _ in found.stretches}
    alive |= {name for name, node in seen.items() if found.period.start <= node.seen}
    times = []
    for name in sorted(alive):
        begin = first.get(name, seen[name].seen if name in seen else found.period.until)
        since = max(begin, found.period.start)
        if since < found.period.until:
            times.append(_node_time(found, name, seen.get(name), Period(since, found.period.until)))
    return times


def _node_time(found: Gathered, name: str, node: NodeRecord | None, service: Period) -> NodeTime:
    begin_s, end_s = ((at - found.period.start).total_seconds() for at in (service.start, service.until))

    def spent_s(*doing: Doing) -> float:
        return _union_s(begin_s, end_s, [found.stretches[name, one] for one in doing if (name, one) in found.stretches])

    return NodeTime(
        node=name,
        zone=node.offer.zone if node is not None else found.zones.get(name),
        since=service.start,
        service_s=end_s - begin_s,
        asked_s=spent_s("prompt"),
        control_s=spent_s("control"),
        idle_s=spent_s("idle"),
        elsewhere_s=spent_s(None),
        unknown_s=max(end_s - begin_s - spent_s("prompt", "control", "idle", None), 0.0),
    )


def _union_s(begin_s: float, end_s: float, stretches: Collection[Sequence[float]]) -> float:
    """Seconds between two moments that lie in any of the stretches, each a flat row of from and until in turn."""
    total_s, at_s = 0.0, begin_s
    for start_s, until_s in sorted(pair for row in stretches for pair in zip(row[::2], row[1::2], strict=True)):
        first_s, last_s = max(start_s, at_s), min(until_s, end_s)
        total_s += max(last_s - first_s, 0.0)
        at_s = max(at_s, last_s)
    return total_s
