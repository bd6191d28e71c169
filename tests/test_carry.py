"""An installation moves from one database to another with everything it holds."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

import postgres_server
from joulebox import cli
from joulebox.errors import JouleboxError
from joulebox.model import JobState
from joulebox.server.jobs import NodeRecord
from joulebox.server.store import Store, carry
from server_stage import offer
from test_queue import NOW, PROMPT, claimed, delivery, opened


async def fill(store: Store) -> str:
    """Two answered prompts, one that waits, one that runs; the receipt of the first."""
    await store.save_node(NodeRecord(offer=offer(), seen=NOW))
    receipts = []
    for number in range(4):
        await store.enqueue(PROMPT, "fastest", f"key{number}", NOW + timedelta(seconds=number), asker="a")
    for number in range(2):
        claim = await claimed(store)
        record = await store.complete(claim.attempt.token, delivery(f"receipt{number}"), NOW)
        assert record is not None
        receipts.append(str(record.job.receipt_id))
    await claimed(store)
    return receipts[0]


async def filled(where: Path | str) -> str:
    async with opened(where) as store:
        return await fill(store)


async def holds(where: Path | str) -> tuple[object, ...]:
    """What a server would find there."""
    async with opened(where) as store:
        page = await store.page(10, None)
        return (
            page,
            await store.receipt("receipt0"),
            await store.trace("receipt1"),
            await store.before([one.job.id for one in page.records]),
            await store.nodes(),
        )


async def goes_on(where: Path | str) -> list[JobState]:
    """The states after one more prompt was asked there."""
    async with opened(where) as store:
        await store.enqueue(PROMPT, "fastest", "one more", NOW)
        return [record.job.state for record in (await store.page(10, None)).records]


def test_everything_is_carried_and_the_new_database_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file's content arrives in Postgres and goes back into another file, all of it equal; numbers go on."""
    asyncio.run(filled(tmp_path / "old"))
    with postgres_server.database() as url:
        monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path / "old"))
        with pytest.raises(SystemExit) as done:
            cli.app(["db", "copy", url])
        assert done.value.code == 0
        assert "receipts: 2\n" in capsys.readouterr().out
        before = asyncio.run(holds(tmp_path / "old"))
        assert asyncio.run(holds(url)) == before
        carry.copy(url, f"sqlite:///{tmp_path / 'new' / 'joulebox.db'}", lambda *_: None)
        assert asyncio.run(holds(tmp_path / "new")) == before
        assert asyncio.run(goes_on(url)) == asyncio.run(goes_on(tmp_path / "new"))


async def _used(url: str, target: str) -> None:
    async with opened(url) as store:
        await store.join("http://one", lambda _: None, NOW)
        await asyncio.to_thread(carry.copy, url, target, lambda *_: None)


def test_a_source_in_use_is_refused(tmp_path: Path) -> None:
    """While a server uses the source, nothing is copied."""
    target = f"sqlite:///{tmp_path / 'joulebox.db'}"
    with postgres_server.database() as url, pytest.raises(JouleboxError, match="A server uses the source"):
        asyncio.run(_used(url, target))


def test_nothing_is_mixed(tmp_path: Path) -> None:
    """A target that holds something is refused in one sentence and left as it is."""
    for name in ("old", "full"):
        asyncio.run(filled(tmp_path / name))
    urls = [f"sqlite:///{tmp_path / name / 'joulebox.db'}" for name in ("old", "full")]
    before = asyncio.run(holds(tmp_path / "full"))
    with pytest.raises(JouleboxError, match="already: give an empty database"):
        carry.copy(urls[0], urls[1], lambda *_: None)
    assert asyncio.run(holds(tmp_path / "full")) == before
