"""A fleet as it is run: two servers on one Postgres and three nodes between them; nobody waits for real time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import databases
import fleet as measured
from accuracy_page import marks
from joulebox.protocol import to_json
from server_stage import WAIT_S, Ahead, Json, Stage, done, offer, stage, story
from test_agent import ENDLESS, agent_of, at_work
from test_planner import HOUR, forecast

pytestmark = pytest.mark.anyio
Servers = Callable[..., Any]
ZONES = {"n1": "DE", "n2": "SE", "n3": "DE"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Ahead:
    """A clock at the beginning of an hour, the same for both servers."""
    return Ahead.at_the_hour()


@pytest.fixture
def url() -> Iterator[str]:
    with databases.postgres() as database_url:
        yield database_url


@pytest.fixture
def fleet(tmp_path: Path, url: str, clock: Ahead) -> Servers:
    """Two servers with such settings; of three nodes each has been at one of them."""

    @asynccontextmanager
    async def running(**settings: Any) -> AsyncIterator[tuple[Stage, Stage]]:
        common = {"database_url": url, "clock": clock, "grace_s": 15.0, "control_every_s": 0} | settings
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(stage(tmp_path / n, **common)) for n in ("one", "other")]
            for on, node in ((one, "n1"), (other, "n2"), (one, "n3")):
                await on.join(**of(node))
            yield one, other

    return running


def of(node: str) -> Json:
    """What is said of itself by a node."""
    return {"node": node, "instance": node, "zone": ZONES[node]}


async def lease(on: Stage, node: str) -> Json:
    """A prompt for this node, which is there."""
    return await on.lease(**of(node))


async def deliver(on: Stage, taken: Json, node: str, clock: Ahead, *words: str) -> None:
    """The node answers, with evidence of now."""
    told = done(taken, *words, node=node, zone=ZONES[node], origin=clock.utc() - timedelta(seconds=40))
    assert (await on.finish(taken, told)).status_code == 200


async def waiting(on: Stage, count: int) -> None:
    """Until so many nodes are held waiting by this server."""
    async with asyncio.timeout(WAIT_S):
        while len(on.planner._desk._polls) < count:  # noqa: ASYNC110 - a node that waits tells nobody
            await asyncio.sleep(0.002)


async def test_streaming(fleet: Servers, clock: Ahead) -> None:
    """Three nodes that wait at two servers answer three prompts at once; each is watched as it grows at the server that
    does not look after it, and taken up again there after a cut without a gap."""
    async with fleet() as (one, other):
        posts = {"n1": one, "n2": other, "n3": one}
        waits = [asyncio.create_task(lease(on, node)) for node, on in posts.items()]
        await waiting(one, 2)
        await waiting(other, 1)
        asked = [await on.ask(f"prompt {n}") for n, on in enumerate((other, one, other))]
        leases = dict(zip(posts, await asyncio.gather(*waits), strict=True))
        assert {one["job_id"] for one in leases.values()} == {one["id"] for one in asked}
        for node, on in posts.items():
            taken, elsewhere = leases[node], other if on is one else one
            told = story("Hel", "lo")
            async with on.hold(taken):
                async with elsewhere.watch(taken["job_id"]) as events:
                    await on.send(taken, told[:3])
                    while (seen := await asyncio.wait_for(anext(events), WAIT_S)).name != "token":
                        pass
                assert (seen.data["text"], seen.id) == ("Hel", "1.2")
                await on.send(taken, told[3:])
                async with elsewhere.watch(taken["job_id"], seen.id) as events:
                    names = [(await asyncio.wait_for(anext(events), WAIT_S)).name for _ in range(3)]
                    await deliver(on, taken, node, clock, "Hel", "lo")
                    names.append((last := await asyncio.wait_for(anext(events), WAIT_S)).name)
            assert names == ["token", "power", "answer", "receipt"]
            assert last.data["node"] == node
            assert (await elsewhere.status(taken["job_id"]))["answer"] == "Hello"


async def test_cancelling(fleet: Servers, tmp_path: Path) -> None:
    """Prompts that run on three real agents, and one that waits, are cancelled through either server; the agents then
    answer the next."""
    async with fleet() as (one, other), AsyncExitStack() as stack:
        for node, on in (("n1", one), ("n2", other), ("n3", one)):
            folder = tmp_path / f"agent-{node}"
            folder.mkdir()
            await stack.enter_async_context(at_work(agent_of(on.url, folder, node, ENDLESS)))
        asked = [(await on.ask(max_tokens=500))["id"] for on in (one, other, one)]
        for prompt_id in asked:
            await other.until(prompt_id, "running")
        nodes = {(await one.status(prompt_id))["node"] for prompt_id in asked}
        assert nodes == {"n1", "n2", "n3"}
        late = (await other.ask())["id"]
        assert (await one.status(late))["state"] == "available"
        for prompt_id, on in ((late, one), (asked[0], other), (asked[1], one), (asked[2], other)):
            assert (await on.http.delete(f"/api/v1/prompts/{prompt_id}")).status_code == 200
        for prompt_id in (*asked, late):
            await one.until(prompt_id, "cancelled")
        short = (await other.ask(max_tokens=2))["id"]
        assert (await one.until(short, "completed"))["attempt"] == 1


PEOPLE: Json = {"public": ("read", "ask", "node"), "trusted_proxies": ("127.0.0.1",)}
"""So that who asks is told apart by address."""


async def asks(on: Stage, address: str, **fields: str) -> tuple[int, Json]:
    """Somebody at this address asks."""
    reply = await on.http.post(
        "/api/v1/prompts", json={"model": "m", "prompt": "hi"} | fields, headers={"X-Forwarded-For": address}
    )
    return reply.status_code, reply.json()


async def test_the_order_of_the_line(fleet: Servers, clock: Ahead) -> None:
    """Classes go before one another and people take turns, whichever servers they ask and nodes work at: who asked four
    is not served before who asked one."""
    async with fleet(**PEOPLE) as (one, other):
        names = {}
        for on, who, count, priority in (
            (one, "carl", 1, "deferrable"),
            (other, "carl", 1, "benchmark"),
            (one, "anna", 3, "interactive"),
            (other, "anna", 1, "interactive"),
            (other, "ben", 2, "interactive"),
        ):
            for _ in range(count):
                status, told = await asks(
                    on, {"anna": "10.0.0.1", "ben": "10.0.0.2"}.get(who, "10.0.0.3"), priority=priority
                )
                assert status == 202
                names[told["id"]] = f"{who}, {priority}"
        places = [(await one.status(prompt_id))["position"] for prompt_id in names]
        assert places == [7, 6, 0, 2, 4, 5, 1, 3]
        order = []
        for on, node in (
            (one, "n1"),
            (other, "n2"),
            (one, "n3"),
            (other, "n1"),
            (one, "n2"),
            (other, "n3"),
            (one, "n1"),
        ):
            taken = await lease(on, node)
            order.append(names[taken["job_id"]].removesuffix(", interactive"))
            await deliver(on, taken, node, clock)
        assert order == ["anna", "ben", "anna", "ben", "anna", "anna", "carl, benchmark"]


async def test_quotas(fleet: Servers, clock: Ahead) -> None:
    """What somebody asked at one server counts at the other; what is answered makes room, and a day later the day's
    quota is whole again."""
    async with fleet(**PEOPLE, outstanding_max=2, prompts_per_day=3) as (one, other):
        for on in (one, other):
            assert (await asks(on, "10.0.0.1"))[0] == 202
        for on in (one, other):
            status, told = await asks(on, "10.0.0.1")
            assert (status, told["code"]) == (429, "quota_used")
        assert (await asks(other, "10.0.0.2"))[0] == 202
        for on, node in ((one, "n1"), (other, "n2"), (one, "n3")):
            await deliver(on, await lease(on, node), node, clock)
        assert (await asks(other, "10.0.0.1"))[0] == 202
        assert (await asks(one, "10.0.0.1"))[0] == 429
        clock.hours += 24.1
        assert (await asks(one, "10.0.0.1"))[0] == 202


async def deferred(on: Stage, until: datetime) -> Json:
    """A prompt for the zone DE that may wait until then."""
    return await on.ask(placement="zone:DE", deadline=until.isoformat())


async def test_deferral(fleet: Servers, clock: Ahead) -> None:
    """A prompt that may wait is asked at one server, put into the line by the other when its zone is greenest, and
    answered by a node of that zone alone; the receipt says what that saved."""
    async with fleet() as (one, other):
        first, _ = [await forecast(on, clock, 400, 380, 390, 210, 300, 100) for on in (one, other)]
        asked = await deferred(one, first + 4.5 * HOUR)
        assert (asked["state"], asked["expected_start"]) == (
            "deferred",
            (first + 3 * HOUR).isoformat(timespec="seconds"),
        )
        for on, node in ((one, "n1"), (other, "n2"), (one, "n3")):
            reply = await on.http.post("/node/v1/lease", content=to_json(offer(**of(node), wait_s=0.0)))
            assert reply.status_code == 204
        clock.hours += 3
        await other.planner.turn(everything=False)
        assert (await one.status(asked["id"]))["state"] == "available"
        reply = await other.http.post("/node/v1/lease", content=to_json(offer(**of("n2"), wait_s=0.0)))
        assert reply.status_code == 204
        taken = await lease(other, "n3")
        assert taken["job_id"] == asked["id"]
        told = done(taken, "x", node="n3", zone="DE", origin=clock.utc())
        assert (await other.finish(taken, told)).status_code == 200
        receipt = (await one.all_events(asked["id"]))[-1].data
        assert receipt["carbon"]["intensity"]["g_per_kwh"] == pytest.approx(210)
        assert receipt["placement"]["saved_g"] == pytest.approx(receipt["sci"]["answer"]["E_kwh"] * (400 - 210))


@pytest.mark.slow
async def test_first_tokens_through_two_servers() -> None:
    """A token that passes through a second server on its way to who watches comes less than 5 ms later."""
    with measured.pair() as urls:
        one, two = await measured.hops(urls, 20)
    assert median(two) - median(one) < 0.005


def test_the_page_of_the_fleet_has_its_parts() -> None:
    """What `make fleet` writes has its place in the page."""
    page = measured.PAGE.read_text("utf-8")
    for name in measured.PARTS:
        assert [page.count(mark) for mark in marks(name, measured.PROGRAM)] == [1, 1]
