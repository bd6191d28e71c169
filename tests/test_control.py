"""The control prompt: when it runs, what its reference is, when a node has drifted, and what receipts then say."""

import asyncio
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from intervals import INSTRUMENTS
from joulebox.accounting import account
from joulebox.cli import app
from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import NodeControl, Problem, ReadingKind, Remark, Sampling, Trace
from joulebox.protocol import Finish, pack_trace
from joulebox.server import control
from joulebox.server.control import Book, Entry
from joulebox.statistics import DECISION, REFERENCE_RUNS, SPREAD_MIN_RATIO, Cusum, Reference, reference_of
from server_stage import COUNTER, Ahead, Json, Stage, offer, stage
from test_attempts import LIVING, Bench
from traces import PLACEMENT, S, channel, factors, series, trace, work

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


# --- the chart --------------------------------------------------------------------------------------------------------


def run_length(chance: random.Random, reference: Reference, shift: float, allowance: float, limit: float) -> int:
    """After how many values of spread 1 around `shift` the sums pass `limit`; 1,500 at most."""
    sums = Cusum()
    for count in range(1, 1_501):
        sums = sums.then(chance.gauss(shift, 1.0), reference, allowance)
        if max(sums.high, sums.low) > limit:
            return count
    return 1_500


def test_the_textbooks_run_length() -> None:
    """With a known reference, k = 0.5 and h = 4 a false alarm comes after 168 runs on average (Montgomery, table of
    CUSUM run lengths), one spread off is found after 8.4."""
    chance = random.Random(1)
    known = Reference(mean=0.0, spread=1.0)
    assert fmean(run_length(chance, known, 0.0, 0.5, 4.0) for _ in range(600)) == pytest.approx(168, rel=0.15)
    assert fmean(run_length(chance, known, 1.0, 0.5, 4.0) for _ in range(600)) == pytest.approx(8.4, rel=0.15)


def test_run_lengths_of_this_chart() -> None:
    """With a reference of 20 runs a false alarm comes after 500 runs or more in most cases and within 100 in few; one
    and a half spreads off is found after some ten."""
    chance = random.Random(2)
    found: dict[float, list[int]] = {0.0: [], 1.5: [], 2.0: []}
    for shift, lengths in found.items():
        for _ in range(120):
            reference = reference_of([chance.gauss(0.0, 1.0) for _ in range(REFERENCE_RUNS)])
            lengths.append(run_length(chance, reference, shift, 0.75, DECISION))
    early = sum(length <= 100 for length in found[0.0]) / len(found[0.0])
    told = {shift: median(lengths) for shift, lengths in found.items()}
    print(
        f"CUSUM k 0.75, h {DECISION:g}, reference of {REFERENCE_RUNS}: median run length by shift {told}, {early:.0%}"
    )
    assert told[0.0] >= 500
    assert early <= 0.25
    assert told[1.5] <= 12
    assert told[2.0] <= 7


def test_a_drift_that_is_over_is_forgotten() -> None:
    """The sums have a ceiling: however long a node was off, a few runs at the reference clear it."""
    sums, reference = Cusum(), Reference(mean=100.0, spread=1.0)
    for _ in range(500):
        sums = sums.then(105.0, reference)
    assert sums.drifted
    for _ in range(9):
        sums = sums.then(100.0, reference)
    assert not sums.drifted


def test_a_reference_is_never_too_sharp() -> None:
    """Values that all agree leave a spread of half a per cent; one value is no reference."""
    assert reference_of([50.0] * 20).spread == SPREAD_MIN_RATIO * 50.0
    with pytest.raises(ValueError, match="two"):
        reference_of([1.0])


# --- the book ---------------------------------------------------------------------------------------------------------


def run_receipt(answer_j: float | None = 50.0, **changes: Any) -> Json:
    receipt: Json = {
        "id": "r",
        "verdict": "valid",
        "energy": {"answer": None if answer_j is None else {"j": answer_j, "u": 1.0}, "scope": "cpu"},
        "model": {"name": "m", "digest": "sha256:0"},
        "engine": {"name": "llama.cpp", "version": "b1"},
        "usage": {"output_tokens": 64},
        "temperature": [],
    }
    return receipt | changes


def after(book: Book, entry: Entry) -> Book:
    """The book with an entry, as the database keeps it."""
    baseline = entry.baseline
    if baseline is not None and baseline.number is None:
        number = (book.baseline.number or 0) + 1 if book.baseline else 1
        return Book(baseline=replace(baseline, number=number), runs=(entry.run,))
    return replace(book, baseline=baseline, runs=(*book.runs, entry.run))


def written(book: Book, receipts: Sequence[Json | None]) -> Book:
    for receipt in receipts:
        book = after(book, control.entry(book, "j", "n1", receipt, NOW))
    return book


def learnt() -> Book:
    return written(Book(), [run_receipt(50.0 + 0.5 * (number % 5 - 2)) for number in range(REFERENCE_RUNS)])


def state(book: Book) -> str | None:
    stands = control.control_of(book)
    return stands.state if stands else None


def test_the_reference_is_made_once_and_stays() -> None:
    """The first 20 runs that count are the reference; what creeps away from it by a per mille a run does not move it
    and is found."""
    book = learnt()
    assert (state(written(Book(), [])), state(written(Book(), [run_receipt()])), state(book)) == (
        None,
        "learning",
        "steady",
    )
    assert book.baseline is not None
    assert book.baseline.mean_j == pytest.approx(50.0)
    creeping = written(book, [run_receipt(50.0 * 1.001**number) for number in range(60)])
    assert creeping.baseline == book.baseline
    assert state(creeping) == "drifted"
    stands = control.control_of(creeping)
    assert stands is not None
    assert stands.off_ratio == pytest.approx(0.03, abs=0.02)
    assert "above" in control.words(stands)
    below = control.control_of(written(book, [run_receipt(45.0)] * 2))
    assert below is not None
    assert below.state == "drifted"
    assert below.off_ratio == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("receipt", "note"),
    [
        (None, "no receipt"),
        (run_receipt(None), "not measured"),
        (run_receipt(90.0, verdict="invalid"), "invalid"),
        (run_receipt(energy={"answer": {"j": 90.0, "u": 1.0}, "scope": "modelled"}), "modelled"),
        (run_receipt(90.0, usage={"output_tokens": 12}), "12 tokens, not 64"),
    ],
)
def test_what_does_not_count(receipt: Json | None, note: str) -> None:
    """Such a run is kept with the reason, and neither makes a reference nor moves the sums."""
    book = written(learnt(), [receipt] * 3)
    assert state(book) == "steady"
    assert note in (book.runs[-1].note or "")
    assert len(book.counted) == REFERENCE_RUNS


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": {"name": "m", "digest": "sha256:1"}}, "model"),
        ({"engine": {"name": "llama.cpp", "version": "b2"}}, "engine"),
        ({"energy": {"answer": {"j": 90.0, "u": 1.0}, "scope": "wall"}}, "meters"),
    ],
)
def test_another_subject_begins_anew(change: Json, why: str) -> None:
    """What cannot be compared is not: the new reference says why it began."""
    book = written(learnt(), [run_receipt(90.0, **change)])
    assert state(book) == "learning"
    assert book.baseline is not None
    assert why in book.baseline.why
    assert len(book.counted) == 1


def test_when_it_is_due() -> None:
    """Hourly while the reference is made, then by hours or by prompts; never for a node that has just come, nor where
    it is turned off."""
    joined, book = NOW, learnt()

    def due(book: Book, hours: float, every: float = 6.0, prompts: int = 100) -> bool:
        return control.is_due(book, joined, NOW + timedelta(hours=hours), every * 3600, prompts)

    assert [due(Book(), hours) for hours in (0.9, 1.1)] == [False, True]
    asked = replace(book, asked=NOW)
    assert [due(asked, hours) for hours in (1.1, 5.9, 6.1)] == [False, False, True]
    assert due(replace(asked, prompts_since=100), 0.1)
    assert not due(replace(asked, prompts_since=100), 0.1, prompts=0)
    assert not due(Book(), 1e4, every=0.0)


def test_the_model_stays() -> None:
    """It is the smallest, and stays the same when a smaller one comes, as long as the node has it."""
    three = offer(models=("a", "m", "z"))
    sized = replace(three, models=tuple(replace(one, size_bytes=2 + n) for n, one in enumerate(three.models)))
    assert control.model_for(sized, Book()) == sized.models[0]
    assert control.model_for(sized, learnt()) == sized.models[1]
    assert control.model_for(replace(sized, models=()), learnt()) is None


# --- the service ------------------------------------------------------------------------------------------------------


def evidence(lease: Json, busy_w: float, **changes: Any) -> Trace:
    readings = series(COUNTER, work(10.0, busy_w, 30.0, 32.0), 34.0)
    stands = NodeControl(**lease["control"]) if lease["control"] else None
    mine = {"job_id": lease["job_id"], "attempt": lease["attempt"], "purpose": lease["purpose"], "control": stands}
    return trace(readings, **(mine | changes))


async def answered(scene: Stage, lease: Json, busy_w: float = 30.0, **changes: Any) -> Json:
    """The receipt of an answer."""
    packed = pack_trace(encode_trace(evidence(lease, busy_w, **changes)))
    finish = Finish(outcome="done", answer="x", finish_reason="stop", chunks=((2, "x"),), trace_b64=packed)
    reply = (await scene.finish(lease, finish)).json()
    receipt: Json = (await scene.http.get(f"/api/v1/receipts/{reply['receipt_id']}")).json()
    return receipt


async def control_run(scene: Stage, clock: Ahead, busy_w: float = 30.0, **changes: Any) -> Json:
    clock.hours += 7.0
    lease = await scene.lease(wait_s=0.0)
    assert lease["purpose"] == "control"
    return await answered(scene, lease, busy_w, **changes)


async def book(scene: Stage) -> Json:
    (node,) = (await scene.http.get("/api/v1/nodes")).json()["nodes"]
    found: Json = node["control"]
    return found


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_node_that_drifts_is_marked_until_it_is_told_otherwise(tmp_path: Path) -> None:
    """Twenty runs make the reference, a shift of 5 % marks the node, receipts of prompts then say so and are suspect,
    and an explicit, dated act begins a new reference; the old one and every run are kept."""
    clock, chance = Ahead(), random.Random(3)
    async with stage(tmp_path, clock=clock, grace_s=60) as scene:
        await scene.join()
        made: Json = {}
        for _ in range(REFERENCE_RUNS):
            made = await control_run(scene, clock, 30.0 * chance.gauss(1.0, 0.01))
        assert made["purpose"] == "control"
        assert "control_prompt" in [one["code"] for one in made["reasons"]]
        assert (await book(scene))["state"] == "steady"
        for _ in range(6):
            await control_run(scene, clock, 31.5)
        stands = await book(scene)
        assert stands["state"] == "drifted"
        assert "above the reference" in stands["sentence"]
        assert stands["runs"][0]["high"] > stands["limit"]
        page = (await scene.http.get("/")).text
        assert re.search(r"<summary>Drifted: its control prompt takes energy [45]\.\d % above", page)
        await scene.ask()
        receipt = await answered(scene, await scene.lease())
        (reason,) = [one for one in receipt["reasons"] if one["code"] == "node_drift"]
        assert (receipt["verdict"], receipt["purpose"], reason["level"]) == ("suspect", "prompt", "suspect")
        assert "% above the reference of 2" in reason["sentence"]
        done = await scene.http.post("/api/v1/nodes/n1/baseline", json={"why": "new fan"})
        assert (done.json()["state"], done.json()["reference"]["why"]) == ("learning", "new fan")
        await scene.ask("again")
        assert "node_drift" not in str((await answered(scene, await scene.lease()))["reasons"])
        await control_run(scene, clock, 31.5)
        assert (await book(scene))["sentence"].startswith("Control prompt: 1 of the 20 runs")
        async with scene.store._database.read() as connection:
            counts = await connection.exec_driver_sql("SELECT baseline, count(*) FROM control_runs GROUP BY baseline")
            assert [tuple(row) for row in counts] == [(1, 26), (2, 1)]


@pytest.mark.anyio
async def test_people_go_first(tmp_path: Path) -> None:
    """A due control prompt waits for everybody, gives way to whoever comes while it runs, and stands in nobody's line
    or list."""
    clock = Ahead()
    async with stage(tmp_path, clock=clock, grace_s=60) as scene:
        await scene.join()
        clock.hours = 2.0
        asked = await scene.ask()
        assert asked["position"] == 0
        lease = await scene.lease()
        assert lease["purpose"] == "prompt"
        await answered(scene, lease)
        await scene.join()  # not idle for long enough yet
        clock.hours = 4.0
        lease = await scene.lease(wait_s=0.0)
        assert (lease["purpose"], lease["prompt"]["mode"]) == ("control", "quiet")
        async with scene.hold(lease) as words:
            waiting = await scene.ask("me")
            assert await anext(words) == "cancel"
            await scene.finish(lease, Finish(outcome="cancelled"))
        assert (await scene.status(lease["job_id"]))["state"] == "cancelled"
        lease = await scene.lease()
        assert lease["job_id"] == waiting["id"]
        await answered(scene, lease)
        listed = (await scene.http.get("/api/v1/prompts")).json()["prompts"]
        assert [one["id"] for one in listed] == [waiting["id"], asked["id"]]


@pytest.mark.anyio
async def test_when_no_control_prompt_runs(tmp_path: Path) -> None:
    """Not where it is turned off, nor on a node without a meter, nor at once on one that has just come, nor again
    after it failed until it is due anew."""
    clock = Ahead()
    async with stage(tmp_path / "off", clock=clock, control_every_s=0) as scene:
        await scene.join()
        clock.hours += 1_000.0
        await scene.join()
    modelled = channel("busy", "machine", kind=ReadingKind.BUSY_RATIO, sampling=Sampling.COUNTER)
    async with stage(tmp_path / "on", clock=clock, grace_s=60) as scene:
        await scene.join(channels=(modelled,))
        clock.hours += 1_000.0
        await scene.join(channels=(modelled,))
        assert await book(scene) is None
    async with stage(tmp_path / "new", clock=clock, grace_s=60) as scene:
        await scene.join()
        clock.hours += 0.9
        await scene.join()
        clock.hours += 0.2
        lease = await scene.lease(wait_s=0.0)
        problem = Problem(code="engine_died", detail="The engine died.")
        await scene.finish(lease, Finish(outcome="failed", problem=problem, retry=True))
        assert (await scene.status(lease["job_id"]))["state"] == "discarded"
        clock.hours += 0.5
        await scene.join()
        clock.hours += 0.6
        assert (await scene.lease(wait_s=0.0))["purpose"] == "control"


@pytest.mark.anyio
async def test_an_invalid_run_does_not_count(tmp_path: Path) -> None:
    """A control run whose receipt is invalid is shown with the reason, and the reference does not learn from it."""
    clock = Ahead()
    async with stage(tmp_path, clock=clock, grace_s=60) as scene:
        await scene.join()
        await control_run(scene, clock)
        reset = Remark(code="meter_reset", detail="package-0", t_ns=31 * S)
        assert (await control_run(scene, clock, 90.0, remarks=(reset,)))["verdict"] == "invalid"
        stands = await book(scene)
        assert (stands["runs"][0]["note"], stands["sentence"][:20]) == (
            "its receipt is invalid",
            "Control prompt: 1 of",
        )


@pytest.mark.anyio
async def test_a_baseline_of_nobody_is_refused(tmp_path: Path) -> None:
    """A node that never joined and a reason that is none are refused in one sentence."""
    async with stage(tmp_path) as scene:
        await scene.join()
        refused = await scene.http.post("/api/v1/nodes/n9/baseline", json={"why": "x"})
        assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        assert (await scene.http.post("/api/v1/nodes/n1/baseline", json={"why": ""})).status_code == 422


def test_the_evidence_carries_what_the_node_was(tmp_path: Path) -> None:
    """The node's state travels in the trace, so that a receipt can be made again of it, the same."""
    stands = NodeControl(state="drifted", since="2026-11-20T07:00:00+00:00", runs=31, off_ratio=-0.042)
    bench = Bench(tmp_path, INSTRUMENTS["counter, 1 ms (RAPL)"][0])
    measured = bench.attempt(1, LIVING, purpose="control", control=stands)
    assert measured is not None
    run = measured.trace
    assert (run.control, run.purpose) == (stands, "control")
    assert decode_trace(encode_trace(run)) == run
    told = {one.code: one.sentence for one in account(run, factors(), receipt_id="r", placement=PLACEMENT).reasons}
    assert "4.2 % below the reference of 2026-11-20" in told["node_drift"]
    assert "own control prompt" in told["control_prompt"]
    quiet = replace(run, control=replace(stands, state="steady"), purpose="prompt")
    assert not {"node_drift", "control_prompt"} & {
        one.code for one in account(quiet, factors(), receipt_id="r", placement=PLACEMENT).reasons
    }


@pytest.mark.anyio
async def test_the_command_line_shows_it_and_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`joulebox control show` prints where each node stands with its runs, `rebaseline` begins a new reference."""
    clock = Ahead()
    async with stage(tmp_path, clock=clock, grace_s=60) as scene:
        await scene.join()
        await control_run(scene, clock)
        for command in (["show"], ["rebaseline", "n1", "--why", "new fan"], ["show", "--json"]):
            monkey = ["control", *command, "--server", scene.url]
            await asyncio.to_thread(app, monkey, standalone_mode=False)
        out = capsys.readouterr().out
    assert "n1: Control prompt: 1 of the 20 runs that its reference needs.\n" in out
    assert re.search(r"\n  20\d\d-\d\d-\d\dT\S+  60\.\d+ ± [\d.]+ J\n", out)
    assert "n1: a new reference begins; it needs 20 runs." in out
    shown = json.loads(out[out.index("\n{") :])
    assert (shown["n1"]["reference"]["why"], shown["n1"]["runs"]) == ("new fan", [])
