"""What a node does while nobody asks: when it unloads, what is booked, what people see."""

import asyncio
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from commands import joulebox
from joulebox.clock import SimulatedClock
from joulebox.console import idle_lines, show_receipt
from joulebox.model import Counted, IdlePolicy, IdleStretch
from joulebox.node.engines.scripted import Script
from joulebox.node.rest import Rest
from joulebox.protocol import LEASE_WAIT_S
from joulebox.server.idle import NodeIdle, shares
from server_stage import COUNTER, WAIT_S, Stage, stage
from test_agent import agent_of, at_work
from test_idle import book, joules, pass_s
from test_node import Counter

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SHORT = Rest(IdlePolicy(unload_s=0.2))
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_node_asks_for_work_no_longer_than_until_something_is_due() -> None:
    """A node waits for jobs up to the moment at which its policy wants something of it, and as ever without one."""
    rest = Rest(IdlePolicy(unload_s=60.0))
    assert rest.wait_s(10.0, loaded=True) == LEASE_WAIT_S
    assert rest.wait_s(50.0, loaded=True) == 10.0
    assert rest.wait_s(70.0, loaded=True) == 0.0
    assert rest.wait_s(70.0, loaded=False) == LEASE_WAIT_S
    assert (rest.unloads(59.9), rest.unloads(60.0), Rest().unloads(1e9)) == (False, True, False)
    assert Rest().wait_s(1e9, loaded=True) == LEASE_WAIT_S


def test_idling_is_told_by_whether_a_model_was_loaded() -> None:
    """Where the model is unloaded one stretch ends and the next begins, no joule of the meter is lost between, and
    before the machine suspends all is told, however short."""
    clock = SimulatedClock()
    mine = book(clock, Counter(clock))
    mine.begin(loaded=True)
    pass_s(clock, 12.0)
    mine.unloaded()
    pass_s(clock, 30.0)
    found = mine.stretches()
    assert [one.loaded for one in found] == [True, False]
    assert found[0].until == found[1].start
    assert joules(found) == pytest.approx(42 * 8.0, abs=0.02)
    assert joules(found[:1]) == pytest.approx(12 * 8.0, abs=0.02)
    mine.heard(found)
    pass_s(clock, 3.0)
    assert mine.stretches() == ()
    assert joules(mine.stretches(last=True)) == pytest.approx(3 * 8.0, abs=0.02)


def row(hour: int, lasted_s: float, amount: float, loaded: bool | None) -> NodeIdle:
    start = NOON + timedelta(hours=hour)
    return NodeIdle(
        node="n1",
        start=start,
        until=start + timedelta(seconds=lasted_s),
        zone="DE",
        cores=4,
        memory_bytes=8,
        host=None,
        counted=(Counted(channel=COUNTER, amount=amount, edge=0.1),),
        loaded=loaded,
    )


def test_shares_add_up() -> None:
    """What was drawn with a model in memory, without and unsaid stands apart, each with its seconds and mean power."""
    found = shares([row(0, 600, 6000, True), row(1, 1200, 6000, False), row(2, 600, 7200, True), row(3, 60, 600, None)])
    assert [(one.loaded, one.lasted_s, one.j, one.mean_w, one.scope) for one in found] == [
        (True, 1200, 13200, 11, "cpu"),
        (False, 1200, 6000, 5, "cpu"),
        (None, 60, 600, 10, "cpu"),
    ]
    assert all(0 < one.u < 0.2 * one.j for one in found)
    assert shares([]) == []


def test_idling_in_the_terminal() -> None:
    """`joulebox node idle` says in words what the policy is and what each state drew; silence is not zero."""
    told = {"name": "n1", "state": "unloaded", "reason": "idle for 10 min", "hours": 24.0, "shares": []}
    assert list(idle_lines(told | {"idle_policy": {"unload_s": 600.0}})) == [
        "n1 unloads its model after 10 min. Now unloaded: idle for 10 min.",
        "Of the last 24 hours it has told nothing that it drew between prompts.",
    ]
    share = {"loaded": True, "scope": "cpu", "lasted_s": 7200.0, "j": 72_000.0, "u": 720.0, "mean_w": 10.0}
    lines = list(idle_lines(told | {"idle_policy": None, "shares": [share]}))
    assert lines[0].startswith("n1 keeps its model loaded.")
    assert lines[1] == "  2.0 h with a model in memory: 72.00 ± 0.72 kJ, 10.0 W (cpu)"


async def node(scene: Stage, state: str) -> Json:
    """The node, once it is in that state."""
    async with asyncio.timeout(WAIT_S):
        while True:
            nodes = (await scene.http.get("/api/v1/nodes")).json()["nodes"]
            if nodes and nodes[0]["state"] == state:
                found: Json = nodes[0]
                return found
            await asyncio.sleep(0.01)


async def test_an_idle_node_unloads_its_model(tmp_path: Path) -> None:
    """After its time an idle node holds no model and says so, also to a server that begins anew; the next prompt loads
    one, is told what that took, and the one behind it is not."""
    own = tmp_path / "node"
    own.mkdir()
    async with stage(tmp_path) as scene:
        agent = agent_of(scene.url, own, "n1", Script(load_s=0.05, prefill_s=0.0, token_s=0.001, tokens=3), rest=SHORT)
        async with at_work(agent):
            await node(scene, "idle")
            first, second = [(await scene.ask())["id"] for _ in range(2)]
            receipts = [await receipt(scene, one) for one in (first, second)]
            assert receipts[0]["times"]["load_s"] >= 0.05
            assert receipts[1]["times"]["load_s"] == 0.0
            shown = [io.StringIO(), io.StringIO()]
            for one, stream in zip(receipts, shown, strict=True):
                show_receipt(one, stream)
            found = ["already loaded, by an earlier prompt" in stream.getvalue() for stream in shown]
            assert found == [False, True]
            idle = await node(scene, "unloaded")
            assert (idle["loaded"], idle["idle_policy"]["unload_s"]) == (None, 0.2)
            assert idle["reason"] == "idle for 0.20 s, so it has no model in memory"
            assert idle["since"] is not None
            assert agent._engine.loaded is None
            models = (await scene.http.get("/api/v1/models")).json()["models"]
            assert models[0]["available"]
            third = (await scene.ask())["id"]
            assert (await receipt(scene, third))["times"]["load_s"] >= 0.05


async def receipt(scene: Stage, prompt_id: str) -> Json:
    """The receipt of a prompt, once it is there."""
    status = await scene.until(prompt_id, "completed")
    found: Json = (await scene.http.get(f"/api/v1/receipts/{status['receipt_id']}")).json()
    return found


async def test_idle_joules_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a node told of its idling is answered by state, for a day, and printed by the command line; of an unknown
    node nothing is."""

    def nodes(*words: str) -> str:
        code, out, _ = joulebox(capsys, "node", *words, "--server", scene.url)
        assert code == 0
        return out

    now = datetime.now(UTC)
    told = tuple(
        IdleStretch(
            start=now - timedelta(seconds=start_s),
            until=now - timedelta(seconds=start_s - 100),
            counted=(Counted(channel=COUNTER, amount=amount, edge=0.1),),
            loaded=loaded,
        )
        for start_s, amount, loaded in ((300, 1100.0, True), (200, 800.0, False), (100_000, 5.0, True))
    )
    async with stage(tmp_path) as scene:
        await scene.join(idle=told, policy=IdlePolicy(unload_s=600.0))
        found = (await scene.http.get("/api/v1/nodes/n1/idle")).json()
        assert [(one["loaded"], one["j"], one["mean_w"]) for one in found["shares"]] == [
            (True, 1100.0, pytest.approx(11.0)),
            (False, 800.0, pytest.approx(8.0)),
        ]
        printed = await asyncio.to_thread(nodes, "idle", "n1")
        assert "n1 unloads its model after 10 min" in printed
        assert "without a model: 800" in printed
        assert (await scene.http.get("/api/v1/nodes/nobody/idle")).status_code == 404
