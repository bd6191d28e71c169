"""What people and nodes send wrongly is answered by one problem document with one sentence; nothing breaks."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulebox.errors import REGISTRY
from joulebox.model import EngineInfo
from joulebox.protocol import NodeEvent, to_json
from joulebox.server.foreign.problems import form_of
from server_stage import MODEL, done, offer, stage, story

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


JSON = {"Content-Type": "application/json"}
GOOD = {"model": "m", "prompt": "hi"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "m", "prompt": "  \n"}, "empty_prompt", "write something"),
    ({"model": "m", "messages": []}, "empty_prompt", "write something"),
    ({"model": "m", "messages": [{"role": "system", "content": "x"}]}, "empty_prompt", "write something"),
    ({"model": "m"}, "bad_request", "either prompt or messages"),
    (GOOD | {"messages": [{"role": "user", "content": "x"}]}, "bad_request", "either prompt or messages"),
    ({"prompt": "hi"}, "bad_request", "model is missing"),
    (GOOD | {"model": "nope"}, "unknown_model", "There is m."),
    (GOOD | {"prompt": "x" * 10_000}, "prompt_too_long", "512 tokens"),
    (GOOD | {"max_tokens": 513}, "bad_request", "max_tokens 513"),
    (GOOD | {"max_tokens": 0}, "bad_request", "max_tokens"),
    (GOOD | {"max_tokens": "9"}, "bad_request", "max_tokens"),
    (GOOD | {"temperature": -1}, "bad_request", "temperature"),
    (GOOD | {"seed": 2**40}, "bad_request", "seed"),
    (GOOD | {"stop": [""]}, "bad_request", "stop.0"),
    (GOOD | {"mode": "loud"}, "bad_request", "mode"),
    (GOOD | {"prompt": 5}, "bad_request", "prompt"),
    (GOOD | {"prompt": "\ud800"}, "bad_request", "prompt"),
    (GOOD | {"nonsense": 1}, "bad_request", "no field nonsense"),
    (GOOD | {"messages": [{"role": "wizard", "content": "x"}]}, "bad_request", "messages.0.role"),
    (GOOD | {"placement": "soon"}, "bad_request", "zone:DE"),
    (GOOD | {"placement": "zone:"}, "unknown_zone", "not in the table"),
    (GOOD | {"placement": "zone:Atlantis"}, "unknown_zone", "Atlantis"),
    (GOOD | {"placement": "zone:FR"}, "bad_request", "There are nodes in DE."),
    (GOOD | {"placement": "node:"}, "bad_request", "name of a node"),
    (GOOD | {"placement": "node:nobody"}, "bad_request", "There is n1."),
    (GOOD | {"deadline": "tomorrow"}, "bad_request", "2026-11-23T10:00Z"),
    (GOOD | {"deadline": "2020-01-01"}, "bad_request", "deadline 2020-01-01 is over"),
    (GOOD | {"deadline": "2099-01-01", "priority": "interactive"}, "bad_request", "deferrable"),
    (GOOD | {"deadline": "2099-01-01", "placement": "fastest"}, "bad_request", "contradict"),
    (GOOD | {"priority": 1}, "bad_request", "priority"),
    (GOOD | {"priority": "control"}, "bad_request", "priority"),
    (GOOD | {"model": "big"}, "model_too_big", "n1, the largest node that has it, has 8.0 GB"),
    (GOOD | {"max_energy_j": 0}, "bad_request", "max_energy_j"),
    (GOOD | {"max_energy_j": "10"}, "bad_request", "max_energy_j"),
    (GOOD | {"max_energy_j": 5.0, "mode": "quiet"}, "not_supported", "a quiet prompt sends none"),
]


async def test_wrong_prompts(tmp_path: Path) -> None:
    """Each wrong prompt gets its own code, its status, and a sentence that names what is wrong; none is queued."""
    async with stage(tmp_path) as scene:
        await scene.join(unfit=(replace(MODEL, id="big", memory_bytes=9_000_000_000),))
        for body, code, part in WRONG:
            reply = await scene.http.post("/api/v1/prompts", content=json.dumps(body), headers=JSON)
            problem = reply.json()
            assert reply.headers["content-type"] == "application/problem+json"
            assert (problem["code"], problem["status"]) == (code, reply.status_code), body
            assert reply.status_code == REGISTRY[code].status
            assert part in problem["detail"], problem["detail"]
            assert problem["detail"].endswith(".")
        form = await scene.http.post("/api/v1/prompts", content=json.dumps(GOOD))
        assert "application/json" in form.json()["detail"]
        assert (await scene.http.get("/api/v1/prompts")).json() == {"prompts": [], "next_cursor": None}


async def test_no_node_and_away_node(tmp_path: Path) -> None:
    """Before any node has joined a prompt is refused; once one has, it is queued even while that node is away."""
    async with stage(tmp_path) as scene:
        assert (await scene.http.post("/api/v1/prompts", json=GOOD)).json()["code"] == "no_node"
        await scene.join()
    async with stage(tmp_path) as scene:
        asked = await scene.ask()
        assert asked["reason"] == "no node is connected: start one with `joulebox node`"
        await scene.join(node="n2", models=("other",))
        assert (await scene.status(asked["id"]))["reason"] == "waiting for n1: no connected node has m"
        assert [node["state"] for node in (await scene.http.get("/api/v1/nodes")).json()["nodes"]] == ["away", "idle"]


ROUTES: list[tuple[str, str, bytes | None, str]] = [
    ("GET", "/nothing", None, "not_found"),
    ("GET", "/api/v1/prompts/nothing", None, "not_found"),
    ("DELETE", "/api/v1/prompts/nothing", None, "not_found"),
    ("GET", "/api/v1/prompts/nothing/events", None, "not_found"),
    ("GET", "/api/v1/receipts/nothing", None, "not_found"),
    ("DELETE", "/api/v1/receipts/nothing", None, "not_found"),
    ("GET", "/api/v1/receipts/nothing/trace.csv", None, "not_found"),
    ("PUT", "/api/v1/prompts", None, "method_not_allowed"),
    ("GET", "/api/v1/prompts?limit=0", None, "bad_request"),
    ("GET", "/api/v1/prompts?cursor=x", None, "bad_request"),
    ("GET", "/api/v1/prompts?cursor=99999999999999999999", None, "bad_request"),
    ("GET", f"/api/v1/prompts?cursor={'9' * 5000}", None, "bad_request"),
    ("GET", "/api/v1/prompts/%00%ff", None, "bad_request"),
    ("GET", "/api/v1/prompts/%ff", None, "not_found"),
    ("GET", "/api/v1/receipts/..%2f..%2fetc", None, "not_found"),
    ("POST", "/api/v1/prompts", b"{", "bad_request"),
    ("POST", "/api/v1/prompts", b"[]", "bad_request"),
    ("POST", "/api/v1/prompts", b"\xff\xfe", "bad_request"),
    ("POST", "/api/v1/prompts", b"[" * 100_000, "bad_request"),
    ("POST", "/api/v1/prompts", b" " * (1024 * 1024 + 1), "body_too_large"),
    ("POST", "/node/v1/lease", b"{", "bad_request"),
    ("POST", "/node/v1/lease", b'{"version": 1}', "bad_request"),
    ("POST", "/node/v1/lease", b'{"version": 2, "later": true}', "protocol_version"),
    ("GET", "/node/v1/attempts/none/hold", None, "stale_attempt"),
    ("POST", "/node/v1/attempts/none/events", b'{"events": []}', "stale_attempt"),
    ("POST", "/node/v1/attempts/none/finish", b'{"outcome": "cancelled"}', "stale_attempt"),
    ("POST", "/node/v1/attempts/none/finish", b'{"outcome": "great"}', "bad_request"),
]


async def test_wrong_requests(tmp_path: Path) -> None:
    """Every route answers a wrong request with a problem document and the headers that all responses carry."""
    async with stage(tmp_path) as scene:
        for method, path, content, code in ROUTES:
            reply = await scene.http.request(method, path, content=content, headers=JSON)
            problem = reply.json()
            assert (problem["code"], reply.status_code) == (code, REGISTRY[code].status), path
            assert set(problem) >= {"type", "title", "status", "detail", "code"}
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["content-security-policy"].startswith("default-src 'self'")


async def test_a_chunked_body_is_bounded_too(tmp_path: Path) -> None:
    """A body without a declared length is refused once it is too large."""

    async def endless() -> Any:
        for _ in range(2 * 1024):
            yield b" " * 1024

    async with stage(tmp_path) as scene:
        reply = await scene.http.post("/api/v1/prompts", content=endless())
        assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


async def test_hanging_up_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes away while it sends is no failure of the server."""
    async with stage(tmp_path) as scene:
        host, port = scene.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /node/v1/lease HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.1)
        assert (await scene.http.get("/healthz")).status_code == 200
    assert "unexpected failure" not in caplog.text


async def test_a_place_in_the_stream_that_is_none(tmp_path: Path) -> None:
    """A `Last-Event-ID` that no server gave, however long, begins at the beginning."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        lease = await scene.lease()
        await scene.finish(lease, done(lease, "x"))
        for place in ("9" * 5000 + ".1", "1." + "9" * 5000, "-1.0", "1.x"):
            assert [event.name for event in await scene.all_events(prompt_id, place)] == ["token", "answer", "receipt"]


async def test_the_description_names_problems(tmp_path: Path) -> None:
    """`/openapi.json` says for every route in what form it tells a failure."""
    async with stage(tmp_path) as scene:
        for path, methods in (await scene.http.get("/openapi.json")).json()["paths"].items():
            for method in methods.values():
                kind = "application/problem+json" if form_of(path) is None else "application/json"
                assert list(method["responses"]["default"]["content"]) == [kind], path


async def test_wrong_nodes(tmp_path: Path) -> None:
    """A node in an unknown zone is turned away; events that make no sense are refused and change nothing."""
    async with stage(tmp_path) as scene:
        reply = await scene.http.post("/node/v1/lease", content=to_json(offer(zone="XX")))
        assert reply.json()["code"] == "unknown_zone"
        for change in ({"wait_s": float("nan")}, {"temperature_c": float("inf")}, {"memory_bytes": 10**30}):
            reply = await scene.http.post("/node/v1/lease", content=to_json(offer(**change)))
            assert (reply.status_code, reply.json()["code"]) == (422, "bad_request"), change
        reply = await scene.http.post("/node/v1/lease", content=to_json(offer(node="x" * 65)))
        assert reply.json()["code"] == "bad_request"
        assert (await scene.http.get("/api/v1/nodes")).json() == {"nodes": []}
        await scene.join()
        await scene.ask()
        lease = await scene.lease()
        textless = NodeEvent(seq=0, kind="token", data={"n": 1})
        assert (await scene.send(lease, [textless])).json()["code"] == "bad_request"
        assert (await scene.send(lease, story("x")[1:])).json()["next_seq"] == 0
        assert (await scene.send(lease, story("x"))).json()["next_seq"] == 5


async def test_one_key_one_prompt(tmp_path: Path) -> None:
    """The same idempotency key gives the earlier prompt, even when its model has gone meanwhile."""
    async with stage(tmp_path) as scene:
        await scene.join()
        first = await scene.ask(idempotency_key="k")
        await scene.join(models=("other",))
        assert (await scene.ask(idempotency_key="k"))["id"] == first["id"]
        assert (await scene.http.post("/api/v1/prompts", json=GOOD)).json()["code"] == "unknown_model"


async def test_lists_page(tmp_path: Path) -> None:
    """Prompts are listed newest first, page by page, each once; positions count those before."""
    async with stage(tmp_path) as scene:
        await scene.join()
        asked = [(await scene.ask(str(number)))["id"] for number in range(5)]
        listed: list[tuple[str, int]] = []
        cursor: str | None = None
        for _ in range(3):
            query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
            page = (await scene.http.get("/api/v1/prompts", params=query)).json()
            listed += [(entry["id"], entry["position"]) for entry in page["prompts"]]
            cursor = page["next_cursor"]
        assert cursor is None
        assert listed == [(prompt_id, position) for position, prompt_id in reversed(list(enumerate(asked)))]


async def test_placement_on_a_node(tmp_path: Path) -> None:
    """A prompt placed on a node waits for that node, while others overtake it elsewhere."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await scene.join(node="n2", instance="b")
        placed = (await scene.ask(placement="node:n2"))["id"]
        free = await scene.ask()
        assert free["position"] == 1
        assert (await scene.lease())["job_id"] == free["id"]
        lease = await scene.lease(node="n2", instance="b")
        assert lease["job_id"] == placed
        await scene.finish(lease, done(lease, "x", node="n2"))
        receipt = (await scene.all_events(placed))[-1].data
        assert receipt["placement"]["policy"] == "node:n2"
        assert receipt["placement"]["reason"] == "the prompt asked for this node"


async def test_placement_in_a_zone(tmp_path: Path) -> None:
    """A prompt placed in a zone waits for a node there, its spelling put right, and says so in status and receipt."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await scene.join(node="n2", instance="b", zone="FR")
        placed = await scene.ask(placement="zone:fr")
        assert (await scene.http.post("/node/v1/lease", content=to_json(offer(wait_s=0.0)))).status_code == 204
        lease = await scene.lease(node="n2", instance="b", zone="FR")
        assert lease["job_id"] == placed["id"]
        await scene.finish(lease, done(lease, "x", node="n2"))
        receipt = (await scene.all_events(placed["id"]))[-1].data
        assert receipt["placement"] == {
            "policy": "zone:FR",
            "reason": "the only node that may take it",
            "saved_g": None,
        }


async def test_priorities(tmp_path: Path) -> None:
    """A more urgent class is taken first, and the place in the line counts it."""
    async with stage(tmp_path) as scene:
        await scene.join()
        later = await scene.ask(priority="deferrable")
        sooner = await scene.ask(priority="benchmark")
        now = await scene.ask()
        assert [one["priority"] for one in (later, sooner, now)] == ["deferrable", "benchmark", "interactive"]
        assert [(await scene.status(one["id"]))["position"] for one in (later, sooner, now)] == [2, 1, 0]
        assert (await scene.lease())["job_id"] == now["id"]


async def test_models_are_merged_from_nodes(tmp_path: Path) -> None:
    """Each model is listed once with all its nodes and what the catalog knows; a node says what it is and has."""
    async with stage(tmp_path) as scene:
        await scene.join(models=("m", "k"), temperature_c=41.5, loaded="m", missing=("gpu0",))
        await scene.join(node="n2", instance="b", engine=EngineInfo(name="e", version="2"))
        models = (await scene.http.get("/api/v1/models")).json()["models"]
        assert [(model["id"], model["nodes"]) for model in models] == [("k", ["n1"]), ("m", ["n1", "n2"])]
        assert models[0]["context_tokens"] == 512
        assert (models[0]["family"], models[0]["parameters"], models[0]["licence"]) == (None, None, None)
        await scene.join(node="n3", instance="c", models=("tinyllama",))
        tiny = (await scene.http.get("/api/v1/models")).json()["models"][-1]
        assert (tiny["family"], tiny["parameters"], tiny["licence"]) == ("TinyLlama", "1.1B", "Apache-2.0")
        node = (await scene.http.get("/api/v1/nodes")).json()["nodes"][0]
        assert (node["name"], node["state"], node["temperature_c"], node["loaded"]) == ("n1", "idle", 41.5, "m")
        assert (node["meters"][0]["name"], node["missing"]) == ("package-0", ["gpu0"])
        await scene.ask()
        lease = await scene.lease()
        async with scene.hold(lease):
            node = (await scene.http.get("/api/v1/nodes")).json()["nodes"][0]
            assert node["state"] == "busy"


async def test_expected_start_comes_from_what_prompts_took(tmp_path: Path) -> None:
    """With nothing known there is no expected start behind others; after one completed prompt there is."""
    async with stage(tmp_path) as scene:
        await scene.join()
        await scene.ask()
        assert (await scene.ask())["expected_start"] is None
        lease = await scene.lease()
        await scene.finish(lease, done(lease, "x"))
        assert (await scene.ask())["expected_start"] is not None


async def test_large_json_is_compressed_and_streams_are_not(tmp_path: Path) -> None:
    """A long list comes gzipped; events come as they are, so that nothing holds them back."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        for _ in range(9):
            await scene.ask()
        listed = await scene.http.get("/api/v1/prompts")
        assert listed.headers["content-encoding"] == "gzip"
        await scene.http.delete(f"/api/v1/prompts/{prompt_id}")
        events = await scene.http.get(f"/api/v1/prompts/{prompt_id}/events")
        assert "content-encoding" not in events.headers
        assert events.headers["content-type"].startswith("text/event-stream")


async def test_receipt_asked_by_the_prompts_id(tmp_path: Path) -> None:
    """Whoever mistakes a prompt's id for a receipt's is told so, before and after the receipt is there."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt_id = (await scene.ask())["id"]
        assert (await scene.http.get(f"/api/v1/receipts/{prompt_id}")).json()["code"] == "not_ready"
        lease = await scene.lease()
        receipt_id = (await scene.finish(lease, done(lease, "x"))).json()["receipt_id"]
        late = (await scene.http.get(f"/api/v1/receipts/{prompt_id}")).json()
        assert (late["code"], late["receipt_id"]) == ("not_found", receipt_id)


async def test_health(tmp_path: Path) -> None:
    """The process says that it lives, the database that it answers, and the API describes itself without a CDN."""
    async with stage(tmp_path) as scene:
        assert (await scene.http.get("/healthz")).json() == {"status": "ok"}
        assert (await scene.http.get("/readyz")).json() == {"status": "ready"}
        paths = (await scene.http.get("/openapi.json")).json()["paths"]
        assert {"/api/v1/prompts", "/api/v1/receipts/{receipt_id}", "/node/v1/lease"} <= set(paths)
        assert [(await scene.http.get(path)).status_code for path in ("/docs", "/redoc")] == [404, 404]
