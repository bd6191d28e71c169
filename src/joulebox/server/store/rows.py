"""Rows become nouns, and nouns become columns."""

from dataclasses import asdict
from typing import Any, Final

from pydantic import TypeAdapter

from joulebox.conversation import ToolCall
from joulebox.model import AttemptState, Counted, Job, JobState, Problem, Prompt
from joulebox.protocol import VERSION, LeaseRequest
from joulebox.server.control import Baseline, ControlRun, Subject
from joulebox.server.idle import NodeIdle
from joulebox.server.jobs import RANKS, Attempt, Drain, NodeRecord, Place, Plan, Record
from joulebox.server.store.steps import Row

_PROMPT: Final = TypeAdapter(Prompt)
_OFFER: Final = TypeAdapter(LeaseRequest)
_CALLS: Final = TypeAdapter(tuple[ToolCall, ...])
_PLAN: Final = TypeAdapter(Plan)
_COUNTED: Final = TypeAdapter(tuple[Counted, ...])
_OWN: Final = frozenset({"name", "seen", "replica", "drained", "drained_why", "forgotten"})
"""What the server itself notes of a node."""


def plan_column(plan: Plan | None) -> Any:
    """A plan as it is kept."""
    return _PLAN.dump_python(plan, mode="json") if plan is not None else None


def idle_columns(idle: NodeIdle) -> dict[str, Any]:
    """What a node drew between jobs, as it is kept."""
    return asdict(idle) | {"counted": _COUNTED.dump_python(idle.counted, mode="json")}


def prompt_of(row: Row) -> Prompt:
    """What was asked."""
    return _PROMPT.validate_python(row["prompt"])


def baseline_of(row: Row) -> Baseline:
    """The reference that a row holds."""
    subject = Subject(**row["subject"]) if row["subject"] else None
    return Baseline(**{name: row[name] for name in row if name != "subject"}, subject=subject)


def control_run_of(row: Row) -> ControlRun:
    """A control run."""
    return ControlRun(**{name: row[name] for name in row if name not in {"node", "baseline"}})


def error_columns(problem: Problem | None) -> dict[str, Any]:
    """What a job's row says of what went wrong."""
    return {"error_code": problem.code, "error_detail": problem.detail} if problem else {}


def record_of(row: Row) -> Record:
    """A job with what only the server needs."""
    error = Problem(code=row["error_code"], detail=row["error_detail"]) if row["error_code"] else None
    job = Job(
        id=row["id"],
        state=JobState(row["state"]),
        prompt=prompt_of(row),
        created=row["created"],
        available=row["available"],
        attempt=row["attempt"],
        node=row["node"],
        finalized=row["finalized"],
        answer=row["answer"],
        tool_calls=_CALLS.validate_python(row["tool_calls"] or ()),
        finish_reason=row["finish_reason"],
        receipt_id=row["receipt_id"],
        error=error,
    )
    names = ("number", "placement", "cancel", "purpose", "rank", "due", "owner", "shared", "traceparent")
    plan = _PLAN.validate_python(row["plan"]) if row["plan"] else None
    return Record(job=job, plan=plan, erased=row["erased"] is not None, **{name: row[name] for name in names})


def place_columns(place: Place) -> dict[str, Any]:
    """What a place changes of a job: urgent work is as work that somebody waits for."""
    values = {
        "placement": place.line,
        "available": place.start,
        "due": place.due,
        "plan": plan_column(place.plan),
    }
    return values | ({"rank": RANKS["interactive"]} if place.urgent else {})


def attempt_of(row: Row) -> Attempt:
    """One node's try at a job."""
    names = ("token", "job_id", "number", "node", "instance", "reason", "leased", "owner")
    values = {name: row[name] for name in names}
    problem = Problem(**row["problem"]) if row["problem"] else None
    return Attempt(**values, state=AttemptState(row["state"]), problem=problem)


def node_of(row: Row, own: int | None) -> NodeRecord:
    """A node as it last described itself; `own` is the number of the server that looks."""
    known = {name: row[name] for name in row if name not in _OWN}
    offer = _OFFER.validate_python(known | {"version": VERSION, "node": row["name"]})
    drain = Drain(at=row["drained"], why=row["drained_why"] or "") if row["drained"] else None
    return NodeRecord(offer=offer, seen=row["seen"], elsewhere=row["replica"] not in {None, own}, drain=drain)


def node_idle_of(row: Row) -> NodeIdle:
    """What a node drew between jobs."""
    counted = _COUNTED.validate_python(row["counted"])
    return NodeIdle(**{name: row[name] for name in row if name != "counted"}, counted=counted)
