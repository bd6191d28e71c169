"""The node's agent, its hold, its relay and its spool, against a real server over real HTTP, with a scripted engine."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.agent import Agent
from joulebox.node.engine import LocalModel
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.measurement import Machine
from joulebox.node.recorder import Recorder
from joulebox.node.rest import Rest
from joulebox.node.spool import Spool
from joulebox.protocol import Finish, to_json
from server_stage import MODEL, WAIT_S, Stage, done, offer, stage, story

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()
QUICK = Script(load_s=0.0, prefill_s=0.0, token_s=0.001, tokens=5)
ENDLESS = Script(load_s=0.0, prefill_s=0.0, token_s=0.02, tokens=5_000)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def agent_of(
    url: str,
    folder: Path,
    node: str = "n1",
    script: Script = QUICK,
    ca_file: Path | None = None,
    rest: Rest | None = None,
    token: str | None = None,
) -> Agent:
    path = folder / "m.gguf"
    path.touch()
    return Agent(
        Client(url, token, ca_file=ca_file),
        Machine(node=node, zone="DE", cores=2, memory_bytes=8_000_000_000),
        Scripted(CLOCK, script),
        Recorder([], CLOCK, 10.0),
        lambda: [LocalModel(file=MODEL, path=path)],
        Spool(folder / "undelivered"),
        CLOCK,
        8_000_000_000,
        rest=rest,
    )


@asynccontextmanager
async def at_work(agent: Agent) -> AsyncIterator[None]:
    """The agent runs in a thread as long as the block lasts, and ends when the server next answers."""
    threading.Thread(target=agent.run, daemon=True).start()
    yield
    agent.stop()


async def delivered(folder: Path) -> bool:
    """The node forgets a result only once the server's answer has come, which may be after everybody sees the end."""
    async with asyncio.timeout(WAIT_S):
        while list((folder / "undelivered").glob("*.json")):  # noqa: ASYNC110 - the node tells nobody
            await asyncio.sleep(0.005)
    return True


async def _until_loading(scene: Stage, prompt_id: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await scene.status(prompt_id))["phase"] != "loading":  # noqa: ASYNC110 - asked as people ask
            await asyncio.sleep(0.01)


async def test_a_prompt_cancelled_before_the_engine_begins_is_not_answered(tmp_path: Path) -> None:
    """A wish to cancel that comes while the model loads ends the answer as soon as it begins, even a quiet one."""
    async with stage(tmp_path, grace_s=60) as scene:
        await scene.join(instance="earlier")
        agent = agent_of(scene.url, tmp_path, "n2", Script(load_s=1.0, tokens=5_000))
        prompt_id = (await scene.ask(mode="quiet", max_tokens=500))["id"]
        async with at_work(agent):
            await _until_loading(scene, prompt_id)
            await scene.http.delete(f"/api/v1/prompts/{prompt_id}")
            assert (await scene.until(prompt_id, "cancelled"))["attempt"] == 1


async def test_an_attempt_that_was_given_away_stops(tmp_path: Path) -> None:
    """A node whose attempt was lost while the server was away stops the answer and takes the prompt anew."""
    agent_folder = tmp_path / "node"
    agent_folder.mkdir()
    async with stage(tmp_path, grace_s=60) as scene:
        port = int(scene.url.rpartition(":")[2])
        await scene.join(instance="earlier")
        agent = agent_of(scene.url, agent_folder, "n2", ENDLESS)
        prompt_id = (await scene.ask(max_tokens=500))["id"]
        threading.Thread(target=agent.run, daemon=True).start()
        await scene.until(prompt_id, "running")
    async with stage(tmp_path, grace_s=0.01) as elsewhere:  # where the node does not look: it comes back too late
        await elsewhere.until(prompt_id, "available")
    async with stage(tmp_path, grace_s=60, port=port) as scene:
        async with asyncio.timeout(WAIT_S):
            while (await scene.status(prompt_id))["attempt"] < 2:  # noqa: ASYNC110 - asked as people ask
                await asyncio.sleep(0.02)
        await scene.http.delete(f"/api/v1/prompts/{prompt_id}")
        await scene.until(prompt_id, "cancelled")
        agent.stop()
    assert await delivered(agent_folder)


async def test_a_kept_result_is_delivered_before_new_work(tmp_path: Path) -> None:
    """A node that was killed between writing its result and delivering it delivers first: one attempt, one receipt."""
    async with stage(tmp_path, grace_s=60) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        agent = agent_of(scene.url, tmp_path, "n1")
        agent._spool.put(lease["token"], done(lease, "kept"))
        async with at_work(agent):
            status = await scene.until(prompt_id, "completed")
            assert await delivered(tmp_path)
        assert (status["attempt"], status["answer"]) == (1, "kept")


async def test_a_result_that_comes_too_late_is_dropped(tmp_path: Path) -> None:
    """What was kept of an attempt that is lost is refused and forgotten; the prompt is answered once, by the next."""
    async with stage(tmp_path, grace_s=0.05) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        await scene.until(prompt_id, "available")
        agent = agent_of(scene.url, tmp_path, "n2")
        agent._spool.put(lease["token"], done(lease, "late"))
        async with at_work(agent):
            status = await scene.until(prompt_id, "completed")
            assert await delivered(tmp_path)
        assert (status["attempt"], status["node"]) == (2, "n2")
        assert status["answer"] != "late"


async def test_a_taken_name(tmp_path: Path) -> None:
    """While its namesake is on the line a node gives up at once; one that was there a moment ago is waited for."""
    async with stage(tmp_path) as scene:
        namesake = asyncio.create_task(scene.http.post("/node/v1/lease", content=to_json(offer(wait_s=2.0))))
        await asyncio.sleep(0.1)
        agent = agent_of(scene.url, tmp_path)
        with pytest.raises(JouleboxError, match="n1") as refused:
            await asyncio.to_thread(agent.run)
        assert refused.value.code == "node_name_taken"
        assert not namesake.done()
        assert (await namesake).status_code == 204
        prompt_id = (await scene.ask())["id"]
        async with at_work(agent):
            await scene.until(prompt_id, "completed")


class Broken(BaseHTTPRequestHandler):
    """A server that breaks on every delivery."""

    deliveries = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        delivery = self.path.endswith("/finish")
        Broken.deliveries += delivery
        self.send_response(500 if delivery else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


async def test_a_delivery_that_breaks_the_server_is_dropped(tmp_path: Path) -> None:
    """After a few answers of 500 a result is given up, so that the node can go on."""
    with HTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        agent = agent_of(f"http://127.0.0.1:{server.server_port}", tmp_path)
        agent._spool.put("t", Finish(outcome="cancelled"))
        await asyncio.to_thread(agent._deliver_all)
        assert Broken.deliveries == 5
        assert await delivered(tmp_path)
        server.shutdown()


async def test_one_node_a_folder(tmp_path: Path) -> None:
    """A second node in the same data folder is refused in one sentence: they would deliver each other's results."""
    spool = Spool(tmp_path / "undelivered")
    with pytest.raises(JouleboxError, match="JOULEBOX_DATA_DIR"):
        Spool(tmp_path / "undelivered")
    assert list(spool.waiting()) == []


async def test_a_disk_that_takes_nothing_costs_no_answer(tmp_path: Path) -> None:
    """A result that cannot be written down is delivered from memory, and the node goes on to the next prompt."""
    async with stage(tmp_path, grace_s=60) as scene:
        await scene.join(instance="earlier")
        agent = agent_of(scene.url, tmp_path)
        shutil.rmtree(tmp_path / "undelivered")
        async with at_work(agent):
            for _ in range(2):
                prompt_id = (await scene.ask())["id"]
                assert (await scene.until(prompt_id, "completed"))["attempt"] == 1
            async with asyncio.timeout(WAIT_S):
                while list(agent._spool.waiting()):  # noqa: ASYNC110 - the server knows before the node that it does
                    await asyncio.sleep(0.005)


async def test_a_model_that_is_offered_no_more_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A node whose model was removed or broken says so, once; until then it had said nothing to its operator."""
    models = [LocalModel(file=MODEL, path=tmp_path / "m.gguf")]
    agent = agent_of("http://127.0.0.1:9", tmp_path)
    agent._models = lambda: models
    agent._offer()
    models.clear()
    for _ in range(2):
        assert agent._offer().models == ()
    assert [one.getMessage().partition(":")[0] for one in caplog.records] == ["model m is offered no more"]


async def test_hostile_events_reach_nobody(tmp_path: Path) -> None:
    """Figures that are none are refused; a hundred watchers get everything else to the end."""
    hostile = [b'{"w":NaN}', b'{"busy_cores":1e400,"cores":1,"memory_bytes":1}', b'{"cores":%d}' % 10**400]
    async with stage(tmp_path, grace_s=60) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        address = f"/node/v1/attempts/{lease['token']}/events"
        for data in hostile:
            reply = await scene.http.post(address, content=b'{"events":[{"seq":0,"kind":"power","data":%s}]}' % data)
            assert (reply.status_code, reply.json()["code"]) == (422, "bad_request")
        bare = b'{"events":[{"seq":0,"kind":"power","data":{}},{"seq":1,"kind":"settling","data":{}}]}'
        assert (await scene.http.post(address, content=bare)).json()["next_seq"] == 2
        watchers = [asyncio.create_task(scene.all_events(prompt_id)) for _ in range(90)]
        await asyncio.sleep(0.3)
        assert (await scene.send(lease, story("x")[2:])).status_code == 200
        assert (await scene.finish(lease, done(lease, "x"))).status_code == 200
        ends = {tuple(event.name for event in seen) for seen in await asyncio.gather(*watchers)}
        replayed = ("token", "answer", "receipt")  # to whoever came when it was over
        assert ends - {replayed} == {("power", "settling", "token", "power", "answer", "receipt")}
