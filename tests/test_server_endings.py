"""How attempts end: failed, cancelled, with evidence that cannot be used, or while the server itself is away."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from joulebox.model import Problem
from joulebox.protocol import Finish, pack_trace
from server_stage import WAIT_S, done, evidence, stage, story

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def failed(detail: str, *, code: str = "engine_died", retry: bool = True) -> Finish:
    return Finish(outcome="failed", problem=Problem(code=code, detail=detail), retry=retry)


async def test_a_failure_is_tried_again_until_it_is_enough(tmp_path: Path) -> None:
    """After `attempts_max` failures the prompt is given up, and the last cause is named."""
    async with stage(tmp_path, attempts_max=2) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        for number in (1, 2):
            lease = await scene.lease()
            assert lease["attempt"] == number
            assert (await scene.finish(lease, failed(f"cause {number}."))).json() == {"receipt_id": None}
        last = (await scene.all_events(prompt_id))[-1]
        assert (last.name, last.id, last.data["code"]) == ("error", "2.end", "too_many_attempts")
        assert "cause 2." in last.data["detail"]
        assert (await scene.status(prompt_id))["error"] == last.data


async def test_a_failure_that_cannot_be_mended_is_final(tmp_path: Path) -> None:
    """Without retry the prompt fails with the node's own words, and the same report again is answered the same."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        report = failed("It has 600 tokens.", code="prompt_too_long", retry=False)
        assert [(await scene.finish(lease, report)).status_code for _ in range(2)] == [200, 200]
        status = await scene.status(prompt_id)
        assert status["state"] == "discarded"
        assert status["error"] == {"code": "prompt_too_long", "detail": "It has 600 tokens."}


async def test_finishing_twice_gives_one_receipt(tmp_path: Path) -> None:
    """The same delivery, at the same moment and again later, is answered with the same receipt."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await scene.ask()
        lease = await scene.lease()
        delivery = done(lease, "x")
        replies = await asyncio.gather(*(scene.finish(lease, delivery) for _ in range(3)))
        replies.append(await scene.finish(lease, delivery))
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.json()["receipt_id"] for reply in replies}) == 1
        assert (await scene.finish(lease, failed("no."))).json()["code"] == "stale_attempt"


@pytest.mark.parametrize(
    "change",
    [
        {"trace_b64": "not base64!"},
        {"trace_b64": pack_trace(b"JBT1rubbish")},
        {"trace_b64": None},
        {"trace_b64": pack_trace(evidence({"job_id": "another", "attempt": 1}))},
    ],
    ids=["base64", "trace", "missing", "another's"],
)
async def test_unusable_evidence_fails_the_attempt(tmp_path: Path, change: dict[str, Any]) -> None:
    """Evidence that cannot be read is refused in one sentence, nothing of it is kept, and the prompt is tried again."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        delivery = Finish(outcome="done", answer="x", finish_reason="stop", **change)
        refused = await scene.finish(lease, delivery)
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_evidence")
        status = await scene.status(prompt_id)
        assert (status["state"], status["answer"]) == ("available", None)


async def test_evidence_outlives_broken_accounting(tmp_path: Path) -> None:
    """Where no receipt can be made of a trace, the answer still arrives, the trace is kept, and the stream says why."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        await scene.send(lease, story("x"))
        assert (await scene.finish(lease, done(lease, "x", spans=()))).json() == {"receipt_id": None}
        status = await scene.status(prompt_id)
        assert (status["state"], status["answer"], status["receipt_id"]) == ("completed", "x", None)
        last = (await scene.all_events(prompt_id))[-1]
        assert (last.name, last.data["code"]) == ("error", "internal")
        assert "evidence is kept" in last.data["detail"]


async def test_cancelling_a_waiting_prompt(tmp_path: Path) -> None:
    """It is over at once, its watcher is told, no node gets it, and cancelling again changes nothing."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        async with asyncio.timeout(WAIT_S), scene.watch(prompt_id) as events:
            assert (await anext(events)).name == "queued"
            stopped = (await scene.http.delete(f"/api/v1/prompts/{prompt_id}")).json()
            assert (stopped["state"], stopped["position"], stopped["phase"]) == ("cancelled", None, None)
            assert [(event.name, event.id) async for event in events] == [("cancelled", "0.end")]
        await scene.join()
        assert (await scene.http.delete(f"/api/v1/prompts/{prompt_id}")).json()["state"] == "cancelled"


async def test_cancelling_a_running_prompt(tmp_path: Path) -> None:
    """The node hears it down the hold and in its next reply; the prompt is over when the node says so."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        async with scene.hold(lease) as words:
            assert (await scene.http.delete(f"/api/v1/prompts/{prompt_id}")).json()["state"] == "running"
            assert await anext(words) == "cancel"
            assert (await scene.send(lease, story("x"))).json()["cancel"] is True
            assert (await scene.finish(lease, Finish(outcome="cancelled"))).status_code == 200
            assert await anext(words) == "bye"
        assert (await scene.all_events(prompt_id))[-1].name == "cancelled"


async def test_a_cancelled_prompt_of_a_silent_node_is_not_rescued(tmp_path: Path) -> None:
    """When the node that should stop goes silent, the prompt is cancelled and not run again."""
    async with stage(tmp_path, grace_s=0.5) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        await scene.lease()
        await scene.http.delete(f"/api/v1/prompts/{prompt_id}")
        await scene.until(prompt_id, "cancelled")


async def test_a_server_restart_loses_nothing(tmp_path: Path) -> None:
    """Prompts, attempts and a wish to cancel outlive the server; a node sends again from where it is told."""
    async with stage(tmp_path) as scene:
        await scene.join()
        running, waiting = (await scene.ask("a"))["id"], (await scene.ask("b"))["id"]
        lease = await scene.lease()
        await scene.send(lease, story("a", "b")[:3])
    async with stage(tmp_path, grace_s=5) as scene:
        assert (await scene.status(running))["state"] == "running"
        assert (await scene.status(waiting))["reason"] == "no node is connected: start one with `joulebox node`"
        whole = story("a", "b")
        async with scene.hold(lease):
            assert (await scene.send(lease, whole[3:])).json()["next_seq"] == 0
            assert (await scene.send(lease, whole)).json()["next_seq"] == len(whole)
            assert (await scene.send(lease, whole)).json()["next_seq"] == len(whole)
            await scene.finish(lease, done(lease, "a", "b"))
        assert [event.id for event in await scene.all_events(running, "1.2")] == ["1.3", "1.5", "1.end"]
        second = await scene.lease()
        assert second["job_id"] == waiting
        await scene.http.delete(f"/api/v1/prompts/{waiting}")
    async with stage(tmp_path) as scene, scene.hold(second) as words:
        assert await anext(words) == "cancel"


async def test_a_silent_node_is_rescued_after_a_server_restart(tmp_path: Path) -> None:
    """An attempt whose node does not come back to the new server is lost after the grace."""
    async with stage(tmp_path, grace_s=0.5) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        await scene.lease()
    async with stage(tmp_path, grace_s=0.5) as scene:
        assert (await scene.until(prompt_id, "available"))["attempt"] == 1


async def test_texts_can_be_removed_and_the_receipt_stays(tmp_path: Path) -> None:
    """DELETE on a receipt removes what was asked and answered, from the disk too; the evidence stays."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask("my secret question " * 300))["id"]
        lease = await scene.lease()
        receipt_id = (await scene.finish(lease, done(lease, "my secret answer", " again" * 2000))).json()["receipt_id"]
        address = f"/api/v1/receipts/{receipt_id}"
        before = (await scene.http.get(address)).content
        assert (await scene.http.delete(address)).json()["kept"] == ["receipt", "trace"]
        assert (await scene.status(prompt_id))["answer"] is None
        assert (await scene.http.get(address)).content == before
        assert [event.name for event in await scene.all_events(prompt_id)] == ["answer", "receipt"]
        assert not _files_with(tmp_path, b"my secret")


def _files_with(folder: Path, text: bytes) -> list[Path]:
    return [file for file in folder.iterdir() if text in file.read_bytes()]
