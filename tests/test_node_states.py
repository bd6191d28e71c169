"""What a node does, since when and why; and a node that is to take no more prompts."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import databases
from commands import joulebox
from joulebox.evidence import decode_trace
from joulebox.model import AttemptState, Phase, Purpose
from joulebox.protocol import NodeEvent, to_json
from joulebox.server.delivery import Wanted
from joulebox.server.jobs import Attempt, Drain, NodeRecord
from joulebox.server.live import Live
from joulebox.server.node_now import node_now
from server_stage import WAIT_S, WOKEN_S, Stage, done, offer, stage, story
from test_silence import node_process, until_held

pytestmark = pytest.mark.anyio
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 13, tzinfo=UTC)
RECORD = NodeRecord(offer=offer(), seen=AT)
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def live(phase: Phase | None = None, settling: Json | None = None, purpose: Purpose = "prompt") -> Live:
    """An attempt in that phase, after it told of its settling what is named."""
    attempt = Attempt(
        token="t", job_id="j", number=1, node="n1", instance="a", state=AttemptState.RUNNING, reason="", leased=AT
    )
    one = Live(attempt=attempt, wanted=Wanted("fastest"), cancel=False, purpose=purpose, phase=phase, since=LATER)
    if settling:
        one.log.append(NodeEvent(seq=0, kind="settling", data=settling))
    return one


WARM = {"sensor": "cpu", "now_c": 61.0, "target_c": 45.0, "expected_s": 21.7}
COLD = {"sensor": "cpu", "now_c": 30.0, "target_c": 40.0, "expected_s": None}
CALM = {"sensor": None, "now_c": None, "target_c": None, "expected_s": 1.2}


@pytest.mark.parametrize(
    ("attempt", "phase", "reason"),
    [
        (None, None, "works on a prompt"),
        (live(), None, "takes up a prompt"),
        (live("settling", WARM), "settling", "cools down: cpu is at 61 °C and begins at 45 °C, in about 22 s"),
        (live("settling", COLD), "warming_up", "warms up: cpu is at 30 °C and begins at 40 °C"),
        (live("settling", CALM), "settling", "waits for the machine to come to rest"),
        (live("loading", WARM), "loading", "loads a model"),
        (live("answering", purpose="control"), "answering", "control prompt: answers a prompt"),
    ],
)
def test_a_busy_node_says_with_what(attempt: Live | None, phase: str | None, reason: str) -> None:
    """Each phase of a run has its words, warming up and cooling down with sensor and degrees, and when it began."""
    now = node_now(RECORD, True, AT, attempt, None)
    assert (now.state, now.phase, now.reason) == ("busy", phase, reason)
    assert now.since == (LATER if attempt else AT)


def test_a_node_that_does_nothing_says_why() -> None:
    """Idle, draining and away are told apart, each with its reason and its time; draining says what is still done."""
    drained = replace(RECORD, drain=Drain(LATER, "new fans"))
    cases = [
        (RECORD, True, None, ("idle", None, "waits for prompts")),
        (drained, True, None, ("draining", LATER, "new fans")),
        (drained, True, AT, ("draining", LATER, "new fans; finishes its prompt")),
        (drained, False, None, ("away", AT, "its connection is gone")),
        (RECORD, False, AT, ("away", AT, "silent in the middle of a prompt")),
    ]
    for record, connected, works_since, expected in cases:
        now = node_now(record, connected, works_since, None, None)
        assert (now.state, now.since, now.reason) == expected


async def node(scene: Stage, name: str = "n1") -> Json:
    nodes = (await scene.http.get("/api/v1/nodes")).json()["nodes"]
    return next(one for one in nodes if one["name"] == name)


async def drain(scene: Stage, name: str = "n1", why: str = "new fans") -> Json:
    reply = await scene.http.post(f"/api/v1/nodes/{name}/drain", json={"why": why})
    assert reply.status_code == 200, reply.text
    told: Json = reply.json()
    return told


async def test_a_draining_node_finishes_and_takes_no_more(tmp_path: Path) -> None:
    """What it does is delivered; the next prompt waits and says for what, also over a restart of the server; resumed,
    the node that asks all the while gets it at once."""
    async with stage(tmp_path, grace_s=60) as scene:
        await scene.join()
        first = await scene.ask()
        lease = await scene.lease()
        async with scene.hold(lease):
            await scene.send(lease, story("a"))
            assert (await drain(scene))["reason"] == "new fans; finishes its prompt"
            assert (await scene.finish(lease, done(lease, "a"))).status_code == 200
        assert (await scene.status(first["id"]))["state"] == "completed"
        second = await scene.ask("second")
        assert second["reason"] == "waiting for n1, which takes no prompts for now: new fans"
        reply = await scene.http.post("/node/v1/lease", content=to_json(offer(wait_s=0.1)))
        assert reply.status_code == 204
        assert "(draining, since" in (await scene.http.get("/")).text
    async with stage(tmp_path, grace_s=60) as scene:
        waiting = asyncio.create_task(scene.lease())
        await until(scene, "draining")
        assert not waiting.done()
        assert (await node(scene))["reason"] == "new fans"
        assert (await scene.http.delete("/api/v1/nodes/n1/drain")).json()["state"] in ("idle", "busy")
        assert (await asyncio.wait_for(waiting, WOKEN_S))["job_id"] == second["id"]


async def until(scene: Stage, state: str, name: str = "n1") -> None:
    async with asyncio.timeout(WAIT_S):
        while (await node(scene, name))["state"] != state:  # noqa: ASYNC110 - asked as people ask
            await asyncio.sleep(0.005)


async def test_a_prompt_goes_past_a_draining_node(tmp_path: Path) -> None:
    """Of two nodes that wait for work, the one that drains is not woken; a prompt it was just woken for goes on to the
    other."""
    async with stage(tmp_path, grace_s=60) as scene:
        names = ("n1", "n2")
        polls = {
            name: asyncio.create_task(scene.http.post("/node/v1/lease", content=to_json(offer(node=name))))
            for name in names
        }
        async with asyncio.timeout(WAIT_S):
            while len((await scene.http.get("/api/v1/nodes")).json()["nodes"]) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await drain(scene)
        prompt_id = (await scene.ask())["id"]
        reply = await asyncio.wait_for(polls["n2"], WOKEN_S)
        assert reply.json()["job_id"] == prompt_id
        polls["n1"].cancel()
        assert (await scene.http.post("/api/v1/nodes/nobody/drain", json={"why": "x"})).status_code == 404
        assert (await scene.http.post("/api/v1/nodes/n1/drain", json={"why": ""})).status_code == 422


@pytest.fixture
def url() -> Iterator[str]:
    with databases.postgres() as database_url:
        yield database_url


@asynccontextmanager
async def pair(folder: Path, url: str) -> AsyncIterator[tuple[Stage, Stage]]:
    async with stage(folder, database_url=url) as one, stage(folder, database_url=url) as other:
        yield one, other


async def test_any_server_drains_a_node(tmp_path: Path, url: str) -> None:
    """A node that waits at one server is drained, and resumed, through another."""
    async with pair(tmp_path, url) as (one, other):
        await one.join()
        waiting = asyncio.create_task(one.lease())
        await until(other, "idle")
        await drain(other)
        await until(one, "draining")
        prompt_id = (await one.ask())["id"]
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await other.http.delete("/api/v1/nodes/n1/drain")
        assert (await asyncio.wait_for(waiting, WOKEN_S))["job_id"] == prompt_id


async def test_drain_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`joulebox node list|drain|resume` say what the node does."""

    def nodes(*words: str) -> str:
        code, out, _ = joulebox(capsys, "node", *words, "--server", scene.url)
        assert code == 0
        return out

    async with stage(tmp_path) as scene:
        assert "No node has joined" in await asyncio.to_thread(nodes, "list")
        await scene.join()
        waiting = asyncio.create_task(scene.lease())  # who is not heard of for 3 s is away, whatever else it is
        await until(scene, "idle")
        assert await asyncio.to_thread(nodes, "drain", "n1", "--why", "new fans") == "n1 takes no more prompts.\n"
        assert "n1  draining since 20" in (listed := await asyncio.to_thread(nodes, "list"))
        assert listed.endswith("UTC: new fans (grid DE, 1 model)\n")
        assert await asyncio.to_thread(nodes, "resume", "n1") == "n1 takes prompts again.\n"
        assert "n1  idle" in await asyncio.to_thread(nodes, "list")
        waiting.cancel()


async def test_a_stopped_node_hands_its_prompt_back(tmp_path: Path) -> None:
    """SIGTERM in the middle of an answer gives the prompt to another node at once, not after the period of grace, with
    the evidence of what it drew, and counts no more against it than a node that was killed."""
    async with stage(tmp_path, grace_s=60, attempts_max=1) as scene:
        await scene.join(instance="earlier", node="n2")
        prompt_id = (await scene.ask())["id"]
        with node_process(scene.url, tmp_path / "node") as process:
            await until_held(scene, prompt_id)
            process.terminate()
            status = await scene.until(prompt_id, "available")
            assert process.wait(5) == 0
        assert (status["attempt"], status["error"]) == (1, None)
        ((number, blob),) = await scene.store.earlier(prompt_id, 99)
        assert blob is not None
        left = decode_trace(blob)
        assert (number, left.attempt, left.finish_reason, len(left.tokens)) == (1, 1, "failed", 1)
