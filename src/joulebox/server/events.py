"""What a watching person sees of a prompt, as server-sent events: the line, the attempt as it goes, the receipt.

Ids are `attempt.seq` with the node's own numbering, so they survive a restart of the server; the last is `attempt.end`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi.sse import ServerSentEvent

from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, Job, JobState
from joulebox.plain import plain
from joulebox.protocol import NodeEvent
from joulebox.server.desk import Desk
from joulebox.server.jobs import Queue, Record
from joulebox.server.live import Ended, Live
from joulebox.server.node_now import watts_of
from joulebox.server.outlook import Outlook
from joulebox.server.replicas import Replicas

END: Final = "end"
FIELDS: Final = {
    "settling": ("sensor", "now_c", "target_c", "expected_s"),
    "answer": ("finish_reason", "tool_calls"),
}


@dataclass(slots=True)
class Seen:
    """How far a watcher has got: the attempt whose text is on the screen (0: none), and the next event of it."""

    attempt: int = 0
    next_seq: int = 0

    @property
    def over(self) -> bool:
        """Whether the watcher has seen the last event."""
        return self.next_seq < 0


def seen_until(last_event_id: str | None) -> Seen:
    """The place that a `Last-Event-ID` names; the beginning where it names none."""
    place = re.fullmatch(rf"(\d{{1,9}})\.(\d{{1,9}}|{END})", last_event_id or "", re.ASCII)
    if place is None:
        return Seen()
    return Seen(attempt=int(place[1]), next_seq=-1 if place[2] == END else int(place[2]) + 1)


async def watch(
    job_id: str, seen: Seen, desk: Desk, replicas: Replicas, queue: Queue, *, line: bool = True
) -> AsyncIterator[ServerSentEvent]:
    """All events of a job from `seen` on, without a gap, until it is over. Waits for rings; never polls. Without `line`
    nothing of its place in the line."""
    bell = desk.bell(job_id)
    told: Outlook | None = None
    live: Live | None = None
    while not desk.closing:
        rings = {own := bell.next()}
        live = desk.live(job_id) or live
        if live is not None and not live.over:
            for event in _fresh(live, seen):
                yield event
        else:
            ended = live.ended if live is not None else None
            record = ended.record if ended is not None else await _record(queue, job_id)
            if record.job.state in FINAL_STATES:
                async for event in _last(record, live, seen, queue):
                    yield event
                return
            if record.job.state is JobState.RUNNING and (copy := await replicas.follow(job_id)) is not None:
                live = copy
                for event in _fresh(live, seen):
                    yield event
            if line and record.job.state in (JobState.AVAILABLE, JobState.DEFERRED):
                rings.add(desk.line_bell.next())
                outlook = await desk.outlook(record)
                if outlook != told:
                    told = outlook
                    yield _event("queued", outlook_fields(outlook))
        await asyncio.wait(rings, return_when=asyncio.FIRST_COMPLETED)
        if len(rings) > 1 and not own.done():
            await asyncio.wait({own}, timeout=desk.rest_s)


def outlook_fields(outlook: Outlook) -> dict[str, Any]:
    """The outlook as people get it."""
    start = outlook.expected_start
    return {
        "position": outlook.position,
        "expected_start": start.isoformat(timespec="seconds") if start else None,
        "reason": outlook.reason,
    }


async def _record(queue: Queue, job_id: str) -> Record:
    record = await queue.record(job_id)
    if record is None:
        raise JouleboxError("not_found", f"There is no prompt {job_id}.")
    return record


def _begin(attempt: int, seen: Seen) -> list[ServerSentEvent]:
    """Turn to another attempt; what was shown of an earlier one is void."""
    if seen.attempt == attempt:
        return []
    restarted = seen.attempt != 0
    seen.attempt, seen.next_seq = attempt, 0
    return [_event("restarted", {"attempt": attempt})] if restarted else []


def _fresh(live: Live, seen: Seen) -> list[ServerSentEvent]:
    """What the running attempt has said since."""
    events = _begin(live.attempt.number, seen)
    for event in live.log[seen.next_seq :]:
        events.append(_public(event, live.attempt.number, live.attempt.node))
        seen.next_seq = event.seq + 1
    return events


async def _last(record: Record, live: Live | None, seen: Seen, queue: Queue) -> AsyncIterator[ServerSentEvent]:
    """The rest of a job that is over, from memory where it is still there, from what was stored otherwise."""
    job, known = record.job, live if live is not None and live.attempt.number == record.job.attempt else None
    if job.state is JobState.COMPLETED:
        for event in _fresh(known, seen) if known is not None else ():
            yield event
        if known is None or all(event.kind != "answer" for event in known.log):  # after it no text comes
            async for event in _stored(job, seen, queue):
                yield event
    name, data = await _ending(job, queue, known.ended if known is not None else None)
    if isinstance(data, str):
        yield ServerSentEvent(event=name, raw_data=data, id=f"{job.attempt}.{END}")
    else:
        yield _event(name, data, f"{job.attempt}.{END}")


async def _stored(job: Job, seen: Seen, queue: Queue) -> AsyncIterator[ServerSentEvent]:
    replay = await queue.replay(job.id)
    if replay is None:
        return
    for event in _begin(replay.attempt, seen):
        yield event
    for seq, text in replay.chunks:
        if seq >= seen.next_seq:
            yield _event("token", {"text": text, "n": None}, f"{replay.attempt}.{seq}")
            seen.next_seq = seq + 1
    if replay.answer_seq is None or replay.answer_seq >= seen.next_seq:
        place = f"{replay.attempt}.{replay.answer_seq}" if replay.answer_seq is not None else None
        yield _event("answer", {"finish_reason": job.finish_reason, "tool_calls": plain(job.tool_calls)}, place)


async def _ending(job: Job, queue: Queue, ended: Ended | None) -> tuple[str, dict[str, Any] | str]:
    if job.state is JobState.CANCELLED:
        return "cancelled", {}
    if job.receipt_id is not None:
        body = ended.receipt if ended is not None else await queue.receipt(job.receipt_id)
        if body is not None:
            return "receipt", body.decode()
    error = job.error
    return "error", {"code": error.code if error else "internal", "detail": error.detail if error else ""}


def _public(event: NodeEvent, attempt: int, node: str) -> ServerSentEvent:
    """A node's event under its public name, with exactly the fields that the contract names."""
    place = f"{attempt}.{event.seq}"
    match event.kind:
        case "loading" | "measuring":
            return _event("phase", {"phase": event.kind}, place)
        case "started":
            return _event("started", {"node": node, "attempt": attempt}, place)
        case "token":
            return _event("token", {"text": event.data["text"], "n": event.data.get("n")}, place)
        case "power":
            return _event("power", watts_of(event.data), place)
        case _:
            return _event(event.kind, {name: event.data.get(name) for name in FIELDS[event.kind]}, place)


def _event(name: str, data: dict[str, Any], place: str | None = None) -> ServerSentEvent:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return ServerSentEvent(event=name, raw_data=text, id=place)
