"""Several servers on one Postgres: any of them may be asked, watched and worked for; one may die."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import databases
from joulebox.errors import JouleboxError
from joulebox.server.jobs import NodeRecord
from server_stage import WAIT_S, WOKEN_S, SeenEvent, Stage, done, stage, story

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url() -> Iterator[str]:
    with databases.postgres() as database_url:
        yield database_url


@asynccontextmanager
async def servers(folder: Path, url: str, count: int = 2, grace_s: float = 60.0) -> AsyncIterator[list[Stage]]:
    """So many servers on one database."""
    settings = {"database_url": url, "grace_s": grace_s}
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(stage(folder, **settings)) for _ in range(count)]


@pytest.fixture
async def pair(tmp_path: Path, url: str) -> AsyncIterator[list[Stage]]:
    async with servers(tmp_path, url) as both:
        yield both


async def heard(events: AsyncIterator[SeenEvent], name: str) -> SeenEvent:
    """The next event of that name."""
    async with asyncio.timeout(WAIT_S):
        async for event in events:
            if event.name == name:
                return event
    raise AssertionError(f"the stream ended without {name}")


async def test_asked_at_one_answered_through_the_other(pair: list[Stage]) -> None:
    """A prompt asked at one server wakes a node that waits at the other; it is watched, and read, at either."""
    one, other = pair
    await other.join()
    working = asyncio.create_task(other.lease())
    await asyncio.sleep(0.1)
    status = await one.ask()
    lease = await asyncio.wait_for(working, WOKEN_S)
    assert lease["job_id"] == status["id"]
    async with other.hold(lease), one.watch(status["id"]) as events:
        told = story("Hel", "lo")
        assert (await other.send(lease, told)).status_code == 200
        seen = [await heard(events, "token") for _ in range(2)]
        assert [event.data["text"] for event in seen] == ["Hel", "lo"]
        assert (await one.status(status["id"]))["phase"] == "measuring"
        assert (await other.finish(lease, done(lease, "Hel", "lo"))).status_code == 200
        receipt = await heard(events, "receipt")
    for server in pair:
        final = await server.status(status["id"])
        assert (final["state"], final["answer"], final["receipt_id"]) == ("completed", "Hello", receipt.data["id"])


async def test_a_node_may_speak_to_any_server(pair: list[Stage]) -> None:
    """Hold, events and delivery of one attempt may each go to a server that did not lease it; cancelling works too."""
    one, other = pair
    await one.join()
    prompts = [await one.ask(), await one.ask(prompt="second")]
    lease = await one.lease()
    async with other.hold(lease), other.watch(prompts[0]["id"]) as events:
        assert (await other.send(lease, story("a"))).json() == {"next_seq": 5, "cancel": False}
        assert (await heard(events, "token")).data["text"] == "a"
        assert (await other.finish(lease, done(lease, "a"))).status_code == 200
        await heard(events, "receipt")
    second = await other.lease()
    async with one.hold(second) as words:
        assert (await other.http.delete(f"/api/v1/prompts/{prompts[1]['id']}")).status_code == 200
        async with asyncio.timeout(WOKEN_S):
            assert await anext(words) == "cancel"


async def test_a_look_that_fails_is_made_again(pair: list[Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server could not read of a node that changed it reads for the next who asks."""
    one, other = pair
    waiting = asyncio.create_task(one.lease())
    look, fails = other.store.nodes, ["once"]

    async def failing(names: Collection[str] | None = None) -> Sequence[NodeRecord]:
        if fails:
            raise JouleboxError("database", f"The database is away, {fails.pop()}.")
        return await look(names)

    async def states() -> list[str]:
        told = (await other.http.get("/api/v1/nodes")).json()
        return [node["state"] for node in told.get("nodes", ())]

    async with asyncio.timeout(WAIT_S):
        while await states() != ["idle"]:
            pass
        monkeypatch.setattr(other.store, "nodes", failing)
        await one.http.post("/api/v1/nodes/n1/drain", json={"why": "new fans"})
        while fails or await states() != ["draining"]:
            await states()
    waiting.cancel()


async def test_cancelled_through_another_server(pair: list[Stage]) -> None:
    """A running prompt that is cancelled at a server which does not look after it is stopped on its node."""
    one, other = pair
    await one.join()
    status = await one.ask()
    lease = await one.lease()
    async with one.hold(lease) as words:
        assert (await other.http.delete(f"/api/v1/prompts/{status['id']}")).status_code == 200
        async with asyncio.timeout(WOKEN_S):
            assert await anext(words) == "cancel"


async def test_what_a_dead_server_looked_after_is_taken_up(tmp_path: Path, url: str) -> None:
    """When the server of a running attempt is gone, the node goes on with another one and delivers there, once."""
    async with servers(tmp_path, url, 1) as (survivor,):
        async with servers(tmp_path, url, 1) as (leaving,):
            await leaving.join()
            status = await leaving.ask()
            lease = await leaving.lease()
            async with leaving.hold(lease):
                await leaving.send(lease, story("a")[:3])
        async with survivor.hold(lease), survivor.watch(status["id"]) as events:
            assert (await survivor.send(lease, story("a")[3:])).json()["next_seq"] == 0
            assert (await survivor.send(lease, story("a"))).json()["next_seq"] == 5
            assert (await heard(events, "token")).data["text"] == "a"
            assert (await survivor.finish(lease, done(lease, "a"))).status_code == 200
        assert (await survivor.status(status["id"]))["state"] == "completed"


async def test_a_silent_node_of_a_dead_server_is_given_up(tmp_path: Path, url: str, monkeypatch: Any) -> None:
    """When server and node both vanish, another server gives the prompt to another node after the grace."""
    monkeypatch.setattr("joulebox.server.desk.SWEEP_S", 0.2)
    async with servers(tmp_path, url, 1, 1.0) as (survivor,):
        async with servers(tmp_path, url, 1, 1.0) as (leaving,):
            await leaving.join()
            status = await leaving.ask()
            lost = await leaving.lease()
        second = await asyncio.wait_for(survivor.lease(node="n2"), WOKEN_S)
        assert (second["job_id"], second["attempt"]) == (status["id"], 2)
        async with survivor.hold(second):
            assert (await survivor.finish(lost, done(lost, "a"))).status_code == 409
            assert (await survivor.finish(second, done(second, "a", node="n2"))).status_code == 200


async def test_one_name_one_node(pair: list[Stage]) -> None:
    """A name that is on the line of one server is refused at another to a second process, and known everywhere."""
    one, other = pair
    waiting = asyncio.create_task(one.lease())
    await asyncio.sleep(0.1)
    refused = await other.http.post("/node/v1/lease", content=b"")
    assert refused.status_code == 422
    from joulebox.protocol import to_json
    from server_stage import offer

    taken = await other.http.post("/node/v1/lease", content=to_json(offer(instance="b", wait_s=0.0)))
    assert (taken.status_code, taken.json()["code"]) == (409, "node_name_taken")
    states = [(await server.http.get("/api/v1/nodes")).json() for server in pair]
    assert [[node["state"] for node in state["nodes"]] for state in states] == [["idle"], ["idle"]]
    status = await other.ask()
    assert (await asyncio.wait_for(waiting, WOKEN_S))["job_id"] == status["id"]
    async with asyncio.timeout(WAIT_S):  # the other hears of it by itself, soon
        while (await other.http.get("/api/v1/nodes")).json()["nodes"][0]["state"] != "busy":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
