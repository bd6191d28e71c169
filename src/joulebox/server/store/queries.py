"""Every statement, named. Changes of state carry the state they start from, so that a stale one changes nothing."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Insert, Select, Table, Update, func, select, update

from joulebox.model import AttemptState, JobState
from joulebox.server.jobs import FASTEST, NODE_PREFIX
from joulebox.server.store.tables import attempts, jobs, nodes, receipts, traces

JOB = (
    jobs.c.number,
    jobs.c.id,
    jobs.c.state,
    jobs.c.placement,
    jobs.c.prompt,
    jobs.c.created,
    jobs.c.available,
    jobs.c.attempt,
    jobs.c.node,
    jobs.c.cancel,
    jobs.c.finalized,
    jobs.c.answer,
    jobs.c.finish_reason,
    jobs.c.receipt_id,
    jobs.c.error_code,
    jobs.c.error_detail,
)
"""What a `Record` is made of: everything but the pieces of the answer."""

Rows = Select[Any]


def job(job_id: str) -> Rows:
    """One job."""
    return select(*JOB).where(jobs.c.id == job_id)


def job_by_key(key: str) -> Rows:
    """The job asked with this idempotency key."""
    return select(*JOB).where(jobs.c.idempotency_key == key)


def job_page(limit: int, before: int | None) -> Rows:
    """Newest first; one more than `limit`, to know whether there is a next page."""
    rows = select(*JOB).order_by(jobs.c.number.desc()).limit(limit + 1)
    return rows if before is None else rows.where(jobs.c.number <= before)


def waiting() -> Rows:
    """The line, in the order it is taken."""
    return (
        select(jobs.c.id, jobs.c.model, jobs.c.placement)
        .where(jobs.c.state == JobState.AVAILABLE)
        .order_by(jobs.c.number)
    )


def next_job(node: str, models: Collection[str]) -> Rows:
    """The oldest waiting job for this node. On Postgres, rows that another claimer holds are stepped over."""
    return (
        select(*JOB, jobs.c.model)
        .where(
            jobs.c.state == JobState.AVAILABLE,
            jobs.c.model.in_(list(models)),
            jobs.c.placement.in_([FASTEST, NODE_PREFIX + node]),
        )
        .order_by(jobs.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def move_job(job_id: str, start: JobState, **values: Any) -> Update:
    """Change a job that is in state `start`."""
    return update(jobs).where(jobs.c.id == job_id, jobs.c.state == start).values(**values)


def mark_cancel(job_id: str) -> Update:
    """Ask a running job to stop."""
    return update(jobs).where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING).values(cancel=True)


def erase_text(job_id: str, prompt: dict[str, Any]) -> Update:
    """Forget what was asked and answered."""
    return update(jobs).where(jobs.c.id == job_id).values(prompt=prompt, answer=None, chunks=None)


def attempt(token: str) -> Rows:
    """One attempt."""
    return select(attempts).where(attempts.c.token == token)


def close_attempt(token: str, **values: Any) -> Update:
    """End an attempt that runs."""
    return update(attempts).where(attempts.c.token == token, attempts.c.state == AttemptState.RUNNING).values(**values)


def running_attempts() -> Rows:
    """All attempts that run."""
    return select(attempts).where(attempts.c.state == AttemptState.RUNNING)


def attempt_counts(job_id: str) -> Rows:
    """How many attempts at a job ended how."""
    return (
        select(attempts.c.state, func.count().label("count"))
        .where(attempts.c.job_id == job_id)
        .group_by(attempts.c.state)
    )


def earlier_evidence(job_id: str, number: int) -> Rows:
    """The attempts at a job before `number`, with what evidence they left."""
    return (
        select(attempts.c.number, traces.c.blob)
        .outerjoin(traces, traces.c.token == attempts.c.token)
        .where(attempts.c.job_id == job_id, attempts.c.number < number)
        .order_by(attempts.c.number)
    )


def recent_done(count: int) -> Rows:
    """Begin and end of the newest completed attempts."""
    return (
        select(attempts.c.leased, attempts.c.finished)
        .where(attempts.c.state == AttemptState.DONE)
        .order_by(attempts.c.finished.desc())
        .limit(count)
    )


def replay(job_id: str) -> Rows:
    """The pieces of a completed answer and the attempt they came from."""
    return (
        select(attempts.c.number, jobs.c.chunks, jobs.c.answer_seq)
        .join(attempts, attempts.c.job_id == jobs.c.id)
        .where(jobs.c.id == job_id, attempts.c.state == AttemptState.DONE)
    )


def receipt(receipt_id: str) -> Rows:
    """A receipt as it was made."""
    return select(receipts.c.body, receipts.c.job_id).where(receipts.c.id == receipt_id)


def trace_of_receipt(receipt_id: str) -> Rows:
    """The evidence behind a receipt."""
    return (
        select(traces.c.blob)
        .join(receipts, receipts.c.trace_token == traces.c.token)
        .where(receipts.c.id == receipt_id)
    )


def all_nodes() -> Rows:
    """Every node that ever joined."""
    return select(nodes).order_by(nodes.c.name)


def add_job(dialect: str, values: dict[str, Any]) -> Insert:
    """A new job, unless one was asked with the same idempotency key."""
    added: Insert = _insert(dialect, jobs).values(values).on_conflict_do_nothing(index_elements=["idempotency_key"])
    return added


def save_node(dialect: str, values: dict[str, Any]) -> Insert:
    """A node as it last described itself, new or again."""
    saved: Insert = _insert(dialect, nodes).values(values).on_conflict_do_update(index_elements=["name"], set_=values)
    return saved


def _insert(dialect: str, table: Table) -> Any:
    """Each dialect has an `ON CONFLICT` of its own, with the same words."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
