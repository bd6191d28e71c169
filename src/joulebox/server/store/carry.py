"""Carry everything from one database to another, of either kind: `joulebox db copy`. Whole or not at all."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Integer, Table, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from joulebox.errors import JouleboxError
from joulebox.server.store import queries
from joulebox.server.store.database import Database, database_at
from joulebox.server.store.tables import metadata, replicas

BATCH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """How many rows of a table arrived."""

    table: str
    rows: int


def migrate(url: str) -> None:
    """Bring the schema of a database up to date, making its tables where there are none.

    Raises `JouleboxError`: `bad_setting`, `database`.
    """

    async def run() -> None:
        database = database_at(url)
        await database.open()
        await database.close()

    asyncio.run(run())


def copy(source: str, target: str, progress: Callable[[str, int, int], None]) -> list[Carried]:
    """Copy every row from `source` to the empty `target`, both brought up to date first. `progress` is told the table,
    the rows done and all of them. Nothing arrives unless all does; the source stays as it is.

    Raises `JouleboxError`: `bad_setting`, `database`; `bad_request` where the target holds something already, or
    a server still uses the source.
    """
    return asyncio.run(_copy(database_at(source), database_at(target), progress))


async def _copy(source: Database, target: Database, progress: Callable[[str, int, int], None]) -> list[Carried]:
    await source.open()
    try:
        await target.open()
        try:
            async with source.write() as there, target.write() as here:
                await _refuse_full(here)
                await refuse_live(there, "the source")
                return await carry_over(there, here, progress)
        finally:
            await target.close()
    finally:
        await source.close()


async def _refuse_full(here: AsyncConnection) -> None:
    for table in metadata.sorted_tables:
        if (await here.execute(select(func.count()).select_from(table))).scalar_one():
            sentence = f"The target holds {table.name} already: give an empty database, so that nothing is mixed."
            raise JouleboxError("bad_request", sentence)


async def refuse_live(there: AsyncConnection, which: str) -> None:
    """A file is locked by its server; of Postgres the servers must be asked for.

    Raises `JouleboxError("bad_request")` where one uses it.
    """
    if there.dialect.name == "postgresql":
        living = select(func.count()).select_from(replicas).where(queries.alive(replicas.c.id))
        if (await there.execute(living)).scalar_one():
            raise JouleboxError("bad_request", f"A server uses {which}: stop it first, so that nothing is left behind.")


async def carry_over(
    there: AsyncConnection, here: AsyncConnection, progress: Callable[[str, int, int], None]
) -> list[Carried]:
    """Copy every row of both schemas, which are alike, in the transactions of their connections.

    Raises `JouleboxError("database")` where not all arrive.
    """
    tables = [table for table in metadata.sorted_tables if table is not replicas]
    return [await _table(there, here, table, progress) for table in tables]


async def _table(
    there: AsyncConnection, here: AsyncConnection, table: Table, progress: Callable[[str, int, int], None]
) -> Carried:
    """All rows of a table, in the order of its key; who looks after what means nothing elsewhere."""
    total = (await there.execute(select(func.count()).select_from(table))).scalar_one()
    rows = await there.stream(select(table).order_by(*table.primary_key.columns))
    done = 0
    nobody = {"attempts": {"owner": None}, "nodes": {"replica": None}}.get(table.name, {})
    async for batch in rows.mappings().partitions(BATCH):
        await here.execute(table.insert(), [dict(row) | nobody for row in batch])
        done += len(batch)
        progress(table.name, done, total)
    if done != total:
        raise JouleboxError("database", f"Of {total} rows of {table.name} {done} arrived: nothing was kept.")
    await _count_on(here, table)
    return Carried(table=table.name, rows=done)


async def _count_on(here: AsyncConnection, table: Table) -> None:
    """On Postgres numbers are counted apart from the rows: go on after the last one."""
    key = list(table.primary_key.columns)
    if here.dialect.name != "postgresql" or len(key) != 1 or not isinstance(key[0].type, Integer):
        return
    sequence = (await here.execute(select(func.pg_get_serial_sequence(table.name, key[0].name)))).scalar()
    if sequence is not None:
        last = select(func.coalesce(func.max(key[0]), 0) + 1).scalar_subquery()
        await here.execute(select(func.setval(text(f"'{sequence}'"), last, False)))
