"""The `Queue` port on a database, and what else is kept: lists of jobs, receipts, evidence, nodes."""

import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from joulebox.logs import about
from joulebox.model import FINAL_STATES, AttemptState, JobState, Prompt, Purpose
from joulebox.protocol import LeaseRequest
from joulebox.server.control import Baseline, Book
from joulebox.server.grid.chain import GridValue
from joulebox.server.idle import NodeIdle, ServerTime
from joulebox.server.jobs import (
    LONGEST_EVERY,
    RANKS,
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
    Recheck,
    Record,
    Replay,
    StoredReceipt,
    new_id,
)
from joulebox.server.store import busy, queries
from joulebox.server.store.access_books import AccessBooks
from joulebox.server.store.campaign_books import CampaignBooks
from joulebox.server.store.database import database_at, settled, whole
from joulebox.server.store.feedback_books import FeedbackBooks
from joulebox.server.store.node_books import NodeBooks
from joulebox.server.store.rows import (
    attempt_of,
    baseline_of,
    control_run_of,
    node_idle_of,
    node_of,
    place_columns,
    prompt_of,
    record_of,
)
from joulebox.server.store.seeing_books import SeeingBooks
from joulebox.server.store.sleep_books import SleepBooks
from joulebox.server.store.tables import attempts, jobs, nodes
from joulebox.server.store.talk_books import TalkBooks
from joulebox.server.talking import without_earlier
from joulebox.server.tracing import incoming

_log = logging.getLogger(__name__)
SETTLED_S: Final = 5.0
"""So long the end of a server waits for transactions that nobody waits for any more."""


class Store:
    """Everything durable. Every method may raise `JouleboxError("database")`."""

    def __init__(self, url: str) -> None:
        self._database = database_at(url)
        self.access = AccessBooks(self._database)
        self.sleeps = SleepBooks(self._database, self._tell)
        self.talks = TalkBooks(self._database)
        self.campaigns = CampaignBooks(self._database)
        self.feedback = FeedbackBooks(self._database)
        self.seeing = SeeingBooks(self._database)
        self.ended: Callable[[Record], None] = lambda _: None
        """Called where a prompt has come to its end through this server."""
        self.hidden = NodeBooks(self._database)
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
            return [(attempt_of(row), await _job(connection, row["job_id"])) for row in rows]

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
            return Held(attempt=attempt_of(row), record=await _job(connection, row["job_id"]), url=url)

    @whole
    async def token_of(self, job_id: str) -> str | None:
        async with self._database.read() as connection:
            row = await _row(connection, queries.token_of(job_id))
            return row["token"] if row else None

    @whole
    async def working(self) -> Mapping[str, datetime]:
        return await self._database.carry_out(busy.working(self._replica), "look")

    @whole
    async def running_on(self, node: str) -> Sequence[str]:
        return await self._database.carry_out(busy.running_on(node), "look")

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
            "asker": asker,
            "owner": owner,
            "traceparent": incoming() if purpose == "prompt" else None,
        } | (place_columns(place) if place is not None else {})
        record = await self._database.carry_out(busy.enqueue(values), "single")
        if record is None:
            assert key is not None
            earlier = await self.by_key(key)
            assert earlier is not None
            return earlier, False
        self._tell("plan" if deferred else "ready", record.job.id)
        return record, True

    @whole
    async def by_key(self, key: str) -> Record | None:
        return await self._database.carry_out(busy.by_key(key), "look")

    @whole
    async def claim(self, request: LeaseRequest, why: Callable[[Record], str], now: datetime) -> Claim | None:
        if not request.models:
            return None
        longest = self._claims[request.node] % LONGEST_EVERY == LONGEST_EVERY - 1
        # Where nothing else is kept just now a look spares SQLite's one writer; Postgres locks only what it finds.
        looks = not (self.shared or self._database.keeps)
        if looks and not await self._database.carry_out(busy.waits(request, longest=longest), "look"):
            return None
        steps = busy.claim(request, why, now, self._replica, longest=longest)
        claim = await self._database.carry_out(steps, "change")
        if claim is None:
            return None
        self._claims[request.node] += 1
        attempt = claim.attempt
        self._tell("job", attempt.job_id)
        what = about(job=attempt.job_id, attempt=attempt.number, node=attempt.node)
        _log.info("node %s takes prompt %s, attempt %d", attempt.node, attempt.job_id, attempt.number, extra=what)
        return claim

    @whole
    async def close_attempt(
        self, token: str, ending: Ending, attempts_max: int, now: datetime, *, own: bool = False
    ) -> Record | None:
        steps = busy.close_attempt(token, ending, attempts_max, now, self._replica if own else None)
        closed = await self._database.carry_out(steps, "change")
        if closed is None:
            return None
        record, node = closed
        job, again = record.job, record.job.state is JobState.AVAILABLE
        self._tell("ready" if again else "job", job.id)
        _log.log(
            logging.INFO if ending.state is AttemptState.CANCELLED else logging.WARNING,
            "attempt %d at prompt %s is %s%s",
            job.attempt,
            job.id,
            ending.state,
            ", it goes back into the line" if again else "",
            extra=about(job=job.id, attempt=job.attempt, node=node, problem=ending.problem and ending.problem.code),
        )
        self._end(record, node)
        return record

    @whole
    async def earlier(self, job_id: str, number: int) -> Sequence[tuple[int, bytes | None]]:
        async with self._database.read() as connection:
            rows = await connection.execute(queries.earlier_evidence(job_id, number))
            return [(row.number, bytes(row.blob) if row.blob is not None else None) for row in rows]

    @whole
    async def complete(self, token: str, delivery: Delivery, now: datetime) -> Record | None:
        record = await self._database.carry_out(busy.complete(token, delivery, now), "change")
        if record is not None:
            self._tell("job", record.job.id)
            self._end(record, record.job.node)
        return record

    @whole
    async def cancel(self, job_id: str, now: datetime) -> Record | None:
        record = await self._database.carry_out(busy.cancel(job_id, now), "change")
        self._tell("job", job_id)
        if record is not None and record.job.finalized == now:
            self._end(record, None)
        return record

    def _end(self, record: Record, node: str | None) -> None:
        """A prompt has come to its end, where it has."""
        job = record.job
        if job.state in FINAL_STATES:
            what = about(job=job.id, attempt=job.attempt or None, node=node, receipt=job.receipt_id)
            _log.info("prompt %s is %s", job.id, job.state, extra=what)
            self.ended(record)

    @whole
    async def record(self, job_id: str) -> Record | None:
        return await self._database.carry_out(busy.record(job_id), "look")

    @whole
    async def attempt(self, token: str) -> Attempt | None:
        row = await self._database.carry_out(busy.attempt(token), "look")
        return attempt_of(row) if row else None

    @whole
    async def running(self) -> Sequence[tuple[Attempt, Record]]:
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.running_attempts())).mappings().all()
            return [(attempt_of(row), await _job(connection, row["job_id"])) for row in rows]

    @whole
    async def before(self, job_ids: Sequence[str]) -> Mapping[str, Mapping[tuple[str, str], int]]:
        if len(job_ids) == 1:
            return {job_ids[0]: await self._database.carry_out(busy.before(job_ids[0]), "look")}
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
            return [record_of(row) for row in (await connection.execute(queries.planned(after, limit))).mappings()]

    @whole
    async def due(self, now: datetime, limit: int) -> Sequence[Record]:
        """Jobs whose plan is to be looked at by now."""
        async with self._database.read() as connection:
            return [record_of(row) for row in (await connection.execute(queries.due(now, limit))).mappings()]

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
            values = place_columns(place) | {"state": JobState.DEFERRED if waits else JobState.AVAILABLE}
            if record.job.state is JobState.DEFERRED and not waits:
                values["turn"] = queries.outstanding_with(record.job.id).scalar_subquery()
            moved = queries.move_job(record.job.id, record.job.state, **values).where(jobs.c.due == record.due)
            row = await _row(connection, moved)
        if row is None:
            return None
        self._tell("plan" if waits else "ready", record.job.id)
        return record_of(row)

    @whole
    async def past_runs(self, model: str) -> Mapping[str, Sequence[PastRun]]:
        """What past runs of a model took, by node, oldest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.past_runs_of(model))).mappings()
            return {row["node"]: [PastRun(**run) for run in row["runs"]] for row in rows}

    @whole
    async def durations_s(self, count: int) -> Sequence[tuple[str, float]]:
        async with self._database.read() as connection:
            rows = await connection.execute(queries.recent_done(count))
            return [(row.model, (row.finished - row.leased).total_seconds()) for row in rows]

    @whole
    async def replay(self, job_id: str) -> Replay | None:
        return await self._database.carry_out(busy.replay(job_id), "look")

    @whole
    async def receipt(self, receipt_id: str, revision: int | None = None) -> bytes | None:
        if revision is None:
            return await self._database.carry_out(busy.receipt(receipt_id), "look")
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
    async def nodes(self, names: Collection[str] | None = None) -> Sequence[NodeRecord]:
        async with self._database.read() as connection:
            wanted = queries.all_nodes() if names is None else queries.some_nodes(names)
            rows = (await connection.execute(wanted)).mappings().all()
            return [node_of(row, self._replica) for row in rows]

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
                baseline=baseline_of(found) if found else None,
                runs=tuple(control_run_of(row) for row in reversed(rows)),
                asked=asked["created"] if asked else None,
                prompts_since=int(count["count"]),
            )

    @whole
    async def rebaseline(self, baseline: Baseline) -> None:
        await self._database.carry_out(busy.new_baseline(baseline), "change")
        self._tell("node", baseline.node)

    @whole
    async def keep_idle(self, stretches: Sequence[NodeIdle], server: ServerTime) -> None:
        await self._database.carry_out(busy.keep_idle(stretches, server), "change")

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
            return Page(records=tuple(record_of(row) for row in rows[:limit]), next_number=following)

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
            return record_of(row) if row else None

    @whole
    async def share(self, job_id: str, *, shared: bool) -> None:
        """Let everybody who has its link read the texts of a job, or nobody else any more."""
        async with self._database.write() as connection:
            await connection.execute(queries.share(job_id, shared=shared))

    @whole
    async def erase(self, job_id: str, now: datetime, later: Sequence[str] = ()) -> None:
        """Remove the texts of a job, prompt and answer, also from the jobs that go on from it. The evidence holds none
        and stays."""
        async with self._database.write() as connection:
            prompt = (await _job(connection, job_id)).job.prompt
            await connection.execute(
                queries.erase_text(job_id, asdict(replace(prompt, messages=(), stop=(), tools=())), now)
            )
            for one in later:
                left = without_earlier((await _job(connection, one)).job.prompt)
                await connection.execute(queries.shorten(one, asdict(left)))
        await self._database.wipe()

    @whole
    async def erase_before(self, finalized: datetime, now: datetime, limit: int) -> int:
        """Remove the texts of up to `limit` jobs that were over by then, and who asked them; how many there were."""
        async with self._database.write() as connection:
            rows = (await connection.execute(queries.outdated(finalized, limit))).mappings().all()
            for row in rows:
                prompt = asdict(replace(prompt_of(row), messages=(), stop=(), tools=()))
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
            return [node_idle_of(row) for row in rows]

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
        """Ids of receipts in the order of asking, or from `since` on in the order of finishing, and the number after
        which the next page begins; only those of `owner` where one is named."""
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
    return record_of(await _one(connection, queries.job(job_id)))
