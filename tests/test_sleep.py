"""Nodes that suspend and are woken by magic packets: never in a job, for what only they can take, or given up."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from joulebox.clock import SimulatedClock
from joulebox.errors import JouleboxError
from joulebox.model import IdlePolicy, Job, JobState, Message, Prompt
from joulebox.node.rest import Rest, card_towards, rest_of, sleep_by
from joulebox.protocol import to_json
from joulebox.server.jobs import Reaches, Record, reach_of
from joulebox.server.outlook import Pace, Scene, outlook
from joulebox.server.sleep import TRY_AGAIN, Sleep, magic_packet, to_wake, unserved
from joulebox.server.waker import address_of
from joulebox.settings import Settings, load_settings
from server_stage import Stage, done, offer, stage, story
from test_access import Ahead, database

__all__ = ["database"]
pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MAC = "02:00:5e:00:53:01"
SLEEPER = IdlePolicy(suspend_s=600.0, mac=MAC, wake_max_s=120.0)
PACKET = b"\xff" * 6 + bytes.fromhex("02005e005301") * 16
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What listens where magic packets are sent to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        yield one


# --- who is woken -----------------------------------------------------------------------------------------------------

ASLEEP = Sleep(at=NOW - timedelta(hours=1))
REACH = {name: reach_of(offer(node=name)) for name in ("a", "b", "c")}


def woken(waiting: Sequence[str], now: datetime = NOW, **asleep: Sleep) -> list[str]:
    return to_wake([("m", line) for line in waiting], REACH, asleep, now)


def test_one_node_is_woken_for_a_line() -> None:
    """Of sleeping nodes the one that wakes soonest is woken, no second while it is on its way, and none for nothing."""
    quick, slow = replace(ASLEEP, wakes_s=(10.0,)), replace(ASLEEP, wakes_s=(60.0,))
    assert woken(["fastest"], a=ASLEEP, b=slow, c=quick) == ["c"]
    assert woken(["fastest", "zone:DE"], a=slow, b=quick) == ["b"]
    assert woken(["fastest"], a=ASLEEP, c=replace(quick, waking=NOW)) == []
    assert woken(["node:a", "node:b"], a=ASLEEP, b=ASLEEP) == ["a", "b"]
    assert woken(["node:a", "fastest"], a=slow, b=quick) == ["b", "a"]
    assert woken([], a=ASLEEP) == []


def test_a_node_that_failed_comes_last() -> None:
    """Who did not wake is passed over for ten minutes, and then tried again only where nobody else is left."""
    failed = replace(ASLEEP, waking=NOW - timedelta(minutes=3), failed=NOW, wakes_s=(1.0,))
    assert woken(["fastest"], a=failed, b=ASLEEP) == ["b"]
    assert woken(["fastest"], a=failed) == []
    assert woken(["fastest"], now=NOW + TRY_AGAIN, a=failed) == ["a"]
    assert woken(["fastest"], now=NOW + TRY_AGAIN, a=failed, b=ASLEEP) == ["b"]


def test_lines_that_somebody_serves_wake_nobody() -> None:
    """Only what no connected node takes is looked for among what waits."""
    assert unserved(REACH, ["a"], ["b"]) == {("m", "node:b")}
    assert unserved(REACH, [], ["b"]) == {("m", line) for line in ("fastest", "zone:DE", "node:b")}
    assert unserved(REACH, ["a", "b"], []) == set()


def test_how_long_waking_takes_is_learned() -> None:
    """The median of past wake-ups tells when a node is ready; one that never woke tells nothing, nor does a failure."""
    sleep = replace(ASLEEP, waking=NOW, wakes_s=(30.0, 50.0))
    assert sleep.woken(NOW + timedelta(seconds=40)).wakes_s == (30.0, 50.0, 40.0)
    assert sleep.ready(NOW + timedelta(seconds=5)) == NOW + timedelta(seconds=40)
    assert replace(sleep, waking=None).ready(NOW) == NOW + timedelta(seconds=40)
    assert sleep.ready(NOW + timedelta(seconds=60)) == NOW + timedelta(seconds=60)
    assert ASLEEP.ready(NOW) is None
    assert replace(sleep, failed=NOW).woken(NOW).wakes_s == (30.0, 50.0)
    assert len(replace(sleep, wakes_s=(1.0,) * 20).woken(NOW).wakes_s) == 20


def test_a_magic_packet() -> None:
    """Six bytes of ones and sixteen times the address; what is none is refused."""
    assert magic_packet(MAC) == magic_packet("02-00-5E-00-53-01") == PACKET
    assert len(PACKET) == 102
    for wrong in ("", "02:00:5e:00:53", "02:00:5e:00:53:zz"):
        with pytest.raises(JouleboxError):
            magic_packet(wrong)
    assert address_of("10.0.0.255") == ("10.0.0.255", 9)
    assert address_of("10.0.0.255:7") == ("10.0.0.255", 7)
    for wrong in ("10.0.0.255:seven", "10.0.0.255:0", "10.0.0.255:70000", ":9", ""):
        with pytest.raises(JouleboxError):
            address_of(wrong)


def test_who_waits_for_a_sleeping_node_is_told() -> None:
    """The outlook names the node, how long it takes, and when it is expected; a node that failed is named as such."""
    prompt = Prompt(model="m", messages=(Message(role="user", content="hi"),))
    job = Job(id="j", state=JobState.AVAILABLE, prompt=prompt, created=NOW, available=NOW)
    record = Record(job=job, number=1, placement="fastest", cancel=False)
    sleep = replace(ASLEEP, waking=NOW, wakes_s=(40.0,))
    scene = Scene(before={}, reach=Reaches({"a": REACH["a"]}), present=[], busy={}, pace=Pace(), asleep={"a": sleep})
    told = outlook(record, None, scene, NOW)
    assert told.reason == "a was suspended and is woken for it, which takes about 40 s"
    assert (told.position, told.expected_start) == (0, NOW + timedelta(seconds=40))
    never = outlook(record, None, replace(scene, asleep={"a": ASLEEP}), NOW)
    assert (never.reason, never.expected_start) == ("a was suspended and is woken for it", None)
    failed = outlook(record, None, replace(scene, asleep={"a": replace(sleep, failed=NOW)}), NOW)
    assert failed.reason == "waiting for a, which was suspended and did not wake: it is tried again every 10 minutes"
    drained = outlook(record, None, replace(scene, draining={"a": "new fans"}), NOW)
    assert drained.reason == "waiting for a, which takes no prompts for now: new fans"


# --- the node ---------------------------------------------------------------------------------------------------------


class Dozing(SimulatedClock):
    """A clock whose calendar goes on by an hour, and it does not, once a file is there."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def utc(self) -> datetime:
        return super().utc() + timedelta(hours=self._path.exists())


def test_a_node_comes_back_when_the_machine_has_slept(tmp_path: Path) -> None:
    """It returns as soon as the calendar has gone on without it; a command that refuses, is not there, or does nothing
    is told apart as no sleep, within its bound."""
    clock = Dozing(tmp_path / "slept")
    assert sleep_by(["false"], clock) == 0
    assert sleep_by([str(tmp_path / "no such command")], clock) == 0
    assert clock.now_ns() == 0
    assert sleep_by(["true"], clock) == 0
    assert 30e9 <= clock.now_ns() < 31e9
    assert sleep_by(["touch", str(tmp_path / "slept")], clock) == 3600
    assert clock.now_ns() < 31e9


def test_half_a_policy_is_refused(tmp_path: Path) -> None:
    """Time without command, command without time, and a node that nobody could wake are refused in a sentence."""
    whole = {"data_dir": tmp_path, "idle_suspend_s": 60.0, "suspend_command": "sh -c 'echo mem'", "wake_mac": MAC}
    rest = rest_of(Settings.model_validate(whole))
    assert list(rest.command) == ["sh", "-c", "echo mem"]
    assert (rest.policy.suspend_s, rest.policy.mac) == (60.0, MAC)
    assert (rest.suspends(59), rest.suspends(60), Rest().suspends(1e9)) == (False, True, False)
    assert rest.wait_s(50.0, loaded=False) == 10.0
    for name, sentence in (
        ("idle_suspend_s", "belong together"),
        ("suspend_command", "belong together"),
        ("wake_mac", "set wake_mac"),
    ):
        with pytest.raises(JouleboxError, match=sentence):
            rest_of(Settings.model_validate({key: value for key, value in whole.items() if key != name}))
    with pytest.raises(JouleboxError, match="wake_mac"):
        load_settings(wake_mac="02:00")
    assert card_towards("http://127.0.0.1:8080") is None
    assert card_towards("http://no.such.host.invalid") is None
    assert rest_of(Settings(data_dir=tmp_path)).policy == IdlePolicy()


# --- the server -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def woken_stage(folder: Path, listener: socket.socket, clock: Ahead, **settings: Any) -> AsyncIterator[Stage]:
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    async with stage(folder, clock=clock, grace_s=60, wake_address=(address,), **settings) as scene:
        yield scene


async def suspend(scene: Stage, name: str = "n1", policy: IdlePolicy = SLEEPER) -> httpx2.Response:
    body = to_json(offer(node=name, wait_s=0.0, suspends=True, policy=policy))
    return await scene.http.post("/node/v1/lease", content=body)


async def heard(listener: socket.socket) -> bytes:
    async with asyncio.timeout(15):
        return await asyncio.get_running_loop().sock_recv(listener, 2048)


def drained(listener: socket.socket) -> int:
    """How many packets lie there."""
    count = 0
    with suppress(BlockingIOError):
        while listener.recv(2048):
            count += 1
    return count


async def node(scene: Stage, name: str = "n1") -> Json:
    nodes = (await scene.http.get("/api/v1/nodes")).json()["nodes"]
    return next(one for one in nodes if one["name"] == name)


async def test_a_sleeping_node_is_woken_for_work(tmp_path: Path, listener: socket.socket, database: Json) -> None:
    """A node gets leave to suspend only without a job; a prompt that only it can take has a magic packet sent, again
    and again, and when it comes back it gets the prompt, and how long that took is expected of the next time, also by
    a server that began anew."""
    clock = Ahead()
    async with woken_stage(tmp_path, listener, clock, **database) as scene:
        await scene.join()
        first = (await scene.ask())["id"]
        lease = (await suspend(scene)).json()
        assert lease["job_id"] == first
        assert (await node(scene))["state"] == "busy"
        async with scene.hold(lease):
            await scene.send(lease, story("a"))
            await scene.finish(lease, done(lease, "a"))
        assert (await suspend(scene)).status_code == 204
        found = await node(scene)
        assert (found["state"], found["reason"]) == ("suspended", "idle for 10 min, so it sleeps until it is needed")
        assert found["idle_policy"] == {"unload_s": None, "suspend_s": 600.0, "wake_max_s": 120.0}
        assert (await scene.http.get("/api/v1/models")).json()["models"][0]["available"]
        assert drained(listener) == 0
        status = await scene.ask()
        assert (status["expected_start"], status["reason"]) == (None, "n1 was suspended and is woken for it")
        assert await heard(listener) == PACKET
        assert (await node(scene))["state"] == "waking"
        clock.advance(5)
        await scene.waker.turn()
        assert await heard(listener) == PACKET
        clock.advance(35)
        lease = await scene.lease(policy=SLEEPER)
        assert lease["job_id"] == status["id"]
        assert (await node(scene))["state"] == "busy"
        await scene.finish(lease, done(lease, "b"))
        assert 40 <= (await node(scene))["wake_s"] < 60
        assert (await suspend(scene)).status_code == 204
    async with woken_stage(tmp_path, listener, clock, **database) as scene:
        assert (await node(scene))["state"] == "suspended"
        drained(listener)
        status = await scene.ask()
        assert "is woken for it, which takes about 4" in status["reason"]
        assert status["expected_start"] is not None
        assert await heard(listener) == PACKET


async def test_a_node_that_is_drained_while_it_wakes(tmp_path: Path, listener: socket.socket) -> None:
    """It takes no prompts, asleep or not, and nobody says that it did not wake: nothing was sent to it any more."""
    async with woken_stage(tmp_path, listener, Ahead()) as scene:
        assert (await suspend(scene)).status_code == 204
        await scene.ask()
        assert await heard(listener) == PACKET
        await scene.http.post("/api/v1/nodes/n1/drain", json={"why": "new fans"})
        await scene.waker.turn()
        found = await node(scene)
        assert (found["state"], found["reason"]) == ("draining", "new fans")
        assert not (await scene.http.get("/api/v1/models")).json()["models"][0]["available"]
        await scene.http.delete("/api/v1/nodes/n1/drain")
        assert (await node(scene))["state"] == "waking"


async def test_a_node_that_does_not_wake_is_given_up(tmp_path: Path, listener: socket.socket) -> None:
    """Beyond its bound a node is marked and another is woken for the prompt, where it speaks after all it takes part
    again, and while a connected node takes the prompt nobody is woken."""
    clock = Ahead()
    async with woken_stage(tmp_path, listener, clock) as scene:
        await scene.join(node="n3")
        for name in ("n1", "n2"):
            assert (await suspend(scene, name)).status_code == 204
        lease = asyncio.create_task(scene.lease(node="n3"))
        served = (await scene.ask())["id"]
        assert (await lease)["job_id"] == served
        await scene.waker.turn()
        assert drained(listener) == 0
        await scene.http.post("/api/v1/nodes/n3/drain", json={"why": "away"})
        prompt_id = (await scene.ask())["id"]
        assert await heard(listener) == PACKET
        states = {name: (await node(scene, name))["state"] for name in ("n1", "n2")}
        assert states == {"n1": "waking", "n2": "suspended"}
        clock.advance(121)
        await scene.waker.turn()
        given_up = await node(scene, "n1")
        assert (given_up["state"], (await node(scene, "n2"))["state"]) == ("away", "waking")
        assert given_up["reason"] == "it was suspended, and did not wake within 2.0 min: look after it"
        assert await heard(listener) == PACKET
        assert (await scene.lease(node="n2"))["job_id"] == prompt_id
        await scene.join(node="n1")
        assert (await node(scene, "n1"))["state"] == "idle"


async def test_nobody_suspends_whom_nobody_could_wake(tmp_path: Path, listener: socket.socket) -> None:
    """Without an address of a network card there is no leave to suspend, and a control prompt that is due comes
    before it."""
    clock = Ahead()
    async with woken_stage(tmp_path, listener, clock) as scene:
        reply = await suspend(scene, policy=IdlePolicy(suspend_s=1.0))
        assert (reply.status_code, reply.json()["code"]) == (422, "bad_request")
        assert (await node(scene))["state"] == "idle"
        clock.advance(100_000)
        lease = (await suspend(scene)).json()
        assert lease["purpose"] == "control"
        assert (await node(scene))["state"] == "busy"


async def test_a_plan_reckons_with_sleeping_nodes(tmp_path: Path, listener: socket.socket) -> None:
    """A prompt for the greenest node, of which all sleep, waits in their line and is taken by the one that wakes."""
    clock = Ahead()
    async with woken_stage(tmp_path, listener, clock) as scene:
        await scene.join()
        assert (await suspend(scene)).status_code == 204
        status = await scene.ask(placement="greenest")
        assert "n1 was suspended and is woken for it" in status["reason"]
        assert await heard(listener) == PACKET
        assert (await scene.lease())["job_id"] == status["id"]


async def worked(scene: Stage, name: str, zone: str) -> None:
    """A node of that grid has answered, so that it is known what it takes there."""
    await scene.ask(placement=f"node:{name}")
    lease = await scene.lease(node=name, zone=zone, policy=SLEEPER)
    assert (await scene.finish(lease, done(lease, "a", node=name))).status_code == 200


async def test_a_planned_prompt_goes_elsewhere(tmp_path: Path, listener: socket.socket) -> None:
    """A greener node is chosen although it sleeps, with the time that waking takes reckoned in; when it does not wake
    the prompt is planned again, onto the node that is there."""
    clock = Ahead()
    async with woken_stage(tmp_path, listener, clock, greener_wait_s=600.0) as scene:
        for name, zone in (("n1", "SE"), ("n2", "DE")):
            await scene.join(node=name, zone=zone, policy=SLEEPER)
            await worked(scene, name, zone)
        asleep = to_json(offer(node="n1", zone="SE", wait_s=0.0, suspends=True, policy=SLEEPER))
        assert (await scene.http.post("/node/v1/lease", content=asleep)).status_code == 204
        await scene.ask(placement="node:n1")
        assert await heard(listener) == PACKET
        clock.advance(40)
        lease = await scene.lease(node="n1", zone="SE", policy=SLEEPER)
        await scene.finish(lease, done(lease, "a", node="n1"))
        assert (await scene.http.post("/node/v1/lease", content=asleep)).status_code == 204
        drained(listener)
        there = asyncio.create_task(scene.lease(node="n2", zone="DE", policy=SLEEPER, wait_s=20.0))
        async with asyncio.timeout(15):
            while (await node(scene, "n2"))["state"] != "idle":  # noqa: ASYNC110 - asked as people ask
                await asyncio.sleep(0.01)
        status = await scene.ask(placement="greenest")
        assert "n1 is expected to emit the least" in status["placement"]["reason"]
        assert "n1 was suspended and is woken for it" in status["reason"]
        assert await heard(listener) == PACKET
        clock.advance(121)
        await scene.waker.turn()
        await scene.planner.turn(everything=True)
        assert (await asyncio.wait_for(there, 5))["job_id"] == status["id"]
        assert (await node(scene, "n1"))["state"] == "away"


# --- a real process ---------------------------------------------------------------------------------------------------


async def test_a_real_node_is_suspended_and_woken(tmp_path: Path, listener: socket.socket) -> None:
    """A node process whose suspend command ends it, as a machine that is switched off, is started again by the magic
    packet and answers; the command never ran while it answered."""
    own = tmp_path / "node"
    own.mkdir()
    script = tmp_path / "suspend.sh"
    script.write_text(f"#!/bin/sh\necho $PPID >> {tmp_path}/suspended\nkill -9 $PPID\n")
    script.chmod(0o755)
    lone = Path(__file__).with_name("lone_node.py")

    def started() -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(lone), scene.url, str(own), "n1", "0.4", "0.3", str(script)]
        return subprocess.Popen(command)

    async with woken_stage(tmp_path, listener, Ahead()) as scene:
        process = started()
        try:
            async with asyncio.timeout(40):
                while process.poll() is None:  # noqa: ASYNC110 - a process is watched
                    await asyncio.sleep(0.02)
            assert (await node(scene))["state"] == "suspended"
            prompt_id = (await scene.ask())["id"]
            assert await heard(listener) == PACKET
            process = started()
            async with asyncio.timeout(40):
                while (await scene.status(prompt_id))["state"] != "completed":
                    assert len((tmp_path / "suspended").read_text().splitlines()) == 1
                    await asyncio.sleep(0.02)
            assert (await scene.status(prompt_id))["attempt"] == 1
            assert (await node(scene))["wake_s"] is not None
        finally:
            process.kill()
            process.wait()
