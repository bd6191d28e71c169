"""What failed attempts drew: their evidence, and what it means for `full` of the attempt that answered."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instruments import Instrument, Kind
from intervals import INSTRUMENTS
from joulebox.accounting import account, receipt_bytes
from joulebox.accounting.attempts import left_alone
from joulebox.clock import SimulatedClock
from joulebox.errors import JouleboxError
from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import EarlierAttempt, Message, ModelFile, Placement, Problem, Prompt, ReadingKind, Receipt, Trace
from joulebox.node.engine import LocalModel
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.measurement import Conditions, Machine, Measured, measure
from joulebox.node.recorder import Recorder
from joulebox.protocol import Finish, Lease, pack_trace
from joulebox.rig.physics import Machine as SimulatedMachine
from joulebox.rig.wall import Wall
from joulebox.server.delivery import attempts_before
from joulebox.server.grid import factors_for
from joulebox.units import nanoseconds, seconds
from server_stage import done, evidence, stage
from test_agent import agent_of, at_work
from traces import PLACEMENT, S, channel, factors, series, trace, work

DYING = Script(load_s=0.5, tokens=60, die_after_tokens=40)
LIVING = Script(load_s=0.5, tokens=60)


class Bench:
    """A simulated machine behind one instrument at the plug, its node and what the node did."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.clock, self.machine = SimulatedClock(), SimulatedMachine(1)
        self.wall = Wall(self.machine)
        self.recorder = Recorder([Instrument(self.wall, self.clock, kind)], self.clock, reading_hz=10.0)
        self.recorder.start()
        self.engine = Scripted(self.clock, activity=self.machine.activity)
        (folder / "m.gguf").touch()
        file = ModelFile(id="m", digest="d", quantization="q", size_bytes=1, memory_bytes=1, context_tokens=4096)
        self.model = LocalModel(file=file, path=folder / "m.gguf")
        self.left: list[Trace] = []
        self.ends_ns: list[tuple[int, int]] = []
        self.clock.sleep_until(nanoseconds(130.0))
        self.quiet_ns = 0
        self.stop_after: int | None = None

    def told(self, kind: str, **_: object) -> None:
        """What the node says; after so many tokens somebody stops it."""
        if kind == "token" and self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after == 0:
                raise KeyboardInterrupt

    def attempt(self, number: int, script: Script, **about: Any) -> Measured | None:
        """One attempt; what it drew really is `drawn_j` of its place."""
        self.engine.script = script
        prompt = Prompt(model="m", messages=(Message(role="user", content="hi"),))
        fields: dict[str, Any] = {"queued_s": 0.0, "placement_reason": "", **about}
        lease = Lease(token="t", job_id="j", attempt=number, prompt=prompt, **fields)
        machine = Machine(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000)
        conditions = Conditions(failed=self.left.append)
        ready = (self.model, machine, self.engine, self.recorder, self.clock, self.told, self.quiet_ns)
        began_ns, measured = self.clock.now_ns(), None
        try:
            measured = measure(lease, *ready, conditions)
        except JouleboxError as error:
            assert error.code == "engine_died"
        except KeyboardInterrupt:
            assert self.stop_after == 0
            self.machine.activity(self.clock.now_ns(), 0.0)  # its engine ends with it
        self.quiet_ns = self.clock.now_ns()
        self.ends_ns.append((began_ns, self.quiet_ns))
        self.clock.sleep_until(self.quiet_ns + nanoseconds(0.4))
        return measured

    def drawn_j(self) -> float:
        """What the plug drew from lease to release, of all attempts."""
        return sum(self.wall.energy_j(end_ns) - self.wall.energy_j(start_ns) for start_ns, end_ns in self.ends_ns)


def receipt_of(run: Trace, *earlier: EarlierAttempt) -> Receipt:
    return account(run, factors(), receipt_id="r", placement=PLACEMENT, earlier=earlier)


def codes(receipt: Receipt) -> list[str]:
    return [reason.code for reason in receipt.reasons]


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_full_holds_what_failed_attempts_drew(tmp_path: Path, instrument: str) -> None:
    """After two engine deaths `full` is what was really drawn by all three attempts, within its interval."""
    bench = Bench(tmp_path, INSTRUMENTS[instrument][0])
    for number in (1, 2):
        assert bench.attempt(number, DYING) is None
    measured = bench.attempt(3, replace(LIVING, token_s=0.05))
    assert measured is not None
    before = tuple(EarlierAttempt(number=left.attempt, trace=left) for left in bench.left)
    receipt, alone = receipt_of(measured.trace, *before), receipt_of(measured.trace)
    full, own = receipt.energy.full, alone.energy.full
    assert full is not None
    assert own is not None
    truth_j = bench.drawn_j()
    print(f"{instrument}: full {full.j:.2f} ± {full.u:.2f} J, truth {truth_j:.2f} J, own {own.j:.2f} J (simulated)")
    assert abs(full.j - truth_j) <= full.u
    assert full.u < 0.35 * full.j
    assert full.j > own.j + 2 * 20.0
    assert receipt.energy.answer == alone.energy.answer
    assert codes(receipt).count("failed_attempt") == 1
    assert receipt.verdict == alone.verdict
    reserved_s = sum(seconds(end_ns - start_ns) for start_ns, end_ns in bench.ends_ns)
    assert receipt.sci.reserved.TiR_s == pytest.approx(reserved_s, abs=0.01)
    assert receipt.sci.reserved.E_kwh == pytest.approx(full.j / 3.6e6)


def test_full_holds_what_a_stopped_node_drew(tmp_path: Path) -> None:
    """What a node drew that was stopped in the middle of a prompt is part of `full` of the attempt that answered."""
    bench = Bench(tmp_path, INSTRUMENTS["plug, mean over 1 s"][0])
    bench.stop_after = 30
    assert bench.attempt(1, LIVING) is None
    measured = bench.attempt(2, LIVING)
    assert measured is not None
    (left,) = bench.left
    assert (left.finish_reason, len(left.tokens)) == ("failed", 30)
    receipt, own = receipt_of(measured.trace, EarlierAttempt(number=1, trace=left)), receipt_of(measured.trace)
    assert receipt.energy.full is not None
    assert own.energy.full is not None
    assert abs(receipt.energy.full.j - bench.drawn_j()) <= receipt.energy.full.u
    assert receipt.energy.full.j > own.energy.full.j + 20.0


def test_a_failed_attempts_evidence(tmp_path: Path) -> None:
    """It holds the readings and the tokens so far, no answer, and survives its way to the server bit by bit."""
    bench = Bench(tmp_path, INSTRUMENTS["counter, 1 ms (RAPL)"][0])
    bench.attempt(1, DYING)
    (left,) = bench.left
    assert left.finish_reason == "failed"
    assert (left.span("answer"), len(left.tokens)) == (None, 40)
    assert decode_trace(encode_trace(left)) == left
    with pytest.raises(ValueError, match="no answer"):
        receipt_of(left)


def test_what_is_unknown_is_not_zero() -> None:
    """An attempt without evidence, with another scope or with a reset counter adds nothing, and the receipt says that
    `full` is a lower bound."""
    run = trace(series(channel(), work(10.0, 30.0, 30.0, 32.0), 40.0), attempt=4)
    wall = trace(series(channel("plug", "wall"), work(10.0, 30.0, 30.0, 32.0), 40.0), attempt=2, spans=(), tokens=())
    anew = series(channel(), work(10.0, 30.0, 30.0, 32.0), 40.0)
    pairs = zip(anew.t_ns, anew.raw, strict=True)
    reset = trace(replace(anew, raw=tuple(raw if t < 31 * S else raw // 9 for t, raw in pairs)))
    lost = EarlierAttempt(number=1, trace=None)
    told = receipt_of(
        run, lost, EarlierAttempt(number=2, trace=wall), EarlierAttempt(number=3, trace=replace(reset, attempt=3))
    )
    assert told.energy == receipt_of(run).energy
    (reason,) = [reason for reason in told.reasons if reason.code == "unknown_attempt"]
    assert reason.level == "note"
    assert "attempts 1, 2, 3" in reason.sentence
    assert "at least" in reason.sentence
    assert "failed_attempt" not in codes(told)


def test_an_attempt_that_is_modelled_like_the_answer_is_known() -> None:
    """Without a meter an attempt's figure is modelled like the answer's, whether another one answered or none did; one
    that a meter has seen is of another scope."""
    busy = channel("busy", "machine", kind=ReadingKind.BUSY_RATIO, step=0.01, tick_s=0.01)
    run = trace(series(busy, work(0.02, 2.0, 30.0, 32.0), 34.0), attempt=2)
    left = replace(run, attempt=1, spans=(), tokens=(), finish_reason="failed")
    found, own = left_alone(left), receipt_of(run).energy.full
    assert found is not None
    assert own is not None
    scope, j, _ = found
    assert scope == "modelled"
    assert j == pytest.approx(own.j, rel=0.01)
    told = receipt_of(run, EarlierAttempt(number=1, trace=left))
    assert told.energy.full is not None
    assert told.energy.full.j == pytest.approx(own.j + j)
    metered = replace(left, series=(series(channel(), work(10.0, 30.0, 30.0, 32.0), 40.0),))
    assert "unknown_attempt" in codes(receipt_of(run, EarlierAttempt(number=1, trace=metered)))


@pytest.mark.parametrize(("from_s", "to_s"), [(31.0, 40.0), (0.0, 31.0), (0.0, 29.0), (34.0, 40.0)])
def test_an_attempt_that_was_seen_in_part_is_unknown(from_s: float, to_s: float) -> None:
    """Readings that begin after the lease, or end before the release, by more than some ticks tell nothing of it."""
    run = trace(series(channel(), work(10.0, 30.0, 30.0, 32.0), 40.0), attempt=2)
    (whole,) = run.series
    kept = [place for place, t_ns in enumerate(whole.t_ns) if from_s * S <= t_ns <= to_s * S]
    part = replace(whole, t_ns=tuple(whole.t_ns[i] for i in kept), raw=tuple(whole.raw[i] for i in kept))
    left = replace(run, attempt=1, series=(part,), spans=(), tokens=(), finish_reason="failed")
    assert left_alone(left) is None
    told = receipt_of(run, EarlierAttempt(number=1, trace=left))
    assert told.energy == receipt_of(run).energy
    assert "unknown_attempt" in codes(told)


def failure(lease: dict[str, object], **changes: object) -> Finish:
    left = evidence(lease, spans=(), tokens=(), finish_reason="failed", **changes)  # type: ignore[arg-type]
    problem = Problem(code="engine_died", detail="The engine died.")
    return Finish(outcome="failed", problem=problem, retry=True, trace_b64=pack_trace(left))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_the_server_keeps_the_evidence_of_failures(tmp_path: Path) -> None:
    """A receipt counts the failed attempt, tells of the lost one, and can be made again from what is stored, bit by
    bit; evidence that cannot be read leaves a failure a failure."""
    async with stage(tmp_path, grace_s=60) as scene:
        await scene.join()
        await scene.ask()
        first = await scene.lease()
        assert (await scene.finish(first, failure(first))).status_code == 200
        await scene.lease()  # asked again without an end: lost
        third = await scene.lease()
        assert (await scene.finish(third, replace(failure(third), trace_b64="rubbish"))).status_code == 200
        fourth = await scene.lease()
        assert fourth["attempt"] == 4
        receipt_id = (await scene.finish(fourth, done(fourth, "x"))).json()["receipt_id"]
        reply = await scene.http.get(f"/api/v1/receipts/{receipt_id}")
        sentences = {reason["code"]: reason["sentence"] for reason in reply.json()["reasons"]}
        assert "attempt 1)" in sentences["failed_attempt"]
        assert "attempts 2, 3)" in sentences["unknown_attempt"]
        assert reply.json()["energy"]["full"]["j"] == pytest.approx(2 * (10 * 3.2 + 20 * 2.0), rel=0.01)
        earlier = attempts_before(await scene.store.earlier(fourth["job_id"], 4))
        blob = await scene.store.trace(receipt_id)
        assert blob is not None
        run, placement = decode_trace(blob), Placement(**reply.json()["placement"])
        known = factors_for(run.zone, scene.settings, run.origin)
        again = account(run, known, receipt_id=receipt_id, placement=placement, earlier=earlier)
        assert receipt_bytes(again) == reply.content


@pytest.mark.anyio
async def test_a_node_delivers_what_its_dead_engine_drew(tmp_path: Path) -> None:
    """Each failed attempt of a real agent has its evidence in the database; so has a cancelled one."""
    async with stage(tmp_path, grace_s=60, attempts_max=2) as scene:
        await scene.join(instance="earlier")
        agent = agent_of(scene.url, tmp_path, "n2", Script(load_s=0.0, prefill_s=0.0, tokens=5, die_after_tokens=2))
        prompt_id = (await scene.ask())["id"]
        async with at_work(agent):
            await scene.until(prompt_id, "discarded")
            earlier = await scene.store.earlier(prompt_id, 99)
            assert [number for number, _ in earlier] == [1, 2]
            left = attempts_before(earlier)
            assert [(one.trace.attempt, len(one.trace.tokens)) for one in left if one.trace] == [(1, 2), (2, 2)]
            assert isinstance(agent._engine, Scripted)
            agent._engine.script = Script(load_s=0.0, prefill_s=0.0, token_s=0.02, tokens=5_000)
            other_id = (await scene.ask("another", max_tokens=500))["id"]
            await scene.until(other_id, "running")
            await asyncio.sleep(0.1)
            await scene.http.delete(f"/api/v1/prompts/{other_id}")
            await scene.until(other_id, "cancelled")
            ((_, blob),) = await scene.store.earlier(other_id, 99)
            assert blob is not None
            assert decode_trace(blob).finish_reason == "cancelled"
