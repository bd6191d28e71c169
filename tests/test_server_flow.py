"""The whole path through the server over real HTTP: ask, lease, hold, events, finish, receipt, and who is told what."""

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import pytest

from joulebox.accounting import account, receipt_bytes
from joulebox.evidence import decode_trace
from joulebox.model import Placement
from joulebox.protocol import LeaseRequest, to_json
from joulebox.server.grid import factors_for
from joulebox.server.jobs import Claim
from server_stage import WAIT_S, Stage, done, evidence, offer, stage, story

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_from_prompt_to_receipt(tmp_path: Path) -> None:
    """A prompt is queued, taken, streamed and answered, and its receipt is what `account` makes of the evidence."""
    async with stage(tmp_path) as scene:
        await scene.join()
        asked = await scene.ask("hi", system="be brief", temperature=0.5, seed=7, stop=["."], max_tokens=9)
        assert (asked["state"], asked["position"], asked["reason"]) == ("available", 0, "next in line")
        async with asyncio.timeout(WAIT_S), scene.watch(asked["id"]) as events:
            assert (await anext(events)).name == "queued"
            lease = await scene.lease()
            assert lease["prompt"] == {
                "model": "m",
                "messages": [
                    {"role": "system", "content": "be brief", "tool_calls": [], "tool_call_id": None},
                    {"role": "user", "content": "hi", "tool_calls": [], "tool_call_id": None},
                ],
                "max_tokens": 9,
                "temperature": 0.5,
                "seed": 7,
                "stop": ["."],
                "mode": "live",
                "model_reason": None,
                "max_energy_j": None,
                "top_p": None,
                "json_schema": None,
                "tools": [],
                "tool_choice": "auto",
            }
            async with scene.hold(lease) as words:
                sent = await scene.send(lease, story("Hel", "lo"))
                assert sent.json() == {"next_seq": 6, "cancel": False}
                running = await scene.status(asked["id"])
                assert (running["state"], running["phase"], running["node"]) == ("running", "measuring", "n1")
                finished = await scene.finish(lease, done(lease, "Hel", "lo"))
                assert [word async for word in words] == ["bye"]
            seen = [event async for event in events]
        receipt_id = finished.json()["receipt_id"]
        assert [(event.name, event.id) for event in seen] == [
            ("phase", "1.0"),
            ("started", "1.1"),
            ("token", "1.2"),
            ("token", "1.3"),
            ("power", "1.4"),
            ("answer", "1.5"),
            ("receipt", "1.end"),
        ]
        assert seen[1].data == {"node": "n1", "attempt": 1}
        assert seen[3].data == {"text": "lo", "n": 1}
        assert seen[-1].data["id"] == receipt_id
        status = await scene.status(asked["id"])
        assert (status["state"], status["answer"], status["receipt_id"]) == ("completed", "Hello", receipt_id)
        await _check_receipt(scene, lease, receipt_id)


async def _check_receipt(scene: Stage, lease: dict[str, object], receipt_id: str) -> None:
    blob = evidence(lease)
    trace = decode_trace(blob)
    placement = Placement(policy="fastest", reason=str(lease["placement_reason"]), saved_g=None)
    factors = factors_for("DE", scene.settings, trace.origin)
    expected = receipt_bytes(account(trace, factors, receipt_id=receipt_id, placement=placement))
    address = f"/api/v1/receipts/{receipt_id}"
    assert (await scene.http.get(address)).content == expected
    assert (await scene.http.get(f"{address}/trace.json")).json()["series"][0]["raw"][0] == trace.series[0].raw[0]
    rows = list(csv.DictReader(io.StringIO((await scene.http.get(f"{address}/trace.csv")).text)))
    assert len(rows) == len(trace.series[0].raw)
    assert float(rows[-1]["value"]) == trace.series[0].raw[-1] * 1e-6


async def test_the_pages_are_there(tmp_path: Path) -> None:
    """The form of the first page queues a prompt as the API does, and leads to its page."""
    async with stage(tmp_path) as scene:
        await scene.join()
        assert (await scene.http.get("/")).headers["content-type"].startswith("text/html")
        sent = await scene.http.post("/ask", data={"model": "m", "prompt": "hi", "max_tokens": "9"})
        assert sent.status_code == 303
        address = sent.headers["location"]
        assert (await scene.http.get(address)).status_code == 200
        assert (await scene.status(address.rpartition("/")[2]))["state"] == "available"
        assert (await scene.http.post(f"{address}/stop")).status_code == 303
        assert (await scene.status(address.rpartition("/")[2]))["state"] == "cancelled"


async def test_streams_resume_without_a_gap(tmp_path: Path) -> None:
    """Whoever comes back, during the attempt or after it, gets exactly what comes after the last id."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        async with scene.hold(lease):
            await scene.send(lease, story("a", "b", "c"))
            async with asyncio.timeout(WAIT_S), scene.watch(prompt_id, "1.3") as events:
                assert [(await anext(events)).id for _ in range(3)] == ["1.4", "1.5", "1.6"]
            await scene.finish(lease, done(lease, "a", "b", "c"))
        assert [event.id for event in await scene.all_events(prompt_id)] == ["1.2", "1.3", "1.4", "1.6", "1.end"]
        assert [event.id for event in await scene.all_events(prompt_id, "1.3")] == ["1.4", "1.6", "1.end"]
        assert [event.id for event in await scene.all_events(prompt_id, "1.6")] == ["1.end"]
        assert (await scene.all_events(prompt_id, "rubbish"))[0].id == "1.2"
        over = await scene.http.get(f"/api/v1/prompts/{prompt_id}/events", headers={"Last-Event-ID": "1.end"})
        assert (over.status_code, over.content) == (204, b"")


async def test_a_cut_hold_is_rescued_after_its_grace(tmp_path: Path) -> None:
    """A node that hangs up and stays away loses its prompt; the next one starts anew, and watchers are told."""
    async with stage(tmp_path, grace_s=1.0) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        async with asyncio.timeout(WAIT_S), scene.watch(prompt_id) as events:
            async with scene.hold(lease):
                await scene.send(lease, story("wrong")[:3])
                assert [(await anext(events)).name for _ in range(3)] == ["phase", "started", "token"]
            assert (await anext(events)).name == "queued"
            assert (await scene.send(lease, story("wrong"))).json()["code"] == "stale_attempt"
            assert (await scene.finish(lease, done(lease, "wrong"))).status_code == 409
            second = await scene.lease(node="n2", instance="b")
            assert (second["attempt"], second["job_id"]) == (2, prompt_id)
            async with scene.hold(second):
                await scene.send(second, story("right"))
                await scene.finish(second, done(second, "right", node="n2"))
            seen = [event async for event in events]
        names = [event.name for event in seen if event.name != "queued"]
        assert names == ["restarted", "phase", "started", "token", "power", "answer", "receipt"]
        assert seen[-1].data["node"] == "n2"
        late = await scene.all_events(prompt_id, "1.2")
        assert [(event.name, event.id) for event in late] == [
            ("restarted", None),
            ("token", "2.2"),
            ("answer", "2.4"),
            ("receipt", "2.end"),
        ]


async def test_a_hold_taken_up_again_keeps_the_attempt(tmp_path: Path) -> None:
    """Within its grace a node may come back and deliver as if nothing had happened."""
    async with stage(tmp_path, grace_s=1.0) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        async with scene.hold(lease):
            pass
        async with scene.hold(lease):
            await asyncio.sleep(1.2)
            assert (await scene.finish(lease, done(lease, "x"))).status_code == 200
        assert (await scene.status(prompt_id))["attempt"] == 1


async def test_a_lease_never_taken_up_is_rescued(tmp_path: Path) -> None:
    """A lease whose answer was lost on the way goes to another node after the grace."""
    async with stage(tmp_path, grace_s=0.5) as scene:
        await scene.join()
        await scene.ask()
        first = await scene.lease()
        second = await scene.lease(node="n2", instance="b")
        assert (first["job_id"], second["attempt"]) == (second["job_id"], 2)


async def test_a_node_that_asks_for_work_does_none(tmp_path: Path) -> None:
    """A restarted node gets its lost prompt back at once, ahead of younger ones; its old token is void."""
    async with stage(tmp_path, grace_s=60) as scene:
        await scene.join()
        older, younger = (await scene.ask("a"))["id"], (await scene.ask("b"))["id"]
        lease = await scene.lease()
        async with scene.hold(lease):
            pass
        await _until_node(scene, "away")
        again = await scene.lease(instance="b")
        assert (again["job_id"], again["attempt"]) == (older, 2)
        assert (await scene.finish(lease, done(lease, "x"))).json()["code"] == "stale_attempt"
        assert (await scene.status(younger))["state"] == "available"


async def test_a_name_belongs_to_one_process(tmp_path: Path) -> None:
    """A second node of the same name is refused while the first is connected, and let in when the first hangs up."""
    async with stage(tmp_path) as scene:
        poll = asyncio.create_task(scene.http.post("/node/v1/lease", content=to_json(offer())))
        await _until_node(scene, "idle")
        refused = await scene.http.post("/node/v1/lease", content=to_json(offer(instance="b", wait_s=0.0)))
        assert (refused.status_code, refused.json()["code"]) == (409, "node_name_taken")
        assert "n1" in refused.json()["detail"]
        poll.cancel()
        await _until_node(scene, "away")
        await scene.join(instance="b")
        answered = await scene.http.post("/node/v1/lease", content=to_json(offer(instance="c", wait_s=0.0)))
        assert answered.status_code == 409, "answered a moment ago and not cut: still there"


async def _node_states(scene: Stage) -> list[str]:
    return [node["state"] for node in (await scene.http.get("/api/v1/nodes")).json()["nodes"]]


async def _until_node(scene: Stage, state: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while await _node_states(scene) != [state]:  # noqa: ASYNC110 - asked as people ask
            await asyncio.sleep(0.005)


async def test_a_prompt_wakes_one_waiting_node(tmp_path: Path) -> None:
    """Of three waiting nodes one gets the prompt at once; one that hung up gets none; a lease request ends empty."""
    async with stage(tmp_path, grace_s=60) as scene:
        polls = [
            asyncio.create_task(scene.http.post("/node/v1/lease", content=to_json(offer(node=name, wait_s=1.5))))
            for name in ("n1", "n2", "n3")
        ]
        async with asyncio.timeout(WAIT_S):
            while len(await _node_states(scene)) < 3:  # noqa: ASYNC110 - asked as people ask
                await asyncio.sleep(0.005)
        polls[0].cancel()
        await asyncio.sleep(0.05)
        await scene.ask()
        finished, _ = await asyncio.wait(polls[1:], timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        assert [poll.result().status_code for poll in finished] == [200]
        assert sorted([(await poll).status_code for poll in polls[1:]]) == [200, 204]


async def test_a_prompt_that_comes_while_a_node_takes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two waiting nodes the one that is woken takes a prompt, slowly; the next one, which comes meanwhile, goes to
    the other at once."""
    taken, go_on = asyncio.Event(), asyncio.Event()
    async with stage(tmp_path, grace_s=60) as scene:
        claim = scene.store.claim

        async def slow(request: LeaseRequest, *rest: Any) -> Claim | None:
            found = await claim(request, *rest)
            if found is not None and not taken.is_set():
                taken.set()
                await go_on.wait()
            return found

        for node in ("n1", "n2"):
            await scene.join(node=node, instance=node)
        monkeypatch.setattr(scene.store, "claim", slow)
        polls = [asyncio.create_task(scene.lease(node=node, instance=node)) for node in ("n1", "n2")]
        async with asyncio.timeout(WAIT_S):
            while len(scene.planner._desk._polls) < 2:  # noqa: ASYNC110 - a node that waits tells nobody
                await asyncio.sleep(0.002)
            first = await scene.ask()
            await taken.wait()
            second = await scene.ask("again")
            go_on.set()
            leases = await asyncio.gather(*polls)
        assert {lease["job_id"] for lease in leases} == {first["id"], second["id"]}
