"""A node that means harm, seen from the server: what it forges is refused, and what it may say has an end."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import databases
from hostile import HOSTILE
from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import EngineInfo, Problem, ReadingKind
from joulebox.protocol import Finish, NodeEvent, pack_trace, to_json
from joulebox.server import node_api
from server_stage import COUNTER, MODEL, Stage, done, evidence, offer, stage, story

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
FAR = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> Iterator[Json]:
    """A database of each kind, as a setting."""
    with databases.setting(request.param) as found:
        yield found


async def taken(on: Stage, **fields: Any) -> tuple[str, Json]:
    """A prompt, and the lease of the node that took it."""
    asked = await on.ask(**fields)
    return asked["id"], await on.lease()


def finish_of(lease: Json, blob: bytes) -> Finish:
    return replace(done(lease, "x"), trace_b64=pack_trace(blob))


def bomb(lease: Json, count: int) -> bytes:
    """Some hundred kilobytes that are `count` readings once they are unpacked."""
    head = json.loads(_head(evidence(lease)))
    head["counts"] = [count]
    told = json.dumps(head).encode()
    ticks = bytes([1]) + bytes(8 * count - 1)
    packed = zlib.compress(bytes([1] * count) + bytes(7 * count) + ticks, 9)
    return b"JBT1" + len(told).to_bytes(4, "big") + told + packed


def _head(blob: bytes) -> bytes:
    return blob[8 : 8 + int.from_bytes(blob[4:8], "big")]


async def test_evidence_packed_small_fills_no_memory(tmp_path: Path) -> None:
    """Twenty million readings in a few hundred kilobytes are refused before they are unpacked; an hour's are not."""
    async with stage(tmp_path) as on:
        await on.join()
        prompt_id, lease = await taken(on)
        blob = bomb(lease, 19_000_000)
        assert len(blob) < 1_000_000
        reply = await on.finish(lease, finish_of(lease, blob))
        assert (reply.status_code, reply.json()["code"]) == (422, "bad_evidence")
        assert "too many readings" in reply.json()["detail"]
        assert (await on.status(prompt_id))["state"] in ("discarded", "available")
        _, lease = await taken(on)
        assert len(decode_trace(bomb(lease, 500_000)).series[0].raw) == 500_000


FORGED: list[tuple[str, dict[str, Any]]] = [
    ("another attempt", {"job_id": "x" * 16}),
    ("another attempt", {"attempt": 7}),
    ("another attempt", {"node": "n2"}),
    ("was not asked", {"model": replace(MODEL, id="other")}),
]


@pytest.mark.parametrize(("says", "changes"), FORGED)
async def test_evidence_of_something_else_makes_no_receipt(tmp_path: Path, says: str, changes: dict[str, Any]) -> None:
    """Evidence of another prompt, attempt, node or model than was leased is refused and nothing is made of it."""
    async with stage(tmp_path) as on:
        await on.join()
        prompt_id, lease = await taken(on)
        reply = await on.finish(lease, finish_of(lease, evidence(lease, **({"node": "n1"} | changes))))
        assert (reply.status_code, reply.json()["code"]) == (422, "bad_evidence")
        assert says in reply.json()["detail"]
        assert (await on.status(prompt_id))["receipt_id"] is None


LIES: dict[str, dict[str, Any]] = {
    "the end of time": {"origin": FAR},
    "seventy years ahead": {"origin": datetime(2096, 11, 23, tzinfo=UTC)},
    "no zone of time": {"origin": datetime(2026, 11, 23)},  # noqa: DTZ001 - that is the lie
    "the beginning of time": {"origin": datetime(1, 1, 1, tzinfo=UTC)},
    "released before it was leased": {"released_ns": -1},
    "answered for ever": {"released_ns": 2**62},
    "negative waiting": {"queued_s": -1e300},
    "a reason with escapes": {"finish_reason": HOSTILE},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_about_time_leaves_answer_and_server(tmp_path: Path, lie: str) -> None:
    """Evidence whose times cannot be is refused, or kept with a receipt that can be shown; the server goes on."""
    async with stage(tmp_path) as on:
        await on.join()
        prompt_id, lease = await taken(on)
        reply = await on.finish(lease, finish_of(lease, evidence(lease, **LIES[lie])))
        assert reply.status_code in (200, 422), reply.text
        status = await on.status(prompt_id)
        assert status["state"] in ("completed", "discarded", "available")
        for path in (
            f"/prompts/{prompt_id}",
            "/",
            "/nodes",
            "/api/v1/receipts",
            "/metrics",
            "/api/v1/report/sci",
        ):
            assert (await on.http.get(path)).status_code == 200, path
        if status["receipt_id"]:
            for form in ("", "/trace.csv", "/trace.json", "/evidence", "/whatif"):
                shown = await on.http.get(f"/api/v1/receipts/{status['receipt_id']}{form}")
                assert shown.status_code == 200, form
            assert (await on.http.get(f"/receipts/{status['receipt_id']}")).status_code == 200


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (ReadingKind.ENERGY_J, [0, 2**62, -(2**62), 5]),
        (ReadingKind.ENERGY_J, [-5, -4, -3, -2]),
        (ReadingKind.POWER_W, [-(2**60)] * 4),
        (ReadingKind.POWER_W, [2**62] * 4),
    ],
)
async def test_joules_that_cannot_be(tmp_path: Path, kind: ReadingKind, raw: list[int]) -> None:
    """Negative, jumping and gigantic readings end in a receipt that is JSON and is not called valid, or in none."""
    async with stage(tmp_path) as on:
        await on.join()
        prompt_id, lease = await taken(on)
        trace = decode_trace(evidence(lease))
        channel = replace(COUNTER, kind=kind, step=1e3)
        times = tuple(range(0, 34_000_000_000, 1_000_000_000))
        series = replace(
            trace.series[0], channel=channel, t_ns=times, raw=tuple(raw[at % 4] for at in range(len(times)))
        )
        reply = await on.finish(lease, finish_of(lease, encode_trace(replace(trace, series=(series,)))))
        assert reply.status_code == 200
        status = await on.status(prompt_id)
        assert status["state"] == "completed"
        if status["receipt_id"] is not None:
            body = (await on.http.get(f"/api/v1/receipts/{status['receipt_id']}")).json()
            assert json.dumps(body, allow_nan=False)
            assert body["verdict"] != "valid"
        assert (await on.http.get(f"/prompts/{prompt_id}")).status_code == 200


async def test_a_text_that_is_none_is_refused(tmp_path: Path) -> None:
    """Half a pair of surrogates in a header is no text: evidence of which no receipt could be written is refused."""
    async with stage(tmp_path) as on:
        await on.join()
        _, lease = await taken(on)
        head = json.loads(_head(blob := evidence(lease)))
        head["trace"]["engine"]["version"] = "\ud800"
        told = json.dumps(head).encode()
        size = 8 + int.from_bytes(blob[4:8], "big")
        forged = b"JBT1" + len(told).to_bytes(4, "big") + told + blob[size:]
        assert (await on.finish(lease, finish_of(lease, forged))).json()["code"] == "bad_evidence"


async def test_what_a_node_says_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that talks without end in one attempt is refused from a bound on, which repeating counts towards."""
    monkeypatch.setattr(node_api, "SAID_MAX_BYTES", 100_000)
    async with stage(tmp_path) as on:
        await on.join()
        _, lease = await taken(on)
        told = [NodeEvent(seq=0, kind="power", data={"w": 1.0, "more": "x" * 40_000})]
        codes = [(await on.send(lease, told)).status_code for _ in range(4)]
        assert codes == [200, 200, 422, 422]


@pytest.mark.parametrize(
    "change",
    [
        {"instance": "x" * 65},
        {"instance": ""},
        {"models": ("a\x1b[2J",)},
        {"models": ("x" * 201,)},
        {"models": tuple(f"m{at}" for at in range(10_001))},
        {"missing": ("\u202egpu",)},
        {"loaded": "x" * 501},
        {"engine": EngineInfo(name="e\n", version="1")},
        {"channels": (replace(COUNTER, accuracy="x" * 501),)},
    ],
)
async def test_names_that_none_has_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """A node that offers names with control characters, endless ones, or endlessly many, does not join."""
    async with stage(tmp_path) as on:
        reply = await on.http.post("/node/v1/lease", content=to_json(offer(**({"wait_s": 0.0} | change))))
        assert reply.status_code in (413, 422), change
        assert reply.json()["code"] in ("bad_request", "body_too_large")
        assert (await on.http.get("/api/v1/nodes")).json() == {"nodes": []}


async def test_signs_that_no_database_takes(tmp_path: Path, database: Json) -> None:
    """A model that writes the sign NUL has answered: it stands there as a sign that could not be shown."""
    async with stage(tmp_path, **database) as on:
        await on.join()
        prompt_id, lease = await taken(on, prompt="a\x00b", system="\x00")
        await on.send(lease, story("x\x00y"))
        assert (await on.finish(lease, done(lease, "x\x00y"))).status_code == 200
        status = await on.until(prompt_id, "completed")
        assert status["answer"] == "x\ufffdy"
        assert [one.data["text"] for one in await on.all_events(prompt_id) if one.name == "token"] == ["x\ufffdy"]


async def test_a_failure_told_at_length(tmp_path: Path, database: Json) -> None:
    """A failure whose code is unknown and whose sentence is endless is one of ours, and cut."""
    async with stage(tmp_path, **database) as on:
        await on.join()
        prompt_id, lease = await taken(on)
        problem = Problem(code="x" * 10_000, detail=f"{HOSTILE}\x00" * 9_000)
        assert (await on.finish(lease, Finish(outcome="failed", problem=problem))).status_code == 200
        error = (await on.until(prompt_id, "discarded"))["error"]
        assert error["code"] == "internal"
        assert len(error["detail"]) <= node_api.DETAIL_MAX
        reason = replace(done(lease, "x"), finish_reason="x" * 33)
        assert (await on.finish(lease, reason)).status_code == 422


async def test_nothing_after_the_end(tmp_path: Path) -> None:
    """Once an attempt is over its token says nothing: no event, no second answer, no other node's word; the same
    delivery is answered the same."""
    async with stage(tmp_path) as on:
        await on.join()
        prompt_id, lease = await taken(on)
        first = done(lease, "first")
        receipt = (await on.finish(lease, first)).json()
        assert (await on.send(lease, story("more"))).json()["code"] == "stale_attempt"
        for again in (first, done(lease, "second")):
            assert (await on.finish(lease, again)).json() == receipt
        assert (await on.finish(lease, Finish(outcome="cancelled"))).json()["code"] == "stale_attempt"
        assert (await on.status(prompt_id))["answer"] == "first"
        guesses = [lease["token"][:-1], lease["token"].swapcase(), lease["job_id"], "%2e%2e", "x" * 5_000]
        for guess in guesses:
            reply = await on.finish({"token": guess}, first)
            assert reply.status_code in (404, 409, 414, 400), guess
