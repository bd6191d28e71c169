"""What the store keeps of the grid and of receipts' revisions, on SQLite and Postgres."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from joulebox.server.grid.chain import GridValue
from joulebox.server.jobs import Recheck, StoredReceipt
from joulebox.server.store import Store
from test_queue import NOW, ask, claimed, delivery, opened

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)
VALUE = GridValue(
    zone="DE", source="gb", start=NOW, until=NOW + HOUR, g_per_kwh=300.5, quality="forecast", note="a word"
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store(where: Path | str) -> AsyncIterator[Store]:
    async with opened(where) as store:
        yield store


async def test_values_are_kept_by_slot(store: Store) -> None:
    """A slot holds what its source said last; zones, sources and times are told apart."""
    other = replace(VALUE, zone="FR", g_per_kwh=30.0)
    later = replace(VALUE, start=NOW + HOUR, until=NOW + 2 * HOUR)
    await store.keep_grid_values([VALUE, other, later], NOW)
    better = replace(VALUE, quality="measured", g_per_kwh=290.0, note="")
    await store.keep_grid_values([better], NOW + HOUR)
    assert await store.grid_values("DE", NOW, NOW + HOUR) == [better]
    assert {value.zone for value in await store.grid_values(None, NOW, NOW + 9 * HOUR)} == {"DE", "FR"}
    assert list(await store.grid_values("DE", NOW + 2 * HOUR, NOW + 9 * HOUR)) == []


async def test_revisions_stand_beside_one_another(store: Store) -> None:
    """A further revision is the newest, earlier ones stay, and the same one twice is kept once."""
    await ask(store)
    record = await store.complete((await claimed(store)).attempt.token, delivery("r1"), NOW)
    assert record is not None
    second = StoredReceipt(id="r1", factors={"pue": 2.0}, body=b"second", revision=2)
    assert await store.add_revision(second, NOW)
    assert not await store.add_revision(replace(second, body=b"late"), NOW)
    assert [await store.receipt("r1", n) for n in (None, 1, 2, 3)] == [b"second", b'{"id":"r"}', b"second", None]
    kept = await store.kept("r1")
    assert kept is not None
    assert (kept.receipt, kept.job_id, kept.attempt, kept.trace) == (second, record.job.id, 1, b"trace")
    assert await store.trace("r1") == b"trace"
    assert await store.receipt_ids(None, 5, 0) == (["r1"], None)
    assert await store.kept("nope") is None


async def test_rechecks_come_due_in_order(store: Store) -> None:
    """What a delivery asks to look at again is found when it is due, moved, and dropped."""
    assert await store.next_recheck() is None
    for name, hours in (("r2", 2), ("r1", 1)):
        await ask(store)
        made = delivery(name)
        assert made.receipt is not None
        recheck = Recheck(receipt_id=name, zone="DE", start=NOW, until=NOW, due=NOW + hours * HOUR)
        made = replace(made, receipt=replace(made.receipt, recheck=recheck))
        await store.complete((await claimed(store)).attempt.token, made, NOW)
    assert await store.next_recheck() == NOW + HOUR
    assert [one.receipt_id for one in await store.due_rechecks(NOW + 3 * HOUR)] == ["r1", "r2"]
    await store.set_recheck("r1", NOW + 5 * HOUR)
    await store.set_recheck("r2", None)
    assert list(await store.due_rechecks(NOW + 3 * HOUR)) == []
    assert await store.next_recheck() == NOW + 5 * HOUR


async def test_receipts_of_an_older_schema_are_kept(tmp_path: Path) -> None:
    """A database from before revisions is brought up to date with its receipts, byte for byte, as revision 1."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    config = Config()
    config.set_main_option("script_location", "joulebox.server.store:migrations")
    config.set_main_option("path_separator", "os")
    rows = (
        (
            "INSERT INTO jobs (number, id, state, model, placement, prompt, created, available, attempt, cancel,"
            " finalized, receipt_id) VALUES (1, 'j', 'completed', 'm', 'fastest', '{\"model\":\"m\",\"messages\":[]}',"
            " '2026-11-01', '2026-11-01', 1, 0, '2026-11-01', 'r')"
        ),
        (
            "INSERT INTO attempts (token, job_id, number, node, instance, state, reason, leased, finished)"
            " VALUES ('t', 'j', 1, 'n', 'i', 'done', '', '2026-11-01', '2026-11-01')"
        ),
        "INSERT INTO traces (token, sha256, blob) VALUES ('t', '', x'01')",
        (
            "INSERT INTO receipts (id, job_id, revision, trace_token, factors, body, created)"
            " VALUES ('r', 'j', 1, 't', '{\"pue\": 1.5}', x'7b7d', '2026-11-01')"
        ),
    )
    engine = create_engine(f"sqlite:///{tmp_path / 'joulebox.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for row in rows:
            connection.execute(text(row))
    engine.dispose()
    async with opened(tmp_path) as store:
        kept = await store.kept("r")
        assert kept is not None
        assert kept.receipt == StoredReceipt(id="r", factors={"pue": 1.5}, body=b"{}")
        assert (kept.job_id, kept.trace) == ("j", b"\x01")
        assert await store.add_revision(StoredReceipt(id="r", factors={}, body=b"[]", revision=2), NOW)
