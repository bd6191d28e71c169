"""A delivery becomes a receipt: evidence decoded, factors chosen, `account` applied. Evidence is kept in any case."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from joulebox.errors import JouleboxError
from joulebox.model import EarlierAttempt, Placement, Problem, Trace
from joulebox.protocol import Finish, NodeEvent, unpack_trace
from joulebox.server.grid.live import Grid
from joulebox.server.jobs import Attempt, Delivery, StoredReceipt, new_id
from joulebox.units import NS_PER_US

_log = logging.getLogger(__name__)


Earlier = Sequence[tuple[int, bytes | None]]
"""The attempts before this one, each with the evidence it left."""


async def deliver(
    attempt: Attempt, placement: str, finish: Finish, log: list[NodeEvent], grid: Grid, earlier: Earlier = ()
) -> Delivery:
    """What a finished attempt leaves behind, receipt included. Runs the accounting in a thread.

    Raises `JouleboxError("bad_evidence")` when answer or trace are missing or cannot be read.
    """
    return await asyncio.to_thread(_deliver, attempt, placement, finish, log, grid, earlier)


async def left_behind(attempt: Attempt, finish: Finish) -> bytes | None:
    """The evidence of an attempt that gave no answer. A failure is a failure even where it cannot be read."""
    if finish.trace_b64 is None:
        return None
    try:
        return (await asyncio.to_thread(_evidence, attempt, finish.trace_b64))[0]
    except JouleboxError as error:
        _log.warning("%s", error.detail)
        return None


def _deliver(
    attempt: Attempt, placement: str, finish: Finish, log: list[NodeEvent], grid: Grid, earlier: Earlier
) -> Delivery:
    if finish.answer is None or finish.trace_b64 is None:
        raise JouleboxError("bad_evidence", "A finished attempt needs its answer and its trace.")
    blob, trace = _evidence(attempt, finish.trace_b64)
    receipt, error = _receipt(attempt, placement, trace, grid, earlier)
    return Delivery(
        answer=finish.answer,
        finish_reason=finish.finish_reason or trace.finish_reason,
        chunks=finish.chunks,
        answer_seq=next((event.seq for event in reversed(log) if event.kind == "answer"), None),
        trace=blob,
        receipt=receipt,
        error=error,
    )


def _evidence(attempt: Attempt, trace_b64: str) -> tuple[bytes, Trace]:
    from joulebox.evidence import decode_trace

    try:
        blob = unpack_trace(trace_b64)
        trace = decode_trace(blob)
    except ValueError as error:
        raise JouleboxError("bad_evidence", f"The trace of node {attempt.node} cannot be read: {error}.") from error
    if (trace.job_id, trace.attempt, trace.node) != (attempt.job_id, attempt.number, attempt.node):
        raise JouleboxError("bad_evidence", f"The trace of node {attempt.node} belongs to another attempt.")
    return blob, trace


def run_of(trace: Trace) -> tuple[datetime, datetime]:
    """From when to when the machine was reserved, in calendar time."""
    start, until = (timedelta(microseconds=t_ns // NS_PER_US) for t_ns in (trace.leased_ns, trace.released_ns))
    return trace.origin + start, trace.origin + until


def attempts_before(earlier: Earlier) -> tuple[EarlierAttempt, ...]:
    """The attempts before the one that answered, as the accounting wants them."""
    from joulebox.evidence import decode_trace

    return tuple(EarlierAttempt(number=number, trace=decode_trace(blob) if blob else None) for number, blob in earlier)


def _receipt(
    attempt: Attempt, policy: str, trace: Trace, grid: Grid, earlier: Earlier
) -> tuple[StoredReceipt | None, Problem | None]:
    from joulebox.accounting import account, receipt_bytes

    placement = Placement(policy=policy, reason=attempt.reason, saved_g=None)
    receipt_id = new_id()
    try:
        run = run_of(trace)
        factors = grid.factors(trace.zone, *run, parts=trace.parts)
        before = attempts_before(earlier)
        body = receipt_bytes(account(trace, factors, receipt_id=receipt_id, placement=placement, earlier=before))
    except Exception as error:  # noqa: BLE001 - answer and evidence are worth more than a receipt that can be made later
        _log.exception("no receipt for job %s", attempt.job_id)
        detail = f"The answer is complete and its evidence is kept, but the receipt could not be made: {error}"
        return None, Problem(code="internal", detail=detail)
    recheck = grid.recheck(receipt_id, trace.zone, run, factors)
    return StoredReceipt(id=receipt_id, factors=asdict(factors), body=body, recheck=recheck), None
