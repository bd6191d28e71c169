"""What those want to read who watch the service: running totals, what waits, a prompt's life, receipts by the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import Insert, bindparam, func, select, true, union_all

from joulebox.model import AttemptState, JobState
from joulebox.server.jobs import Record
from joulebox.server.store import queries
from joulebox.server.store.database import Database, whole
from joulebox.server.store.rows import record_of
from joulebox.server.store.steps import Prepared, Steps, done
from joulebox.server.store.tables import PLANNED, attempts, jobs, receipts, tallies, traces
from joulebox.server.tallies import Tally, summed

DEFERRED_MAX: Final = 10_000
"""So many deferred prompts are counted: a look must not cost more the longer the line is."""
Labels = Mapping[str, str]
Totals = Mapping[str, Sequence[tuple[Labels, float]]]
"""Of each total its values by labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What the database tells at one moment: running totals, and how many prompts are where, by model and state; those
    that wait counted up to `BEFORE_MAX` in each line, deferred ones up to `DEFERRED_MAX`."""

    totals: Totals
    prompts: Mapping[tuple[str, JobState], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attempt of a prompt's life; `problem` is the code of what went wrong, `trace` its evidence."""

    number: int
    node: str
    state: AttemptState
    leased: datetime
    finished: datetime | None
    problem: str | None
    trace: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A prompt from asking to its end; `receipt` is the body of its newest receipt."""

    record: Record
    tried: Sequence[Tried]
    receipt: bytes | None


# --- steps of others' transactions ------------------------------------------------------------------------------------


@cache
def _add(count: int) -> Prepared:
    """So many additions at once."""
    names = [column.name for column in tallies.c]

    def build(dialect: str) -> Insert:
        rows = union_all(
            *(
                select(*(bindparam(f"{one.name}_{place}", type_=one.type).label(one.name) for one in tallies.c)).where(
                    true()  # else SQLite takes what follows for a join
                )
                for place in range(count)
            )
        )
        added = queries.insert_into(dialect, tallies).from_select(names, rows)
        grown = tallies.c.total + added.excluded.total
        upserted: Insert = added.on_conflict_do_update(index_elements=["name", "labels"], set_={"total": grown})
        return upserted

    return Prepared(build)


def add(found: Sequence[Tally]) -> Steps[None]:
    """Let totals grow, in one statement. It comes last in its transaction, and takes rows in one order: so nobody waits
    for anybody in a circle."""
    rows = summed(found)
    if rows:
        values: dict[str, Any] = {}
        for place, one in enumerate(rows):
            values |= {f"name_{place}": one.name, f"labels_{place}": _text(one), f"total_{place}": one.amount}
        yield from done(_add(len(rows)), **values)


def _text(one: Tally) -> str:
    return json.dumps(dict(one.labels), ensure_ascii=False, separators=(",", ":"))


@lru_cache(maxsize=20_000)
def _labels(text: str) -> Labels:
    found: Labels = json.loads(text)
    return found


# --- looks ------------------------------------------------------------------------------------------------------------

_TOTALS: Final = Prepared(select(tallies))
_WAITING: Final = Prepared(queries.crowd())
_RUNNING: Final = Prepared(
    select(jobs.c.model, func.count().label("count"))
    .join(attempts, attempts.c.job_id == jobs.c.id)
    .where(attempts.c.state == AttemptState.RUNNING)
    .group_by(jobs.c.model)
)
_ONES: Final = select(jobs.c.model).where(PLANNED, jobs.c.state == JobState.DEFERRED).limit(DEFERRED_MAX).subquery()
_DEFERRED: Final = Prepared(select(_ONES.c.model, func.count().label("count")).group_by(_ONES.c.model))


def _watched() -> Steps[Watched]:
    totals: dict[str, list[tuple[Labels, float]]] = {}
    for row in (yield _TOTALS, {}):
        totals.setdefault(row["name"], []).append((_labels(row["labels"]), row["total"]))
    prompts: dict[tuple[str, JobState], int] = {}
    looks = {JobState.AVAILABLE: _WAITING, JobState.RUNNING: _RUNNING, JobState.DEFERRED: _DEFERRED}
    for state, look in looks.items():
        for row in (yield look, {}):
            key = row["model"], state
            prompts[key] = prompts.get(key, 0) + int(row["count"])
    return Watched(totals=totals, prompts=prompts)


class SeeingBooks:
    """What the database tells of the service. Every method may raise `JouleboxError("database")`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @whole
    async def watched(self) -> Watched:
        """Running totals and what waits; what that costs grows neither with receipts nor with the line."""
        return await self._database.carry_out(_watched(), "look")

    @whole
    async def life(self, job_id: str) -> Life | None:
        """A prompt with its attempts and its receipt."""
        tried = (
            select(attempts, traces.c.blob)
            .outerjoin(traces, traces.c.token == attempts.c.token)
            .where(attempts.c.job_id == job_id)
            .order_by(attempts.c.number)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(queries.job(job_id))).mappings().first()
            if row is None:
                return None
            record = record_of(row)
            rows = (await connection.execute(tried)).mappings().all()
            made = (await connection.execute(queries.receipt(record.job.receipt_id or ""))).mappings().first()
        body = bytes(made["body"]) if made is not None else None
        return Life(record=record, tried=[_tried(one) for one in rows], receipt=body)

    @whole
    async def receipts(
        self, since: datetime | None, limit: int, after: int, owner: str | None, *, revisions: bool
    ) -> tuple[Sequence[bytes], int | None]:
        """The bodies of up to `limit` receipts in the order of `Store.receipt_ids`, each in its newest revision or in
        all of them, oldest first; and the number after which the next page begins."""
        async with self._database.read() as connection:
            page = (await connection.execute(queries.receipt_page(since, limit, after, owner))).all()
            ids = [row.receipt_id for row in page[:limit]]
            wanted = select(receipts.c.id, receipts.c.body).where(receipts.c.id.in_(ids)).order_by(receipts.c.revision)
            bodies: dict[str, list[bytes]] = {one: [] for one in ids}
            for row in await connection.execute(wanted):
                bodies[row.id].append(bytes(row.body))
        found = [body for made in bodies.values() for body in (made if revisions else made[-1:])]
        return found, page[limit - 1].number if len(page) > limit else None


def _tried(row: Any) -> Tried:
    problem = row["problem"]
    return Tried(
        number=row["number"],
        node=row["node"],
        state=AttemptState(row["state"]),
        leased=row["leased"],
        finished=row["finished"],
        problem=problem["code"] if problem else None,
        trace=bytes(row["blob"]) if row["blob"] is not None else None,
    )
