"""The `Queue` port on a database, and what else is kept: lists of jobs, receipts, evidence, nodes."""

import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import RowMapping, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from joulebox.model import AttemptState, Counted, Job, JobState, Problem, Prompt, Purpose
from joulebox.protocol import VERSION, LeaseRequest
from joulebox.server.control import Baseline, Book, ControlRun, Entry, Subject
from joulebox.server.grid.chain import GridValue
from joulebox.server.idle import NodeIdle, ServerTime, continued, entered
from joulebox.server.jobs import (
    LONGEST_EVERY,
    RANKS,
    RECENT,
    Attempt,
    Claim,
    Delivery,
    Drain,
    Ending,
    FinishedJob,
    Held,
    KeptReceipt,
    News,
    NodeRecord,
    Page,
    PastRun,
    Place,
    Plan,
    Recheck,
    Record,
    Replay,
    StoredReceipt,
    after,
    new_id,
    new_token,
    reach_of,
)
from joulebox.server.store import queries
from joulebox.server.store.access_books import AccessBooks
from joulebox.server.store.database import database_at, settled, whole
from joulebox.server.store.sleep_books import SleepBooks
from joulebox.server.store.tables import attempts, baselines, control_runs, jobs, nodes, receipts, rechecks, traces
from joulebox.server.store.talk_books import TalkBooks

SETTLED_S: Final = 5.0
"""So long the end of a server waits for transactions that nobody waits for any more."""
_PROMPT: Final = TypeAdapter(Prompt)
_OFFER: Final = TypeAdapter(LeaseRequest)
_PLAN: Final = TypeAdapter(Plan)
_COUNTED: Final = TypeAdapter(tuple[Counted, ...])


class Store:
    """Everything durable. Every method may raise `JouleboxError("database")`."""

    def __init__(self, url: str) -> None:
        self._database = database_at(url)
        self.access = AccessBooks(self._database)
        self.sleeps = SleepBooks(self._database, self._tell)
        self.talks = TalkBooks(self._database)
        self._replica: int | None = None
        self._claims: Counter[str] = Counter()

    async def open(self) -> None:
        """Open the database and bring it to the newest schema."""
        await self._database.open()

    async def close(self) -> None:
        """Close the database once what is under way is kept."""
        await settled(SETTLED_S)
        await self._database.close()

    # --- several servers on one database ------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether several servers may use it at once."""
        return self._database.shared

    async def join(self, url: str, heard: Callable[[News], None], now: datetime) -> None:
        if not self.shared:
            return
        self._replica = secrets.randbits(31)
        await self._database.listen(self._replica, lambda said: self._hear(said, heard))
        async with self._database.write() as connection:
            await connection.execute(queries.join(self._replica, url, now))

    def _hear(self, said: str | None, heard: Callable[[News], None]) -> None:
        """What was said, unless this server said it; `None`: for a while nothing could be heard."""
        if said is None:
            heard(News(kind="lost"))
            return
        speaker, kind, subject = said.split(" ", 2)
        if speaker != str(self._replica):
            heard(News(kind=kind, subject=subject))  # type: ignore[arg-type]

    def _tell(self, kind: str, subject: str) -> None:
        """Say what has just been kept. Should this server die before it is heard, a waiting node asks again anyway."""
        if self._replica is not None:
            self._database.say(f"{self._replica} {kind} {subject}")

    @whole
    async def take_up(self) -> Sequence[tuple[Attempt, Record]]:
        if self._replica is None:
            return await self.running()
        async with self._database.write() as connection:
            await connection.execute(queries.forget_dead_nodes())
            await connection.execute(queries.forget_dead_replicas(self._replica))
            rows = (await connection.execute(queries.adopt(self._replica, queries.orphans()))).mappings().all()
            return [(_attempt(row), await _job(connection, row["job_id"])) for row in rows]

    @whole
    async def held(self, token: str) -> Held | None:
        if self._replica is None:
            return None
        async with self._database.write() as connection:
            mine = queries.orphans() & (attempts.c.token == token)
            await connection.execute(queries.adopt(self._replica, mine))
            row = await _row(connection, queries.held(token))
            if row is None:
                return None
            url = None if row["owner"] == self._replica else row["url"]
            return Held(attempt=_attempt(row), record=await _job(connection, row["job_id"]), url=url)

    @whole
    async def token_of(self, job_id: str) -> str | None:
        async with self._database.read() as connection:
            row = await _row(connection, queries.token_of(job_id))
            return row["token"] if row else None

    @whole
    async def working(self) -> Mapping[str, datetime]:
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.working(self._replica))).mappings()
            return {row["node"]: row["leased"] for row in rows}

    @whole
    async def running_on(self, node: str) -> Sequence[str]:
        async with self._database.read() as connection:
            return [row["token"] for row in (await connection.execute(queries.running_on(node))).mappings()]

    # --- the Queue port -----------------------------------------------------------------------------------------------

    @whole
    async def enqueue(
        self,
        prompt: Prompt,
        placement: str,
        key: str | None,
        now: datetime,
        purpose: Purpose = "prompt",
        *,
        rank: int = RANKS["interactive"],
        asker: str | None = None,
        place: Place | None = None,
        owner: str | None = None,
    ) -> tuple[Record, bool]:
        deferred = place is not None and place.start > now
        values = {
            "id": new_id(),
            "state": JobState.DEFERRED if deferred else JobState.AVAILABLE,
            "model": prompt.model,
            "placement": placement,
            "prompt": asdict(prompt),
            "created": now,
            "available": now,
            "attempt": 0,
            "cancel": False,
            "idempotency_key": key,
            "purpose": purpose,
            "rank": rank,
            "turn": queries.outstanding(asker).scalar_subquery() if asker is not None else 0,
            "asker": asker,
            "owner": owner,
        } | (_placed(place) if place is not None else {})
        async with self._database.single() as connection:
            row = await _row(connection, queries.add_job(connection.dialect.name, values))
        if row is None and key is not None:
            async with self._database.read() as connection:
                return _record(await _one(connection, queries.job_by_key(key))), False
        assert row is not None
        self._tell("plan" if deferred else "ready", row["id"])
        return _record(row), True

    @whole
    async def by_key(self, key: str) -> Record | None:
        async with self._database.read() as connection:
            row = await _row(connection, queries.job_by_key(key))
            return _record(row) if row else None

    @whole
    async def claim(self, request: LeaseRequest, why: Callable[[Record], str], now: datetime) -> Claim | None:
        reach = reach_of(request)
        if not reach.models:
            return None
        longest = self._claims[request.node] % LONGEST_EVERY == LONGEST_EVERY - 1
        number = queries.next_job(reach, request.loaded, longest=longest)
        if not self.shared:  # SQLite's one writer is not troubled for nothing; Postgres locks only what it finds
            async with self._database.read() as connection:
                if not await _row(connection, number):
                    return None
        async with self._database.write() as connection:
            row = await _row(connection, queries.take_job(number, request.node))
            if row is None:
                return None
            record = _record(row)
            attempt = Attempt(
                token=new_token(),
                job_id=record.job.id,
                number=record.job.attempt,
                node=request.node,
                instance=request.instance,
                state=AttemptState.RUNNING,
                reason=why(record),
                leased=now,
                owner=self._replica,
            )
            await connection.execute(insert(attempts).values(asdict(attempt)))
        self._claims[request.node] += 1
        self._tell("job", record.job.id)
        return Claim(attempt=attempt, record=record)

    @whole
    async def close_attempt(
        self, token: str, ending: Ending, attempts_max: int, now: datetime, *, own: bool = False
    ) -> Record | None:
        async with self._database.write() as connection:
            problem = asdict(ending.problem) if ending.problem else None
            closed = queries.close_attempt(token, state=ending.state, finished=now, problem=problem)
            if own and self._replica is not None:
                closed = closed.where(attempts.c.owner == self._replica)
            ended = await _row(connection, closed)
            if ended is None:
                return None
            job_id = ended["job_id"]
            if ending.trace is not None:
                await _keep_trace(connection, token, ending.trace)
            rows = (await connection.execute(queries.attempt_counts(job_id))).mappings()
            counts = {row["state"]: int(row["count"]) for row in rows}
            job = await _job(connection, job_id)
            state, error = after(
                ending,
                purpose=job.purpose,
                cancel=job.cancel,
                failed=counts.get(AttemptState.FAILED, 0),
                lost=counts.get(AttemptState.LOST, 0),
                attempts_max=attempts_max,
            )
            if state is JobState.AVAILABLE:
                values: dict[str, Any] = {"available": now, "node": None, "turn": 0}
            else:
                values = {"finalized": now} | _error(error)
            record = _record(await _one(connection, queries.move_job(job_id, JobState.RUNNING, state=state, **values)))
        self._tell("ready" if state is JobState.AVAILABLE else "job", job_id)
        return record

    @whole
    async def earlier(self, job_id: str, number: int) -> Sequence[tuple[int, bytes | None]]:
        async with self._database.read() as connection:
            rows = await connection.execute(queries.earlier_evidence(job_id, number))
            return [(row.number, bytes(row.blob) if row.blob is not None else None) for row in rows]

    @whole
    async def complete(self, token: str, delivery: Delivery, now: datetime) -> Record | None:
        async with self._database.write() as connection:
            closed = queries.close_attempt(token, state=AttemptState.DONE, finished=now)
            ended = await _row(connection, closed)
            if ended is None:
                return None
            job_id = ended["job_id"]
            values = {
                "state": JobState.COMPLETED,
                "finalized": now,
                "answer": delivery.answer,
                "finish_reason": delivery.finish_reason,
                "chunks": [list(chunk) for chunk in delivery.chunks],
                "answer_seq": delivery.answer_seq,
                "receipt_id": delivery.receipt.id if delivery.receipt else None,
                "charged_j": delivery.charged_j,
            } | _error(delivery.error)
            if delivery.plan is not None:
                values["plan"] = _PLAN.dump_python(delivery.plan, mode="json")
            record = _record(await _one(connection, queries.move_job(job_id, JobState.RUNNING, **values)))
            await _keep_evidence(connection, token, job_id, delivery, now)
            await _keep_past_run(connection, record, delivery)
            if delivery.control is not None:
                await _keep_control(connection, delivery.control, ended["node"])
        self._tell("job", job_id)
        return record

    @whole
    async def cancel(self, job_id: str, now: datetime) -> Record | None:
        async with self._database.write() as connection:
            for start in (JobState.AVAILABLE, JobState.DEFERRED):
                moved = queries.move_job(job_id, start, state=JobState.CANCELLED, finalized=now, cancel=True)
                await connection.execute(moved)
            await connection.execute(queries.mark_cancel(job_id))
            row = await _row(connection, queries.job(job_id))
        self._tell("job", job_id)
        return _record(row) if row else None

    @whole
    async def record(self, job_id: str) -> Record | None:
        async with self._database.read() as connection:
            row = await _row(connection, queries.job(job_id))
            return _record(row) if row else None

    @whole
    async def attempt(self, token: str) -> Attempt | None:
        async with self._database.read() as connection:
            row = await _row(connection, queries.attempt(token))
            return _attempt(row) if row else None

    @whole
    async def running(self) -> Sequence[tuple[Attempt, Record]]:
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.running_attempts())).mappings().all()
            return [(_attempt(row), await _job(connection, row["job_id"])) for row in rows]

    @whole
    async def before(self, job_ids: Sequence[str]) -> Mapping[str, Mapping[tuple[str, str], int]]:
        counts: dict[str, dict[tuple[str, str], int]] = {job_id: {} for job_id in job_ids}
        if job_ids:
            async with self._database.read() as connection:
                for row in (await connection.execute(queries.before(job_ids))).mappings():
                    counts[row["id"]][row["model"], row["placement"]] = int(row["count"])
        return counts

    @whole
    async def crowd(self) -> Mapping[tuple[str, str], int]:
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.crowd())).mappings()
            return {(row["model"], row["placement"]): int(row["count"]) for row in rows}

    # --- plans --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def planning(self) -> AsyncIterator[bool]:
        """Be the one server that plans, as long as the block lasts; false where another one is at it."""
        if not self.shared:
            yield True
            return
        async with self._database.write() as connection:
            yield bool(await _scalar(connection, queries.plan_alone()))

    @whole
    async def next_due(self) -> datetime | None:
        """When the next plan is to be looked at; `None` where there is none."""
        async with self._database.read() as connection:
            due: datetime | None = await _scalar(connection, queries.next_due())
            return due

    @whole
    async def planned(self, after: int, limit: int) -> Sequence[Record]:
        """Jobs that wait by a plan, in the order of asking, after that number."""
        async with self._database.read() as connection:
            return [_record(row) for row in (await connection.execute(queries.planned(after, limit))).mappings()]

    @whole
    async def due(self, now: datetime, limit: int) -> Sequence[Record]:
        """Jobs whose plan is to be looked at by now."""
        async with self._database.read() as connection:
            return [_record(row) for row in (await connection.execute(queries.due(now, limit))).mappings()]

    @whole
    async def booked(self, until: datetime) -> Mapping[tuple[str, datetime], int]:
        """How many jobs are deferred to a moment before `until`, by line and beginning."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.booked(until))).mappings()
            return {(row["placement"], row["due"]): int(row["count"]) for row in rows}

    @whole
    async def replan(self, record: Record, place: Place, now: datetime) -> Record | None:
        """Give a waiting job another place; `None`, and nothing changes, where it moved since `record` was read."""
        async with self._database.write() as connection:
            waits = place.start > now
            values = _placed(place) | {"state": JobState.DEFERRED if waits else JobState.AVAILABLE}
            if record.job.state is JobState.DEFERRED and not waits:
                values["turn"] = queries.outstanding_with(record.job.id).scalar_subquery()
            moved = queries.move_job(record.job.id, record.job.state, **values).where(jobs.c.due == record.due)
            row = await _row(connection, moved)
        if row is None:
            return None
        self._tell("plan" if waits else "ready", record.job.id)
        return _record(row)

    @whole
    async def past_runs(self, model: str) -> Mapping[str, Sequence[PastRun]]:
        """What past runs of a model took, by node, oldest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.past_runs_of(model))).mappings()
            return {row["node"]: [PastRun(**run) for run in row["runs"]] for row in rows}

    @whole
    async def durations_s(self, count: int) -> Sequence[float]:
        async with self._database.read() as connection:
            rows = await connection.execute(queries.recent_done(count))
            return [(row.finished - row.leased).total_seconds() for row in rows]

    @whole
    async def replay(self, job_id: str) -> Replay | None:
        async with self._database.read() as connection:
            row = await _row(connection, queries.replay(job_id))
            if row is None:
                return None
            chunks = tuple((int(seq), str(text)) for seq, text in row["chunks"] or ())
            return Replay(attempt=row["number"], chunks=chunks, answer_seq=row["answer_seq"])

    @whole
    async def receipt(self, receipt_id: str, revision: int | None = None) -> bytes | None:
        async with self._database.read() as connection:
            row = await _row(connection, queries.receipt(receipt_id, revision))
            return bytes(row["body"]) if row else None

    @whole
    async def save_node(self, node: NodeRecord, *, present: bool = True) -> bool:
        offer = asdict(node.offer)
        values = {column.name: offer[column.name] for column in nodes.c if column.name in offer}
        values |= {"name": node.offer.node, "seen": node.seen, "replica": self._replica if present else None}
        async with self._database.write() as connection:
            saved = queries.save_node(connection.dialect.name, values, self._replica)
            if (await connection.execute(saved)).rowcount != 1:
                return False
        self._tell("node", node.offer.node)
        return True

    @whole
    async def nodes(self) -> Sequence[NodeRecord]:
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.all_nodes())).mappings().all()
            return [_node(row, self._replica) for row in rows]

    @whole
    async def drain(self, node: str, drain: Drain | None) -> None:
        async with self._database.write() as connection:
            at, why = (drain.at, drain.why) if drain else (None, None)
            await connection.execute(queries.drain(node, at, why))
        self._tell("node", node)

    @whole
    async def control(self, node: str) -> Book:
        async with self._database.read() as connection:
            found = await _row(connection, queries.baseline_in_force(node))
            number = found["number"] if found else None
            rows = (await connection.execute(queries.control_runs_of(node, number))).mappings().all()
            asked = await _row(connection, queries.control_asked(node))
            count = await _one(connection, queries.prompts_since(node, asked["number"])) if asked else {"count": 0}
            return Book(
                baseline=_baseline(found) if found else None,
                runs=tuple(_control_run(row) for row in reversed(rows)),
                asked=asked["created"] if asked else None,
                prompts_since=int(count["count"]),
            )

    @whole
    async def rebaseline(self, baseline: Baseline) -> None:
        async with self._database.write() as connection:
            await _new_baseline(connection, baseline)
        self._tell("node", baseline.node)

    @whole
    async def keep_idle(self, stretches: Sequence[NodeIdle], server: ServerTime) -> None:
        async with self._database.write() as connection:
            dialect = connection.dialect.name
            for node in {stretch.node for stretch in stretches}:
                row = await _row(connection, queries.newest_idle(node))
                mine = [stretch for stretch in stretches if stretch.node == node]
                for one in entered(_node_idle(row) if row else None, mine):
                    values = asdict(one) | {"counted": _COUNTED.dump_python(one.counted, mode="json")}
                    await connection.execute(queries.save_idle(dialect, values))
            row = await _row(connection, queries.newest_server_time(server.instance))
            kept = continued(ServerTime(**row) if row else None, server)
            await connection.execute(queries.save_server_time(dialect, asdict(kept)))

    # --- beside the queue ---------------------------------------------------------------------------------------------

    @whole
    async def check(self) -> None:
        """Raises `JouleboxError("database")` where the database does not answer."""
        async with self._database.read() as connection:
            await connection.execute(queries.all_nodes().limit(1))

    @whole
    async def page(self, limit: int, before: int | None, owner: str | None = None) -> Page:
        """Up to `limit` jobs, newest first, beginning at number `before`; only those of `owner` where one is named."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.job_page(limit, before, owner))).mappings().all()
            following = rows[limit]["number"] if len(rows) > limit else None
            return Page(records=tuple(_record(row) for row in rows[:limit]), next_number=following)

    @whole
    async def trace(self, receipt_id: str) -> bytes | None:
        """The evidence behind a receipt, as the node sent it."""
        async with self._database.read() as connection:
            row = await _row(connection, queries.trace_of_receipt(receipt_id))
            return bytes(row["blob"]) if row else None

    @whole
    async def asked(self, receipt_id: str) -> Record | None:
        """The job that a receipt is of."""
        async with self._database.read() as connection:
            row = await _row(connection, queries.job_of_receipt(receipt_id))
            return _record(row) if row else None

    @whole
    async def share(self, job_id: str, *, shared: bool) -> None:
        """Let everybody who has its link read the texts of a job, or nobody else any more."""
        async with self._database.write() as connection:
            await connection.execute(queries.share(job_id, shared=shared))

    @whole
    async def erase(self, job_id: str, now: datetime) -> None:
        """Remove the texts of a job: prompt and answer. The evidence holds none and stays."""
        async with self._database.write() as connection:
            prompt = (await _job(connection, job_id)).job.prompt
            await connection.execute(queries.erase_text(job_id, asdict(replace(prompt, messages=(), stop=())), now))
        await self._database.wipe()

    @whole
    async def erase_before(self, finalized: datetime, now: datetime, limit: int) -> int:
        """Remove the texts of up to `limit` jobs that were over by then, and who asked them; how many there were."""
        async with self._database.write() as connection:
            rows = (await connection.execute(queries.outdated(finalized, limit))).mappings().all()
            for row in rows:
                prompt = asdict(replace(_PROMPT.validate_python(row["prompt"]), messages=(), stop=()))
                await connection.execute(queries.erase_text(row["id"], prompt, now).values(asker=None))
        if rows:
            await self._database.wipe()
        return len(rows)

    # --- what a period holds ------------------------------------------------------------------------------------------

    @whole
    async def node_idle(self, start: datetime, until: datetime, node: str | None = None) -> Sequence[NodeIdle]:
        """What nodes drew between jobs, or one of them, in rows that touch the period."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.idle_within(start, until, node))).mappings()
            return [_node_idle(row) for row in rows]

    @whole
    async def server_time(self, start: datetime, until: datetime) -> Sequence[ServerTime]:
        """What servers used, in rows that touch the period."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.server_time_within(start, until))).mappings()
            return [ServerTime(**row) for row in rows]

    @whole
    async def finished_jobs(self, start: datetime, until: datetime, after: int, limit: int) -> Sequence[FinishedJob]:
        """Jobs that came to their end in a period, in the order of asking, from number `after` on."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.finished_within(start, until, after, limit))).mappings()
            return [FinishedJob(**{**row, "body": bytes(row["body"]) if row["body"] else None}) for row in rows]

    @whole
    async def evidence(self, job_id: str) -> Sequence[tuple[int, str, AttemptState, bytes | None]]:
        """All attempts at a job: number, node, how it ended, and its evidence."""
        async with self._database.read() as connection:
            rows = await connection.execute(queries.evidence_of(job_id))
            return [
                (row.number, row.node, AttemptState(row.state), bytes(row.blob) if row.blob else None) for row in rows
            ]

    @whole
    async def under_way(self, start: datetime, until: datetime) -> Sequence[tuple[str, datetime, datetime]]:
        """When nodes worked in a period at what came to its end after it."""
        async with self._database.read() as connection:
            rows = await connection.execute(queries.under_way(start, until))
            return [(row.node, row.leased, row.finished or until) for row in rows]

    @whole
    async def first_signs(self) -> Mapping[str, datetime]:
        """When each node first took a job or told of waiting."""
        async with self._database.read() as connection:
            found: dict[str, datetime] = {}
            for rows in (queries.first_leases(), queries.first_idle()):
                for row in await connection.execute(rows):
                    found[row.node] = min(found.get(row.node, row.at), row.at)
            return found

    # --- receipts made again, and the grid ----------------------------------------------------------------------------

    @whole
    async def kept(self, receipt_id: str) -> KeptReceipt | None:
        """The newest revision of a receipt, with its evidence."""
        async with self._database.read() as connection:
            row = await _row(connection, queries.kept_receipt(receipt_id))
        if row is None:
            return None
        made = StoredReceipt(id=row["id"], factors=row["factors"], body=bytes(row["body"]), revision=row["revision"])
        return KeptReceipt(receipt=made, job_id=row["job_id"], attempt=row["number"], trace=bytes(row["blob"]))

    @whole
    async def add_revision(self, receipt: StoredReceipt, now: datetime) -> bool:
        """Keep a further revision beside the earlier ones; `False` where somebody else has just made it."""
        async with self._database.write() as connection:
            first = await _one(connection, queries.receipt(receipt.id))
            values = {name: first[name] for name in ("id", "job_id", "trace_token")} | {
                "revision": receipt.revision,
                "factors": dict(receipt.factors),
                "body": receipt.body,
                "created": now,
            }
            added = await connection.execute(queries.add_revision(connection.dialect.name, values))
            return added.rowcount == 1

    @whole
    async def receipt_ids(
        self, since: datetime | None, limit: int, after: int, owner: str | None = None
    ) -> tuple[Sequence[str], int | None]:
        """Ids of receipts in the order of asking, and the number after which the next page begins; only those of
        `owner` where one is named."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.receipt_page(since, limit, after, owner))).all()
        following = rows[limit - 1].number if len(rows) > limit else None
        return [row.receipt_id for row in rows[:limit]], following

    @whole
    async def grid_values(self, zone: str | None, start: datetime, until: datetime) -> Sequence[GridValue]:
        """What live sources said of a zone, or of all, between two moments."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.grid_values_of(zone, start, until))).mappings()
            return [GridValue(**{name: row[name] for name in row if name != "fetched"}) for row in rows]

    @whole
    async def keep_grid_values(self, values: Sequence[GridValue], now: datetime) -> None:
        """Keep what a live source says, in place of what it said of the same slots before."""
        async with self._database.write() as connection:
            for value in values:
                row = asdict(value) | {"fetched": now}
                await connection.execute(queries.save_grid_value(connection.dialect.name, row))

    @whole
    async def due_rechecks(self, now: datetime) -> Sequence[Recheck]:
        """Receipts to look at again by now."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.due_rechecks(now))).mappings()
            return [Recheck(**row) for row in rows]

    @whole
    async def next_recheck(self) -> datetime | None:
        """When the next receipt is to be looked at."""
        async with self._database.read() as connection:
            due: datetime | None = (await _one(connection, queries.next_recheck()))["due"]
            return due

    @whole
    async def set_recheck(self, receipt_id: str, due: datetime | None) -> None:
        """Look at a receipt later, or no more."""
        change = queries.drop_recheck(receipt_id) if due is None else queries.move_recheck(receipt_id, due)
        async with self._database.write() as connection:
            await connection.execute(change)


# --- rows to nouns ----------------------------------------------------------------------------------------------------


async def _row(connection: AsyncConnection, rows: queries.Asked) -> RowMapping | None:
    return (await connection.execute(rows)).mappings().first()


async def _scalar(connection: AsyncConnection, rows: queries.Rows) -> Any:
    return (await connection.execute(rows)).scalar_one()


async def _one(connection: AsyncConnection, rows: queries.Asked) -> RowMapping:
    return (await connection.execute(rows)).mappings().one()


async def _job(connection: AsyncConnection, job_id: str) -> Record:
    return _record(await _one(connection, queries.job(job_id)))


async def _keep_trace(connection: AsyncConnection, token: str, blob: bytes) -> None:
    digest = hashlib.sha256(blob).hexdigest()
    await connection.execute(insert(traces).values(token=token, sha256=digest, blob=blob))


async def _keep_evidence(
    connection: AsyncConnection, token: str, job_id: str, delivery: Delivery, now: datetime
) -> None:
    await _keep_trace(connection, token, delivery.trace)
    if (receipt := delivery.receipt) is not None:
        values = {
            "id": receipt.id,
            "job_id": job_id,
            "revision": receipt.revision,
            "trace_token": token,
            "factors": dict(receipt.factors),
            "body": receipt.body,
            "created": now,
        }
        await connection.execute(insert(receipts).values(values))
        if receipt.recheck is not None:
            await connection.execute(insert(rechecks).values(asdict(receipt.recheck)))


async def _keep_control(connection: AsyncConnection, entry: Entry, node: str) -> None:
    baseline = entry.baseline
    number = baseline.number if baseline else None
    if baseline is not None and number is None:
        number = await _new_baseline(connection, baseline)
    elif baseline is not None and number is not None:
        subject = asdict(baseline.subject) if baseline.subject else None
        learnt = {"subject": subject, "mean_j": baseline.mean_j, "spread_j": baseline.spread_j}
        await connection.execute(queries.fix_baseline(number, **learnt))
    await connection.execute(insert(control_runs).values(asdict(entry.run) | {"node": node, "baseline": number}))


async def _new_baseline(connection: AsyncConnection, baseline: Baseline) -> int:
    values = {name: value for name, value in asdict(baseline).items() if name != "number"}
    key = (await connection.execute(insert(baselines).values(values))).inserted_primary_key
    return int(key[0]) if key else 0


def _baseline(row: RowMapping) -> Baseline:
    subject = Subject(**row["subject"]) if row["subject"] else None
    return Baseline(**{name: row[name] for name in row if name != "subject"}, subject=subject)


def _control_run(row: RowMapping) -> ControlRun:
    return ControlRun(**{name: row[name] for name in row if name not in {"node", "baseline"}})


def _error(problem: Problem | None) -> dict[str, Any]:
    return {"error_code": problem.code, "error_detail": problem.detail} if problem else {}


def _record(row: RowMapping) -> Record:
    error = Problem(code=row["error_code"], detail=row["error_detail"]) if row["error_code"] else None
    job = Job(
        id=row["id"],
        state=JobState(row["state"]),
        prompt=_PROMPT.validate_python(row["prompt"]),
        created=row["created"],
        available=row["available"],
        attempt=row["attempt"],
        node=row["node"],
        finalized=row["finalized"],
        answer=row["answer"],
        finish_reason=row["finish_reason"],
        receipt_id=row["receipt_id"],
        error=error,
    )
    names = ("number", "placement", "cancel", "purpose", "rank", "due", "owner", "shared")
    plan = _PLAN.validate_python(row["plan"]) if row["plan"] else None
    return Record(job=job, plan=plan, erased=row["erased"] is not None, **{name: row[name] for name in names})


def _placed(place: Place) -> dict[str, Any]:
    """What a place changes of a job: urgent work is as work that somebody waits for."""
    values = {
        "placement": place.line,
        "available": place.start,
        "due": place.due,
        "plan": _PLAN.dump_python(place.plan, mode="json"),
    }
    return values | ({"rank": RANKS["interactive"]} if place.urgent else {})


async def _keep_past_run(connection: AsyncConnection, record: Record, delivery: Delivery) -> None:
    """What the answer took, beside those before it."""
    job = record.job
    if delivery.past_run is None or job.node is None:
        return
    digest, run = delivery.past_run
    known = await _row(connection, queries.past_runs_of(job.prompt.model, job.node))
    runs = known["runs"] if known is not None and known["digest"] == digest else []
    values = {"model": job.prompt.model, "node": job.node, "digest": digest, "runs": [*runs, asdict(run)][-RECENT:]}
    await connection.execute(queries.save_past_runs(connection.dialect.name, values))


def _attempt(row: RowMapping) -> Attempt:
    names = ("token", "job_id", "number", "node", "instance", "reason", "leased", "owner")
    values = {name: row[name] for name in names}
    problem = Problem(**row["problem"]) if row["problem"] else None
    return Attempt(**values, state=AttemptState(row["state"]), problem=problem)


def _node(row: RowMapping, own: int | None) -> NodeRecord:
    known = {name: row[name] for name in row if name not in {"name", "seen", "replica", "drained", "drained_why"}}
    offer = _OFFER.validate_python(known | {"version": VERSION, "node": row["name"]})
    drain = Drain(at=row["drained"], why=row["drained_why"] or "") if row["drained"] else None
    return NodeRecord(offer=offer, seen=row["seen"], elsewhere=row["replica"] not in {None, own}, drain=drain)


def _node_idle(row: RowMapping) -> NodeIdle:
    counted = _COUNTED.validate_python(row["counted"])
    return NodeIdle(**{name: row[name] for name in row if name != "counted"}, counted=counted)
