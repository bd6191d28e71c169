"""The control prompt: the same model, prompt and seed from time to time on each metered node, against a reference that
stays. When is it due, does a run count, has the node drifted? Pure.

The reference is mean and spread of the first runs that count, and is never moved by later ones: a slow drift must not
take it along. It ends only with an explicit, dated act (`joulebox control rebaseline`), or when what is compared is
another thing: another model file, another engine, other meters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Final

from joulebox.metering import POWER_KINDS
from joulebox.model import Message, ModelFile, NodeControl, Prompt
from joulebox.protocol import LeaseRequest
from joulebox.statistics import ALLOWANCE, DECISION, REFERENCE_RUNS, Cusum, Reference, reference_of

QUESTION: Final = "Describe a day at a small harbour: the boats, the weather, the people and what they trade."
MAX_TOKENS: Final = 64
IDLE_S: Final = 300.0
"""A node runs it only when nobody has asked for anything for so long."""
LEARNING_S: Final = 60 * 60.0
"""So far apart at most are the runs that make the reference: a day of them holds a day's warmth and cold."""
SHOWN: Final = 30
REASON: Final = "the control prompt of this node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is compared. Runs of another subject tell nothing of a drift."""

    model: str
    digest: str
    engine: str
    scope: str
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A reference from `at` on, made because `why`; without a subject before its first run, without figures before
    the last run it is made of."""

    number: int | None = None
    node: str
    at: datetime
    why: str
    subject: Subject | None = None
    mean_j: float | None = None
    spread_j: float | None = None

    @property
    def reference(self) -> Reference | None:
        """Mean and spread, once they are fixed."""
        if self.mean_j is None or self.spread_j is None:
            return None
        return Reference(mean=self.mean_j, spread=self.spread_j)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRun:
    """One run of the control prompt. `note` says why it does not count; `high` and `low` are the sums after it, `None`
    while the reference is made."""

    job_id: str
    receipt_id: str | None
    at: datetime
    answer_j: float | None
    u_j: float | None
    temperature_c: float | None = None
    note: str | None = None
    high: float | None = None
    low: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """What is kept of a node: the baseline in force with its newest runs, oldest first; when the control prompt was
    last asked, and how many prompts the node has answered since."""

    baseline: Baseline | None = None
    runs: tuple[ControlRun, ...] = ()
    asked: datetime | None = None
    prompts_since: int = 0

    @property
    def counted(self) -> list[ControlRun]:
        """The runs that count."""
        return [run for run in self.runs if run.note is None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a run adds to the book: itself, and the baseline after it (a new one where it has no number)."""

    baseline: Baseline | None
    run: ControlRun


def metered(offer: LeaseRequest) -> bool:
    """Whether the node can drift at all: what is modelled or not measured cannot."""
    return any(channel.kind in POWER_KINDS for channel in offer.channels)


def model_for(offer: LeaseRequest, book: Book) -> ModelFile | None:
    """The model of the baseline while the node has it, else its smallest."""
    subject = book.baseline.subject if book.baseline else None
    same = (one for one in offer.models if subject and (one.id, one.digest) == (subject.model, subject.digest))
    return next(same, min(offer.models, key=_smallest, default=None))


def _smallest(model: ModelFile) -> tuple[bool, int, str]:
    """The least first; of those whose size nobody tells, by name, after all others."""
    return model.size_bytes is None, model.size_bytes or 0, model.id


def prompt_for(model: ModelFile) -> Prompt:
    """The control prompt."""
    question = Message(role="user", content=QUESTION)
    return Prompt(model=model.id, messages=(question,), max_tokens=MAX_TOKENS, mode="quiet")


def is_due(book: Book, joined: datetime, now: datetime, every_s: float, prompts: int) -> bool:
    """Whether the next run is due: after `every_s` or `prompts`, more often while the reference is made. A node that
    has just come for the first time is left alone for a while."""
    if not every_s:
        return False
    learning = book.baseline is None or book.baseline.reference is None
    every = timedelta(seconds=min(every_s, LEARNING_S) if learning else every_s)
    return now - (book.asked or joined) >= every or bool(prompts and book.asked and book.prompts_since >= prompts)


def entry(book: Book, job_id: str, node: str, receipt: Mapping[str, Any] | None, now: datetime) -> Entry:
    """What a finished run adds to the book."""
    run = _run(job_id, receipt, now)
    if receipt is None or run.answer_j is None or run.note is not None:
        return Entry(baseline=book.baseline, run=run)
    subject, baseline = _subject(receipt), book.baseline
    before = baseline.subject if baseline else None
    if baseline is None:
        baseline = Baseline(node=node, at=now, why="the first control run", subject=subject)
    elif before is None:
        baseline = replace(baseline, subject=subject)
    elif why := _another(before, subject):
        baseline, book = Baseline(node=node, at=now, why=why, subject=subject), Book()
    elif subject.output_tokens != before.output_tokens:
        told = f"its answer had {subject.output_tokens} tokens, not {before.output_tokens}"
        return Entry(baseline=baseline, run=replace(run, note=told))
    return _added(baseline, book.counted, run, run.answer_j)


def _added(baseline: Baseline, counted: Sequence[ControlRun], run: ControlRun, answer_j: float) -> Entry:
    """A run that counts, after those that do."""
    if (reference := baseline.reference) is not None:
        before = Cusum(counted[-1].high or 0.0, counted[-1].low or 0.0) if counted else Cusum()
        sums = before.then(answer_j, reference)
        return Entry(baseline=baseline, run=replace(run, high=sums.high, low=sums.low))
    values = [one.answer_j for one in counted if one.answer_j is not None] + [answer_j]
    if len(values) < REFERENCE_RUNS:
        return Entry(baseline=baseline, run=run)
    made = reference_of(values)
    fixed = replace(baseline, mean_j=made.mean, spread_j=made.spread)
    return Entry(baseline=fixed, run=replace(run, high=0.0, low=0.0))


def control_of(book: Book) -> NodeControl | None:
    """Where a node stands; `None` where its control prompt never ran."""
    baseline, counted = book.baseline, book.counted
    if baseline is None:
        return None
    since, reference = baseline.at.isoformat(timespec="seconds"), baseline.reference
    if reference is None or not counted:
        return NodeControl(state="learning", since=since, runs=len(counted), off_ratio=None)
    last = counted[-1]
    drifted = Cusum(last.high or 0.0, last.low or 0.0).drifted
    off_ratio = _off_ratio(counted, reference)
    return NodeControl(state="drifted" if drifted else "steady", since=since, runs=len(counted), off_ratio=off_ratio)


def words(control: NodeControl) -> str:
    """Where a node stands, in a sentence for people."""
    if control.state == "learning":
        return f"Control prompt: {control.runs} of the {REFERENCE_RUNS} runs that its reference needs."
    off = f"{100 * abs(control.off_ratio or 0.0):.1f} % {'above' if (control.off_ratio or 0.0) > 0 else 'below'}"
    if control.state == "drifted":
        return f"Drifted: its control prompt takes energy {off} the reference of {control.since[:10]}."
    return f"Control prompt: steady since {control.since[:10]}, now {off} its reference."


def shown(book: Book) -> dict[str, Any]:
    """The book as people get it: where the node stands, its reference, the newest runs first."""
    baseline, stands = book.baseline, control_of(book)
    return {
        "state": stands.state if stands else "waiting",
        "sentence": words(stands) if stands else "Control prompt: has not run yet.",
        "off_ratio": stands.off_ratio if stands else None,
        "asked": book.asked.isoformat(timespec="seconds") if book.asked else None,
        "limit": DECISION,
        "allowance": ALLOWANCE,
        "reference": None
        if baseline is None
        else {
            "at": baseline.at.isoformat(timespec="seconds"),
            "why": baseline.why,
            "mean_j": baseline.mean_j,
            "spread_j": baseline.spread_j,
            "runs": REFERENCE_RUNS,
            "subject": asdict(baseline.subject) if baseline.subject else None,
        },
        "runs": [asdict(run) | {"at": run.at.isoformat(timespec="seconds")} for run in reversed(book.runs)][:SHOWN],
    }


def _another(before: Subject, now: Subject) -> str | None:
    """Why runs of these two cannot be compared, if they cannot."""
    if (before.model, before.digest) != (now.model, now.digest):
        return "the model is another"
    if before.engine != now.engine:
        return "the engine is another"
    return "the meters are others" if before.scope != now.scope else None


def _off_ratio(counted: Sequence[ControlRun], reference: Reference) -> float:
    """How far the runs lie from the reference since the larger sum began to grow: the usual estimate of the shift."""
    last = counted[-1]
    upwards = (last.high or 0.0) >= (last.low or 0.0)
    grew = len(list(takewhile(lambda run: run.high if upwards else run.low, reversed(counted))))
    growing = [run.answer_j or 0.0 for run in counted[-max(grew, 1) :]]
    return sum(growing) / len(growing) / reference.mean - 1


def _run(job_id: str, receipt: Mapping[str, Any] | None, now: datetime) -> ControlRun:
    if receipt is None:
        return ControlRun(
            job_id=job_id, receipt_id=None, at=now, answer_j=None, u_j=None, note="no receipt could be made of it"
        )
    answer = receipt["energy"]["answer"]
    note = None
    if answer is None:
        note = "its energy was not measured"
    elif receipt["verdict"] == "invalid":
        note = "its receipt is invalid"
    elif receipt["energy"]["scope"] == "modelled":
        note = "its energy is modelled"
    warmth = receipt["temperature"]
    return ControlRun(
        job_id=job_id,
        receipt_id=receipt["id"],
        at=now,
        answer_j=answer["j"] if answer else None,
        u_j=answer["u"] if answer else None,
        temperature_c=warmth[0]["start_c"] if warmth else None,
        note=note,
    )


def _subject(receipt: Mapping[str, Any]) -> Subject:
    model, engine = receipt["model"], receipt["engine"]
    return Subject(
        model=model["name"],
        digest=model["digest"],
        engine=f"{engine['name']} {engine['version']}",
        scope=receipt["energy"]["scope"],
        output_tokens=receipt["usage"]["output_tokens"] or 0,
    )
