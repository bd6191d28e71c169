"""Databases of earlier versions come up to the newest schema with all that is in them; later ones are refused."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, Table
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

import postgres_server
from commands import joulebox
from joulebox.accounting import METHOD_VERSION
from joulebox.errors import JouleboxError
from joulebox.model import JobState
from joulebox.server.jobs import StoredReceipt
from joulebox.server.store import archive
from joulebox.server.store.schema import HEAD, _chain
from server_stage import stage
from test_backup import quiet, url_of
from test_queue import opened

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OLDER = Path(__file__).with_name("older")
"""Databases that earlier versions wrote, as SQL, each by its own code (`write.py`): two answers, and one that waits."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def schemas() -> list[str]:
    """All schemas there ever were, oldest first."""
    from alembic.script import ScriptDirectory

    chain = ScriptDirectory.from_config(_chain())
    return [each.revision for each in reversed(list(chain.walk_revisions()))]


def to(connection: Connection, schema: str) -> None:
    """Bring a database to that schema, as an earlier version would have."""
    from alembic import command

    config = _chain()
    config.attributes["connection"] = connection
    command.upgrade(config, schema)


def insert(connection: Connection, name: str, row: Mapping[str, Any]) -> None:
    """A row with what the table of this moment has of `row`."""
    table = Table(name, MetaData(), autoload_with=connection, resolve_fks=False)
    connection.execute(table.insert().values({key: value for key, value in row.items() if key in table.c}))


def live(connection: Connection, schema: str, number: int) -> None:
    """What a day under one schema leaves: a node, an answered prompt with evidence and receipt, one that waits."""
    at = NOW + timedelta(days=number)
    prompt = {"model": "m", "messages": [{"role": "user", "content": f"asked under {schema}"}]}
    asked = {"model": "m", "placement": "fastest", "prompt": prompt, "created": at, "available": at, "cancel": False}
    done = {"state": "completed", "attempt": 1, "node": "n", "finalized": at, "answer": "Hi.", "finish_reason": "stop"}
    waits = {"state": "available", "attempt": 0}
    insert(connection, "jobs", asked | done | {"number": 2 * number, "id": f"j{schema}", "receipt_id": f"r{schema}"})
    insert(connection, "jobs", asked | waits | {"number": 2 * number + 1, "id": f"w{schema}"})
    attempt = {"job_id": f"j{schema}", "number": 1, "node": "n", "instance": "i", "state": "done", "reason": "because"}
    insert(connection, "attempts", attempt | {"token": f"t{schema}", "leased": at, "finished": at})
    insert(connection, "traces", {"token": f"t{schema}", "sha256": "", "blob": schema.encode()})
    receipt = {"id": f"r{schema}", "job_id": f"j{schema}", "revision": 1, "trace_token": f"t{schema}", "created": at}
    insert(connection, "receipts", receipt | {"factors": {"pue": 1.5}, "body": b"{}" + schema.encode()})
    told: dict[str, Any] = {"engine": {"name": "e", "version": "1"}, "models": [], "channels": [], "missing": []}
    insert(
        connection, "nodes", told | {"name": f"n{schema}", "instance": "i", "memory_bytes": 1, "unfit": [], "seen": at}
    )


async def lived(where: Path | str, past: list[str]) -> None:
    """A database that was there under each schema of `past`, and is left at the last one."""
    url = make_url(url_of(where))
    engine = create_async_engine(
        url.set(drivername={"sqlite": "sqlite+aiosqlite"}.get(url.drivername, "postgresql+asyncpg"))
    )
    async with engine.begin() as connection:
        for number, schema in enumerate(past):
            await connection.run_sync(to, schema)
            await connection.run_sync(live, schema, number)
    await engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("empty", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_what_any_earlier_version_kept_is_there(empty: Path | str) -> None:
    """What was asked, delivered and accounted under each schema since the first stands in the newest one, byte for
    byte, and the line goes on."""
    past = schemas()[:-1]
    assert past[0] == "0001"
    assert len(past) == int(HEAD) - 1
    await lived(empty, past)
    async with opened(empty) as store:
        page = await store.page(100, None)
        states = {record.job.id: record.job.state for record in page.records}
        for schema in past:
            kept = await store.kept(f"r{schema}")
            assert kept is not None
            assert kept.receipt == StoredReceipt(id=f"r{schema}", factors={"pue": 1.5}, body=b"{}" + schema.encode())
            assert (kept.job_id, kept.trace) == (f"j{schema}", schema.encode())
            assert (states[f"j{schema}"], states[f"w{schema}"]) == (JobState.COMPLETED, JobState.AVAILABLE)
            asked = await store.asked(f"r{schema}")
            assert asked is not None
            assert asked.job.prompt.messages[0].content == f"asked under {schema}"
            assert asked.job.created == NOW + timedelta(days=past.index(schema))
        assert sorted(node.offer.node for node in await store.nodes()) == [f"n{schema}" for schema in past]


def test_a_later_version_is_refused(
    empty: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server, a backup and a restoring that meet a newer schema say so in one sentence, and change nothing."""
    asyncio.run(newer(empty))
    monkeypatch.setenv("JOULEBOX_DATABASE_URL", url_of(empty))
    monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path / "data"))
    for words in (("serve", "--port", "0"), ("db", "migrate"), ("backup", str(tmp_path / "backup.zip"))):
        code, out, err = joulebox(capsys, *words)
        assert (code, out) == (1, "")
        assert "was written by a newer Joulebox (schema 9999): update Joulebox, or use another database.\n" in err
        assert err.removesuffix("\n").splitlines()[-1].count(". ") == 0, "one sentence"
    assert not (tmp_path / "backup.zip").exists()


async def newer(where: Path | str) -> None:
    """A database whose schema this version does not know."""
    async with opened(where) as store, store._database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")


# --- databases that earlier versions wrote ----------------------------------------------------------------------------


def written(name: str, folder: Path) -> Path:
    """The folder of a server that an earlier version left."""
    folder.mkdir()
    with sqlite3.connect(folder / "joulebox.db") as by_hand:
        by_hand.executescript((OLDER / name).read_text("utf-8"))
    by_hand.close()
    return folder


def body_of(folder: Path) -> dict[str, bytes]:
    with sqlite3.connect(folder / "joulebox.db") as by_hand:
        return dict(by_hand.execute("SELECT id, body FROM receipts WHERE revision = 1"))


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(path.name for path in OLDER.glob("*.sql")))
async def test_a_server_goes_on_from_an_earlier_one(name: str, tmp_path: Path) -> None:
    """A server on a database that an earlier version wrote shows its receipts byte for byte, makes them again by
    today's method as a further revision, and answers what waited."""
    folder = written(name, tmp_path / "old")
    before = body_of(folder)
    assert before
    async with stage(folder) as scene:
        for one, body in before.items():
            page = f"/api/v1/receipts/{one}"
            assert (await scene.http.get(page)).content == body
            again = (await scene.http.post(f"{page}/recompute")).json()
            assert again["method_version"] == METHOD_VERSION
            assert (await scene.http.get(page, params={"revision": 1})).content == body
            asked = (await scene.http.get(f"/api/v1/prompts/{json.loads(body)['prompt_id']}")).json()
            assert (asked["state"], asked["answer"]) == ("completed", "Hello")
        listed = (await scene.http.get("/api/v1/prompts")).json()["prompts"]
        waiting = [one["id"] for one in listed if one["state"] == "available"]
        assert len(waiting) == 1
        lease = await scene.lease()
        assert lease["job_id"] == waiting[0]


def test_a_backup_of_an_earlier_version_is_restored(tmp_path: Path) -> None:
    """A backup with an earlier schema is brought to the newest one on the way into either database."""
    old = written(sorted(OLDER.glob("*.sql"))[0].name, tmp_path / "old")
    made = archive.back_up(url_of(old), tmp_path / "backup.zip", NOW, quiet)
    assert made.schema < HEAD
    bodies = body_of(old)

    async def kept(where: Path | str) -> dict[str, bytes]:
        async with opened(where) as store:
            return {one: body for one in bodies if (body := await store.receipt(one)) is not None}

    with postgres_server.database() as url:
        for where in (tmp_path / "new", url):
            archive.restore(tmp_path / "backup.zip", url_of(where), tmp_path, NOW, quiet)
            assert asyncio.run(kept(where)) == bodies


def test_a_backup_of_postgres_waits_for_its_own_version(tmp_path: Path) -> None:
    """A Postgres with an earlier schema, which earlier servers may still use, is neither changed nor saved in part."""
    with postgres_server.database() as url:
        asyncio.run(lived(url, schemas()[:3]))
        with pytest.raises(JouleboxError, match=r"has schema 0003, and this Joulebox .*: back it up with the one that"):
            archive.back_up(url, tmp_path / "backup.zip", NOW, quiet)
        assert not (tmp_path / "backup.zip").exists()
