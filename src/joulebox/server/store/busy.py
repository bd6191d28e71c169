"""What every prompt costs the database, as steps: asked, looked up, claimed, ended, kept with its evidence.

Each function is one transaction of the `Queue` port; `Store` has it carried out and tells the others.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Table, bindparam, insert

from joulebox.model import AttemptState, JobState
from joulebox.plain import plain
from joulebox.protocol import LeaseRequest
from joulebox.server.control import Baseline, Entry
from joulebox.server.idle import NodeIdle, ServerTime, continued, entered
from joulebox.server.jobs import (
    RECENT,
    Attempt,
    Claim,
    Delivery,
    Ending,
    Reach,
    Record,
    Replay,
    StoredReceipt,
    after,
    new_token,
    reach_of,
)
from joulebox.server.store import queries, seeing_books
from joulebox.server.store.rows import error_columns, idle_columns, node_idle_of, plan_column, record_of
from joulebox.server.store.steps import Prepared, Row, Steps, done, first
from joulebox.server.store.tables import (
    attempts,
    baselines,
    control_runs,
    node_idle,
    past_runs,
    receipts,
    rechecks,
    server_time,
    traces,
)
from joulebox.server.tallies import Tally, of_attempt, of_idle, of_prompt


def _named(name: str) -> Any:
    return bindparam(name)


def _columns(table: Table, *without: str) -> dict[str, Any]:
    return {column.name: bindparam(column.name) for column in table.c if column.name not in without}


def _into(table: Table, *without: str) -> Prepared:
    return Prepared(insert(table).values(_columns(table, *without)))


_ASKED: Final = (
    "id",
    "state",
    "model",
    "placement",
    "prompt",
    "created",
    "available",
    "attempt",
    "cancel",
    "idempotency_key",
    "purpose",
    "rank",
    "asker",
    "owner",
    "plan",
    "due",
    "traceparent",
)


def _add_job(turn: Any) -> Prepared:
    values = {name: bindparam(name) for name in _ASKED} | {"turn": turn}
    return Prepared(lambda dialect: queries.add_job(dialect, values))


_ADD_JOB: Final = {True: _add_job(queries.outstanding(_named("of_asker")).scalar_subquery()), False: _add_job(0)}
"""Whether it is known who asks: as many of their prompts as wait make the turn."""
_JOB: Final = Prepared(queries.job(_named("job_id")))
_JOB_BY_KEY: Final = Prepared(queries.job_by_key(_named("key")))
_BEFORE: Final = Prepared(queries.before([_named("job_id")]))
_ATTEMPT: Final = Prepared(queries.attempt(_named("of_token")))
_RECEIPT: Final = Prepared(queries.receipt(_named("receipt_id")))
_WORKING: Final = Prepared(queries.working(_named("own")))
_RUNNING_ON: Final = Prepared(queries.running_on(_named("on_node")))
_REPLAY: Final = Prepared(queries.replay(_named("of_job")))
_CANCEL: Final = {
    start: Prepared(
        queries.move_job(_named("job_id"), start, state=JobState.CANCELLED, finalized=_named("finalized"), cancel=True)
    )
    for start in (JobState.AVAILABLE, JobState.DEFERRED)
}
_MARK_CANCEL: Final = Prepared(queries.mark_cancel(_named("job_id")))
_ADD_ATTEMPT: Final = _into(attempts, "finished", "problem")
_COUNTS: Final = Prepared(queries.attempt_counts(_named("of_job")))
_ADD_TRACE: Final = _into(traces)
_ADD_RECEIPT: Final = _into(receipts)
_ADD_RECHECK: Final = _into(rechecks)
_PAST_RUNS: Final = Prepared(queries.past_runs_of(_named("of_model"), _named("on_node")))
_SAVE_PAST_RUNS: Final = Prepared(lambda dialect: queries.save_past_runs(dialect, _columns(past_runs)))
_ADD_BASELINE: Final = Prepared(insert(baselines).values(_columns(baselines, "number")).returning(baselines.c.number))
_LEARNT: Final = {name: _named(name) for name in ("subject", "mean_j", "spread_j")}
_FIX_BASELINE: Final = Prepared(queries.fix_baseline(_named("of_baseline"), **_LEARNT))
_ADD_CONTROL_RUN: Final = _into(control_runs)
_NEWEST_IDLE: Final = Prepared(queries.newest_idle(_named("on_node")))
_SAVE_IDLE: Final = Prepared(lambda dialect: queries.save_idle(dialect, _columns(node_idle)))
_NEWEST_SERVER_TIME: Final = Prepared(queries.newest_server_time(_named("of_instance")))
_SAVE_SERVER_TIME: Final = Prepared(lambda dialect: queries.save_server_time(dialect, _columns(server_time)))
_COMPLETED: Final = (
    "finalized",
    "answer",
    "tool_calls",
    "finish_reason",
    "chunks",
    "answer_seq",
    "receipt_id",
    "charged_j",
    "error_code",
    "error_detail",
)


@cache
def _next(models: int, lines: int, *, loaded: bool, longest: bool) -> tuple[Prepared, Prepared]:
    """The look for a job, and the claim of it, for a node that serves so many models and lines."""
    number = queries.next_job(
        [_named(f"model_{place}") for place in range(models)],
        [_named(f"line_{place}") for place in range(lines)],
        _named("loaded") if loaded else None,
        longest=longest,
    )
    return Prepared(number), Prepared(queries.take_job(number, _named("on_node")))


@cache
def _close(state: AttemptState, *, own: bool) -> Prepared:
    closed = queries.close_attempt(
        _named("of_token"), state=state, finished=_named("finished"), problem=_named("problem")
    )
    return Prepared(closed.where(attempts.c.owner == bindparam("of_owner")) if own else closed)


@cache
def _move(state: JobState, *names: str, **fixed: Any) -> Prepared:
    """A running job comes to another state, with these columns."""
    values = {name: _named(name) for name in names} | fixed
    return Prepared(queries.move_job(_named("job_id"), JobState.RUNNING, state=state, **values))


def _one(row: Row | None) -> Row:
    assert row is not None
    return row


# --- asked and looked up ----------------------------------------------------------------------------------------------


def enqueue(values: dict[str, Any]) -> Steps[Record | None]:
    """A new job; `None` where one was asked with the same idempotency key."""
    asker = values["asker"]
    given = {"plan": None, "due": None, "traceparent": None, "of_asker": asker} | values
    row = yield from first(_ADD_JOB[asker is not None], **given)
    return record_of(row) if row else None


def by_key(key: str) -> Steps[Record | None]:
    """The job that was asked with this idempotency key."""
    row = yield from first(_JOB_BY_KEY, key=key)
    return record_of(row) if row else None


def record(job_id: str) -> Steps[Record | None]:
    """One job."""
    row = yield from first(_JOB, job_id=job_id)
    return record_of(row) if row else None


def before(job_id: str) -> Steps[Mapping[tuple[str, str], int]]:
    """How many prompts of people come before a waiting job, by what they wait for."""
    rows = yield _BEFORE, {"job_id": job_id}
    return {(row["model"], row["placement"]): int(row["count"]) for row in rows}


def attempt(token: str) -> Steps[Row | None]:
    """One attempt by its token."""
    return (yield from first(_ATTEMPT, of_token=token))


def receipt(receipt_id: str) -> Steps[bytes | None]:
    """The newest revision of a receipt."""
    row = yield from first(_RECEIPT, receipt_id=receipt_id)
    return bytes(row["body"]) if row else None


def replay(job_id: str) -> Steps[Replay | None]:
    """The stored pieces of a completed job's answer."""
    row = yield from first(_REPLAY, of_job=job_id)
    if row is None:
        return None
    chunks = tuple((int(seq), str(text)) for seq, text in row["chunks"] or ())
    return Replay(attempt=row["number"], chunks=chunks, answer_seq=row["answer_seq"])


def working(own: int | None) -> Steps[Mapping[str, datetime]]:
    """The nodes that work for other servers than `own`, each since when."""
    return {row["node"]: row["leased"] for row in (yield _WORKING, {"own": own})}


def running_on(node: str) -> Steps[Sequence[str]]:
    """What runs on a node: at most one."""
    return [row["token"] for row in (yield _RUNNING_ON, {"on_node": node})]


# --- claimed ----------------------------------------------------------------------------------------------------------


def _wanted(reach: Reach, loaded: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {f"model_{place}": model for place, model in enumerate(sorted(reach.models))}
    return values | {f"line_{place}": line for place, line in enumerate(reach.lines)} | {"loaded": loaded}


def _statements(request: LeaseRequest, *, longest: bool) -> tuple[Prepared, Prepared, dict[str, Any]]:
    reach = reach_of(request)
    look, take = _next(len(reach.models), len(reach.lines), loaded=request.loaded is not None, longest=longest)
    return look, take, _wanted(reach, request.loaded)


def waits(request: LeaseRequest, *, longest: bool) -> Steps[bool]:
    """Whether anything waits that this node may take."""
    look, _, values = _statements(request, longest=longest)
    return (yield from first(look, **values)) is not None


def claim(
    request: LeaseRequest, why: Callable[[Record], str], now: datetime, owner: int | None, *, longest: bool
) -> Steps[Claim | None]:
    """Give a node the job whose turn it is; `None` where there is none."""
    _, take, values = _statements(request, longest=longest)
    row = yield from first(take, **values, on_node=request.node)
    if row is None:
        return None
    taken = record_of(row)
    attempt = Attempt(
        token=new_token(),
        job_id=taken.job.id,
        number=taken.job.attempt,
        node=request.node,
        instance=request.instance,
        state=AttemptState.RUNNING,
        reason=why(taken),
        leased=now,
        owner=owner,
    )
    yield from done(_ADD_ATTEMPT, **{name: getattr(attempt, name) for name in _OF_ATTEMPT})
    return Claim(attempt=attempt, record=taken)


_OF_ATTEMPT: Final = tuple(column.name for column in attempts.c if column.name not in {"finished", "problem"})


# --- ended ------------------------------------------------------------------------------------------------------------


_RESCUED: Final = frozenset({AttemptState.FAILED, AttemptState.LOST})


def cancel(job_id: str, now: datetime) -> Steps[Record | None]:
    """Cancel a waiting job, mark a running one; a final one stays as it is."""
    ended: Row | None = None
    for start in (JobState.AVAILABLE, JobState.DEFERRED):
        ended = ended or (yield from first(_CANCEL[start], job_id=job_id, finalized=now))
    yield from done(_MARK_CANCEL, job_id=job_id)
    row = yield from first(_JOB, job_id=job_id)
    if ended is not None:
        yield from seeing_books.add([_over(record_of(ended), None)])
    return record_of(row) if row else None


def close_attempt(
    token: str, ending: Ending, attempts_max: int, now: datetime, owner: int | None = None
) -> Steps[tuple[Record, str] | None]:
    """End an attempt that is not done, only `owner`'s where one is named; the job's next state is `after(...)`. The job
    as it then is, and the node whose attempt it was."""
    problem = asdict(ending.problem) if ending.problem else None
    close = _close(ending.state, own=owner is not None)
    ended = yield from first(close, of_token=token, finished=now, problem=problem, of_owner=owner)
    if ended is None:
        return None
    job_id = ended["job_id"]
    if ending.trace is not None:
        yield from _keep_trace(token, ending.trace)
    counts = {row["state"]: int(row["count"]) for row in (yield _COUNTS, {"of_job": job_id})}
    job = record_of(_one((yield from first(_JOB, job_id=job_id))))
    state, error = after(
        ending,
        purpose=job.purpose,
        cancel=job.cancel,
        failed=counts.get(AttemptState.FAILED, 0),
        lost=counts.get(AttemptState.LOST, 0),
        attempts_max=attempts_max,
    )
    values: dict[str, Any] = {"available": now} if state is JobState.AVAILABLE else {"finalized": now}
    values |= error_columns(error)
    again = {"node": None, "turn": 0} if state is JobState.AVAILABLE else {}
    row = yield from first(_move(state, *values, **again), job_id=job_id, **values)
    moved = record_of(_one(row))
    found = of_attempt(ended["node"], ending.state, again=state is JobState.AVAILABLE and ending.state in _RESCUED)
    yield from seeing_books.add(found if state is JobState.AVAILABLE else [*found, _over(moved, ended["node"])])
    return moved, ended["node"]


def complete(token: str, delivery: Delivery, now: datetime) -> Steps[Record | None]:
    """Attempt done, job completed, trace and receipt stored."""
    close = _close(AttemptState.DONE, own=False)
    ended = yield from first(close, of_token=token, finished=now, problem=None)
    if ended is None:
        return None
    job_id = ended["job_id"]
    values = {
        "finalized": now,
        "answer": delivery.answer,
        "tool_calls": plain(delivery.tool_calls) or None,
        "finish_reason": delivery.finish_reason,
        "chunks": [list(chunk) for chunk in delivery.chunks],
        "answer_seq": delivery.answer_seq,
        "receipt_id": delivery.receipt.id if delivery.receipt else None,
        "charged_j": delivery.charged_j,
        "error_code": delivery.error.code if delivery.error else None,
        "error_detail": delivery.error.detail if delivery.error else None,
    }
    if delivery.plan is not None:
        values["plan"] = plan_column(delivery.plan)
    row = yield from first(_move(JobState.COMPLETED, *values), job_id=job_id, **values)
    completed = record_of(_one(row))
    yield from _keep_trace(token, delivery.trace)
    if delivery.receipt is not None:
        yield from _keep_receipt(delivery.receipt, job_id, token, now)
    yield from _keep_past_run(completed, delivery)
    if delivery.control is not None:
        yield from _keep_control(delivery.control, ended["node"])
    found = of_attempt(ended["node"], AttemptState.DONE, again=False)
    yield from seeing_books.add([*found, _over(completed, ended["node"]), *delivery.tallies])
    return completed


def _over(record: Record, node: str | None) -> Tally:
    job = record.job
    return of_prompt(node, job.prompt.model, record.purpose, job.state)


def _keep_trace(token: str, blob: bytes) -> Steps[None]:
    yield from done(_ADD_TRACE, token=token, sha256=hashlib.sha256(blob).hexdigest(), blob=blob)


def _keep_receipt(receipt: StoredReceipt, job_id: str, token: str, now: datetime) -> Steps[None]:
    yield from done(
        _ADD_RECEIPT,
        id=receipt.id,
        job_id=job_id,
        revision=receipt.revision,
        trace_token=token,
        factors=dict(receipt.factors),
        body=receipt.body,
        created=now,
    )
    if receipt.recheck is not None:
        yield from done(_ADD_RECHECK, **asdict(receipt.recheck))


def _keep_past_run(record: Record, delivery: Delivery) -> Steps[None]:
    """What the answer took, beside those before it."""
    job = record.job
    if delivery.past_run is None or job.node is None:
        return
    digest, run = delivery.past_run
    known = yield from first(_PAST_RUNS, of_model=job.prompt.model, on_node=job.node)
    runs = known["runs"] if known is not None and known["digest"] == digest else []
    kept = [*runs, asdict(run)][-RECENT:]
    yield from done(_SAVE_PAST_RUNS, model=job.prompt.model, node=job.node, digest=digest, runs=kept)


def _keep_control(entry: Entry, node: str) -> Steps[None]:
    baseline = entry.baseline
    number = baseline.number if baseline else None
    if baseline is not None and number is None:
        number = yield from new_baseline(baseline)
    elif baseline is not None:
        subject = asdict(baseline.subject) if baseline.subject else None
        learnt = {"subject": subject, "mean_j": baseline.mean_j, "spread_j": baseline.spread_j}
        yield from done(_FIX_BASELINE, of_baseline=number, **learnt)
    yield from done(_ADD_CONTROL_RUN, **asdict(entry.run), node=node, baseline=number)


def new_baseline(baseline: Baseline) -> Steps[int]:
    """Begin a new reference; its number."""
    values = {name: value for name, value in asdict(baseline).items() if name != "number"}
    row = yield from first(_ADD_BASELINE, **values)
    return int(_one(row)["number"])


# --- between jobs -----------------------------------------------------------------------------------------------------


def keep_idle(stretches: Sequence[NodeIdle], server: ServerTime) -> Steps[None]:
    """What nodes drew between jobs, each stretch once however often it is told, and what this server used."""
    grown: list[Tally] = []
    for node in {stretch.node for stretch in stretches}:
        row = yield from first(_NEWEST_IDLE, on_node=node)
        last = node_idle_of(row) if row else None
        rows = entered(last, [stretch for stretch in stretches if stretch.node == node])
        for one in rows:
            yield from done(_SAVE_IDLE, **idle_columns(one))
        grown += of_idle(last, rows)
    row = yield from first(_NEWEST_SERVER_TIME, of_instance=server.instance)
    kept = continued(ServerTime(**row) if row else None, server)
    yield from done(_SAVE_SERVER_TIME, **asdict(kept))
    yield from seeing_books.add(grown)
