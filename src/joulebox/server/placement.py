"""Step 3: a node is chosen. Where and when is a prompt to run, and why: one function over what is known now. Pure.

What a token takes on a node is learned from past receipts and never guessed: a node without any is left out, and the
reason says so. Figures are compared only where they are of one kind: energies of one scope, intensities that count the
same. Everything is central figures; the receipt has the intervals.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Final, Literal

from joulebox.model import Quality, Receipt
from joulebox.server.jobs import FASTEST, NODE_PREFIX, ZONE_PREFIX, PastRun, Place, Plan

GREENEST: Final = "greenest"
SAME: Final = 0.02
"""Options whose grams differ by less are equally green: no meter and no forecast tells them apart. Then the sooner."""
ROOM: Final = 2.0
"""Work with a deadline begins so many times its usual duration before it at the latest."""
UNKNOWN_RUN: Final = timedelta(minutes=5)
"""How long an answer takes where nothing is known of it yet."""
SCOPES: Final = ("wall", "platform", "cpu+dram+gpu", "cpu+dram", "cpu", "modelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asks for: the policy in their words, the line that it allows at the widest, until when."""

    policy: str = FASTEST
    line: str = FASTEST
    deadline: datetime | None = None

    @property
    def planned(self) -> bool:
        """Whether anything is to be decided."""
        return self.policy == GREENEST or self.deadline is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What a grid is expected to emit for a while."""

    start: datetime
    until: datetime
    g_per_kwh: float
    factor: Literal["lifecycle", "direct"]
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a model takes on a node: medians of its past runs there, all of one scope, PUE included."""

    scope: str
    kwh_per_token: float
    s_per_token: float
    run_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A connected node that may take the prompt. `wait_s` until it would begin, `None` where nobody can tell."""

    node: str
    zone: str | None
    wait_s: float | None
    expected: Expected | None
    embodied_g_per_s: float
    slots: Sequence[Slot]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One way to run it: which node, from when, and the grams a token would cost (`None`: only the grid is known)."""

    option: Option
    at: datetime
    slot: Slot
    grams_per_token: float | None

    @property
    def cost(self) -> float:
        """What is compared. Among starts on one grid the intensity decides alone."""
        return self.slot.g_per_kwh if self.grams_per_token is None else self.grams_per_token


Booked = Mapping[tuple[str, datetime], int]
"""How many jobs are already to begin when, by line."""


def past_run(receipt: Receipt, charged_j: float | None = None) -> PastRun | None:
    """What a receipt, which cost its asker so much, tells of the next prompt like it; `None` where its figures are not
    to be used."""
    reserved, tokens = receipt.sci.reserved, receipt.usage.output_tokens
    if receipt.verdict == "invalid" or reserved.E_kwh is None or not tokens or receipt.energy.scope is None:
        return None
    return PastRun(
        scope=receipt.energy.scope,
        energy_kwh=reserved.E_kwh,
        reserved_s=reserved.TiR_s,
        output_tokens=tokens,
        charged_j=charged_j,
        answer_j=receipt.energy.answer.j if receipt.energy.answer is not None else None,
        answer_u=receipt.energy.answer.u if receipt.energy.answer is not None else None,
        grade=receipt.energy.answer.grade if receipt.energy.answer is not None else None,
        simulated=receipt.simulated,
    )


def expected_of(runs: Sequence[PastRun]) -> Expected | None:
    """What the runs tell, oldest first: those of the newest one's scope count."""
    if not runs:
        return None
    like = [run for run in runs if run.scope == runs[-1].scope]
    return Expected(
        scope=like[-1].scope,
        kwh_per_token=median(run.energy_kwh / run.output_tokens for run in like),
        s_per_token=median(run.reserved_s / run.output_tokens for run in like),
        run_s=median(run.reserved_s for run in like),
    )


def place(
    wish: Wish, options: Sequence[Option], asked: datetime, now: datetime, wait_max: timedelta, booked: Booked
) -> Place:
    """Where and when a prompt is to run that was asked then. `wait_max`: so long it may wait for a greener node."""
    plan = Plan(policy=wish.policy, line=wish.line, asked=asked, deadline=wish.deadline, reason="")
    if wish.deadline is not None and now >= wish.deadline - _room(options):
        return urgent(plan, f"its deadline {clock_time(wish.deadline, now)} is near: the first free node takes it", now)
    if not options:
        limit = asked + wait_max if wish.deadline is None else wish.deadline - _room(options)
        reason = "no node that may take it is connected: the first to come does"
        return _at_once(plan, reason, now, limit if limit > now else None)
    fastest = min(options, key=lambda one: (one.wait_s is None, one.wait_s or 0.0, one.node))
    plan = replace(plan, zone=fastest.zone)
    if wish.deadline is None:
        return _now(plan, options, fastest, now, asked + wait_max)
    return _later(plan, options, fastest, now, wish.deadline, booked)


def urgent(plan: Plan, reason: str, now: datetime) -> Place:
    """It has waited long enough: any node that it may run on takes it, as if somebody waited before the screen."""
    return Place(line=plan.line, start=now, due=None, urgent=True, plan=replace(plan, reason=reason))


def _at_once(plan: Plan, reason: str, now: datetime, due: datetime | None) -> Place:
    return Place(line=plan.line, start=now, due=due, plan=replace(plan, reason=reason))


def _now(plan: Plan, options: Sequence[Option], fastest: Option, now: datetime, limit: datetime) -> Place:
    """The node with the lowest O + M of those that are free soon enough."""
    soon = [one for one in options if one.wait_s is not None and now + timedelta(seconds=one.wait_s) <= limit]
    starts, unsaid = _comparable([start for one in soon if (start := _start(one, now)) is not None])
    known = [start for start in starts if start.grams_per_token is not None]
    if not soon:
        reason = f"no greener node was free within {in_words(limit - plan.asked)}: the first free one takes it"
        return _at_once(plan, reason, now, None)
    if not known:
        reason = "nothing is known yet of what it takes on any node: the first free one takes it"
        return _at_once(plan, reason, now, None)
    best = _best(known)
    left_out = [one.node for one in options if one.node not in {start.option.node for start in known}]
    reason = _compared(best, known, fastest) + (f" ({unsaid})" if unsaid else "")
    if left_out and not unsaid:
        reason += f" (not compared: {', '.join(sorted(left_out))}, of which too little is known or which is not free)"
    plan = replace(plan, reason=reason)
    return Place(line=NODE_PREFIX + best.option.node, start=now, due=limit, plan=plan)


def _later(
    plan: Plan, options: Sequence[Option], fastest: Option, now: datetime, deadline: datetime, booked: Booked
) -> Place:
    """The start with the lowest O + M that leaves room before the deadline."""
    latest = deadline - _room(options)
    plan = replace(plan, shifted=True)
    starts = [start for one in options for start in _starts(one, now, latest, booked)]
    starts, unsaid = _comparable(starts)
    known = [start for start in starts if start.grams_per_token is not None]
    chosen = known or [start for start in starts if start.option.zone == fastest.zone]
    if not chosen:
        return _at_once(plan, "every hour before its deadline is taken: it runs as soon as a node is free", now, latest)
    best = _best(chosen)
    there = f"the grid of {best.option.zone}" if best.option.zone else "the grid"
    if all(start.slot.until >= latest for start in chosen):
        reason = f"no forecast of {there} is known, so there is nothing to wait for"
        return _at_once(plan, reason, now, latest)
    if best.at <= now:
        reason = f"{there} is expected at {best.slot.g_per_kwh:.0f} g/kWh now, no greener before the deadline"
        line = NODE_PREFIX + best.option.node if known else plan.line
        return Place(line=line, start=now, due=latest, plan=replace(plan, reason=reason))
    when = clock_time(best.at, now)
    reason = f"deferred to {when}, when {there} is expected at {best.slot.g_per_kwh:.0f} g/kWh{_instead(fastest, now)}"
    plan = replace(plan, reason=reason + (f" ({unsaid})" if unsaid else ""))
    line = NODE_PREFIX + best.option.node if known else plan.line
    return Place(line=line, start=best.at, due=best.at, plan=plan)


def _room(options: Sequence[Option]) -> timedelta:
    """What is left before a deadline for the run itself."""
    runs_s = [one.expected.run_s for one in options if one.expected is not None]
    return ROOM * (timedelta(seconds=max(runs_s)) if runs_s else UNKNOWN_RUN)


def _start(option: Option, at: datetime) -> Start | None:
    """A run on this node that begins when it is free after `at`."""
    begin = at + timedelta(seconds=option.wait_s or 0.0)
    slot = next((slot for slot in option.slots if slot.start <= begin < slot.until), None)
    return _costed(option, begin, slot) if slot is not None else None


def _starts(option: Option, now: datetime, latest: datetime, booked: Booked) -> list[Start]:
    """One start for each stretch of the forecast that has room for one more run."""
    run = timedelta(seconds=option.expected.run_s) if option.expected is not None else UNKNOWN_RUN
    free = now + timedelta(seconds=option.wait_s or 0.0)
    lines = (NODE_PREFIX + option.node, f"{ZONE_PREFIX}{option.zone}", FASTEST)
    found = []
    for slot in option.slots:
        before = sum(booked.get((line, slot.start), 0) for line in lines)
        begin = max(slot.start, now)
        until = max(begin, free) + before * run
        if slot.until > now and until <= latest and (until + run <= slot.until or (not before and until == begin)):
            found.append(_costed(option, begin, slot))
    return found


def _costed(option: Option, at: datetime, slot: Slot) -> Start:
    known = option.expected
    grams = None
    if known is not None:
        grams = known.kwh_per_token * slot.g_per_kwh + known.s_per_token * option.embodied_g_per_s
    return Start(option=option, at=at, slot=slot, grams_per_token=grams)


def _comparable(starts: Sequence[Start]) -> tuple[list[Start], str]:
    """Starts whose figures are of one kind, and what had to be left out: intensities that count the same things;
    energies of one scope, that of most nodes, of the widest where as many have another."""
    factors = Counter(start.slot.factor for start in starts)
    if len(factors) > 1:
        starts = [start for start in starts if start.slot.factor == "lifecycle"]
    scopes = {start.option.node: start.option.expected.scope for start in starts if start.option.expected is not None}
    if len(set(scopes.values())) > 1:
        counts = Counter(scopes.values())
        chosen = min(counts, key=lambda scope: (-counts[scope], _width(scope)))
        others = sorted(node for node, scope in scopes.items() if scope != chosen)
        left = [start for start in starts if scopes.get(start.option.node) in {None, chosen}]
        return left, f"not compared: {', '.join(others)}, metered otherwise"
    if len(factors) > 1:
        return list(starts), "not compared: zones whose figures count direct emissions only"
    return list(starts), ""


def _width(scope: str) -> int:
    return SCOPES.index(scope) if scope in SCOPES else len(SCOPES)


def _best(starts: Collection[Start]) -> Start:
    """The greenest; of equally green ones the soonest."""
    least = min(start.cost for start in starts)
    near = [start for start in starts if start.cost <= least * (1 + SAME)]
    return min(near, key=lambda start: (start.at, start.option.wait_s or 0.0, start.cost, start.option.node))


def _compared(best: Start, known: Sequence[Start], fastest: Option) -> str:
    cost = best.cost * 1e3
    text = f"{best.option.node} is expected to emit the least: {cost:.2g} mg CO2e a token"
    other = next((start for start in known if start.option.node == fastest.node), None)
    if other is None or other.option.node == best.option.node:
        return text + (", and is free first" if best.option.node == fastest.node else "")
    return f"{text}, {100 * (1 - best.cost / other.cost):.0f} % less than {fastest.node}, which is free sooner"


def _instead(fastest: Option, now: datetime) -> str:
    slot = next((slot for slot in fastest.slots if slot.start <= now < slot.until), None)
    return f" instead of {slot.g_per_kwh:.0f} now" if slot is not None else ""


def clock_time(at: datetime, now: datetime) -> str:
    """A moment for people: the hour, and the day where it is not today."""
    return f"{at:%H:%M} UTC" if at.date() == now.date() else f"{at:%H:%M} UTC on {at.day} {at:%b}"


def in_words(span: timedelta) -> str:
    """A stretch of time for people."""
    minutes = round(span.total_seconds() / 60)
    if span.total_seconds() < 90:
        return f"{span.total_seconds():.0f} seconds"
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
