"""A delivery becomes a receipt: evidence decoded, factors chosen, `account` applied. Evidence is kept in any case."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.logs import about, bound
from joulebox.model import AttemptState, EarlierAttempt, Placement, Problem, Receipt, Trace
from joulebox.plain import plain
from joulebox.protocol import Finish, NodeEvent, unpack_trace
from joulebox.server.grid.live import Grid
from joulebox.server.jobs import Attempt, Delivery, Ending, Plan, StoredReceipt, new_id
from joulebox.server.placement import past_run
from joulebox.server.quota import charged_j
from joulebox.server.tallies import of_receipt
from joulebox.server.tool_bodies import check_calls
from joulebox.units import NS_PER_US

_log = logging.getLogger(__name__)


READINGS_FREE: Final = 1_000_000
READINGS_PER_S: Final = 20_000
"""An attempt may leave so many readings, and so many more for each second that it has taken: what was packed small must
not fill the server's memory."""
CALENDAR: Final = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
Earlier = Sequence[tuple[int, bytes | None]]
"""The attempts before this one, each with the evidence it left."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for of where the prompt runs, and what was decided."""

    policy: str
    plan: Plan | None = None
    model: str | None = None


async def deliver(
    attempt: Attempt, wanted: Wanted, finish: Finish, log: list[NodeEvent], grid: Grid, earlier: Earlier = ()
) -> Delivery:
    """What a finished attempt leaves behind, receipt included. Runs the accounting in a thread.

    Raises `JouleboxError("bad_evidence")` when answer or trace are missing or cannot be read.
    """
    with bound(job=attempt.job_id, attempt=attempt.number, node=attempt.node):
        return await asyncio.to_thread(_deliver, attempt, wanted, finish, log, grid, earlier)


def readings_max(attempt: Attempt, now: datetime) -> int:
    """So many readings may be in what this attempt leaves now."""
    return READINGS_FREE + int(READINGS_PER_S * max(0.0, (now - attempt.leased).total_seconds()))


async def _left_behind(attempt: Attempt, finish: Finish, now: datetime) -> bytes | None:
    """The evidence of an attempt that gave no answer. A failure is a failure even where it cannot be read."""
    if finish.trace_b64 is None:
        return None
    try:
        return (await asyncio.to_thread(_evidence, attempt, finish.trace_b64, now))[0]
    except JouleboxError as error:
        what = about(job=attempt.job_id, attempt=attempt.number, node=attempt.node)
        _log.warning("%s", error.detail, extra=what)
        return None


async def ending_of(attempt: Attempt, finish: Finish, now: datetime) -> Ending:
    """How an attempt that gave no answer ended, with the evidence of what it drew. One that its node was stopped in the
    middle of is lost: that counts as little against the prompt as a node that was killed."""
    trace = await _left_behind(attempt, finish, now)
    if finish.outcome == "cancelled":
        return Ending(AttemptState.CANCELLED, trace=trace)
    if finish.retry and finish.problem is not None and finish.problem.code == "energy_interrupted":
        return Ending(AttemptState.LOST, finish.problem, trace=trace)
    return Ending(AttemptState.FAILED, finish.problem, retry=finish.retry, trace=trace)


def _deliver(
    attempt: Attempt, wanted: Wanted, finish: Finish, log: list[NodeEvent], grid: Grid, earlier: Earlier
) -> Delivery:
    if finish.answer is None or finish.trace_b64 is None:
        raise JouleboxError("bad_evidence", "A finished attempt needs its answer and its trace.")
    try:
        check_calls(finish.tool_calls)
    except JouleboxError as refused:
        raise JouleboxError("bad_evidence", refused.detail) from refused
    blob, trace = _evidence(attempt, finish.trace_b64, grid.clock.utc())
    if wanted.model is not None and trace.model is not None and trace.model.id != wanted.model:
        raise JouleboxError("bad_evidence", f"The trace of node {attempt.node} is of a model that was not asked.")
    made, stored, error = _receipt(attempt, wanted, trace, grid, earlier)
    cost_j = charged_j(made) if made is not None and trace.purpose == "prompt" else None
    run = past_run(made, cost_j) if made is not None and trace.purpose == "prompt" else None
    return Delivery(
        answer=finish.answer,
        tool_calls=finish.tool_calls,
        finish_reason=finish.finish_reason or trace.finish_reason,
        chunks=finish.chunks,
        answer_seq=next((event.seq for event in reversed(log) if event.kind == "answer"), None),
        trace=blob,
        receipt=stored,
        error=error,
        past_run=(trace.model.digest, run) if run is not None and trace.model is not None else None,
        plan=_outcome(wanted.plan, made),
        charged_j=cost_j,
        tallies=tuple(of_receipt(made)) if made is not None else (),
    )


def _evidence(attempt: Attempt, trace_b64: str, now: datetime) -> tuple[bytes, Trace]:
    from joulebox.evidence import decode_trace

    try:
        blob = unpack_trace(trace_b64)
        trace = decode_trace(blob, readings_max(attempt, now))
    except ValueError as error:
        raise JouleboxError("bad_evidence", f"The trace of node {attempt.node} cannot be read: {error}.") from error
    if (trace.job_id, trace.attempt, trace.node) != (attempt.job_id, attempt.number, attempt.node):
        raise JouleboxError("bad_evidence", f"The trace of node {attempt.node} belongs to another attempt.")
    if not _in_calendar(trace):
        sentence = f"The trace of node {attempt.node} tells of a time that cannot be: set its clock."
        raise JouleboxError("bad_evidence", sentence)
    return blob, trace


def _in_calendar(trace: Trace) -> bool:
    """Whether a run lies where reports and grids can look for it, and ends after it began."""
    try:
        start, until = run_of(trace)
        return CALENDAR[0] <= start <= until <= CALENDAR[1]
    except (OverflowError, TypeError):  # past the last year, or without a zone of time
        return False


def run_of(trace: Trace) -> tuple[datetime, datetime]:
    """From when to when the machine was reserved, in calendar time."""
    start, until = (timedelta(microseconds=t_ns // NS_PER_US) for t_ns in (trace.leased_ns, trace.released_ns))
    return trace.origin + start, trace.origin + until


def attempts_before(earlier: Earlier) -> tuple[EarlierAttempt, ...]:
    """The attempts before the one that answered, as the accounting wants them."""
    from joulebox.evidence import decode_trace

    return tuple(EarlierAttempt(number=number, trace=decode_trace(blob) if blob else None) for number, blob in earlier)


def _receipt(
    attempt: Attempt, wanted: Wanted, trace: Trace, grid: Grid, earlier: Earlier
) -> tuple[Receipt | None, StoredReceipt | None, Problem | None]:
    from joulebox.accounting import account, receipt_bytes

    placement = Placement(policy=wanted.policy, reason=attempt.reason, saved_g=None)
    receipt_id = new_id()
    try:
        run = run_of(trace)
        factors = grid.factors(trace.zone, *run, parts=trace.parts)
        before = attempts_before(earlier)
        made = account(trace, factors, receipt_id=receipt_id, placement=placement, earlier=before)
        if wanted.plan is not None:
            made = replace(made, placement=replace(placement, saved_g=_saved_g(wanted.plan, made, run, grid)))
        body = receipt_bytes(made)
    except Exception as error:  # noqa: BLE001 - answer and evidence are worth more than a receipt that can be made later
        _log.exception("no receipt for job %s", attempt.job_id)
        detail = f"The answer is complete and its evidence is kept, but the receipt could not be made: {error}"
        return None, None, Problem(code="internal", detail=detail)
    recheck = grid.recheck(receipt_id, trace.zone, run, factors)
    return made, StoredReceipt(id=receipt_id, factors=plain(factors), body=body, recheck=recheck), None


def _outcome(plan: Plan | None, made: Receipt | None) -> Plan | None:
    return replace(plan, saved_g=made.placement.saved_g) if plan is not None and made is not None else None


def _saved_g(plan: Plan, made: Receipt, run: tuple[datetime, datetime], grid: Grid) -> float | None:
    """What the plan saved: the same E and M with the intensity where, and when, the first free node would have run it.
    `None` where the two are not of one kind."""
    at = plan.asked if plan.shifted else run[0]
    there = grid.factors(plan.zone, at, at + (run[1] - run[0])).intensity
    here, kwh = made.carbon.intensity, made.sci.answer.E_kwh
    same = (there.factor, there.quality == "yearly") == (here.factor, here.quality == "yearly")
    return kwh * (there.g_per_kwh - here.g_per_kwh) if same and kwh is not None else None
