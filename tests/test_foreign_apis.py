"""OpenAI's and Ollama's words over real HTTP: answers with their energy, streams, late receipts, hanging up, failures.

A node answers from a script; `test_foreign_clients` has the real clients and the real model.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from answering import answering
from joulebox.server import following
from joulebox.server.foreign.asking import TOKENS_MAX
from joulebox.server.foreign.ollama import Generated, OllamaChat
from joulebox.server.foreign.openai_forms import ChatCompletion, Completion, ModelList
from joulebox.server.foreign.responses import ResponseObject
from server_stage import WAIT_S, Json, Stage, done, stage, story

pytestmark = pytest.mark.anyio
CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
WORDS = ("Hel", "lo")
BUDGET = {"max_energy_j": 50.0}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def post(scene: Stage, path: str, body: Json, **headers: str) -> httpx2.Response:
    """One request; its answer, which must be one."""
    reply = await scene.http.post(path, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def chunks(text: str) -> list[Json]:
    """The data of a stream of server-sent events, but for its end."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def until_gone(scene: Stage, prompt_id: str) -> None:
    """Wait until a prompt is cancelled."""
    await scene.until(prompt_id, "cancelled")


async def newest(scene: Stage) -> Json:
    """The prompt that was asked last."""
    async with asyncio.timeout(WAIT_S):
        while not (found := (await scene.http.get("/api/v1/prompts?limit=1")).json()["prompts"]):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    newest: Json = found[0]
    return newest


# --- OpenAI -----------------------------------------------------------------------------------------------------------


async def test_a_chat_has_its_energy(tmp_path: Path) -> None:
    """A chat completion has OpenAI's form; `energy`, `joulebox` and the headers say what its receipt says."""
    async with stage(tmp_path) as scene, answering(scene, *WORDS):
        reply = await post(scene, "/v1/chat/completions", CHAT)
        told = reply.json()
        ChatCompletion.model_validate(told)
        assert (told["choices"][0]["message"]["content"], told["choices"][0]["finish_reason"]) == ("Hello", "stop")
        assert (told["usage"]["prompt_tokens"], told["usage"]["completion_tokens"]) == (27, 9)
        assert told["usage"]["energy_joules"] == told["energy"]["energy_joules"]
        receipt = (await scene.http.get(told["joulebox"]["receipt_url"])).json()
        assert {name: told["joulebox"][name] for name in receipt} == receipt
        energy, figure = told["energy"], receipt["energy"]["answer"]
        assert (energy["energy_joules"], energy["energy_kwh"]) == (figure["j"], figure["j"] / 3.6e6)
        assert energy["carbon_g_co2eq"] == receipt["carbon"]["total"]["g"]
        assert (energy["attribution_method"], energy["attribution_ratio"]) == ("exclusive, measured", 1.0)
        assert float(reply.headers["x-joulebox-joules"]) == figure["j"]
        assert (reply.headers["x-joulebox-receipt-id"], reply.headers["x-joulebox-grade"]) == (
            receipt["id"],
            figure["grade"],
        )
        asked = (await newest(scene))["id"]
        assert (told["id"], receipt["prompt_id"]) == (f"chatcmpl-{asked}", asked)


async def test_what_is_asked_reaches_the_node(tmp_path: Path) -> None:
    """Turns with parts, roles, limits, stops and seeds arrive as ours; a temperature without a seed gets one."""
    async with stage(tmp_path) as scene:
        await scene.join()
        turns = [
            {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
            {"role": "user", "content": "hi"},
        ]
        body = CHAT | {"messages": turns, "max_completion_tokens": 7, "seed": 2**40 + 3, "stop": ".", "user": "me"}
        body |= {"joulebox": {"mode": "quiet", "placement": "node:n1", "priority": "benchmark"}}
        asking = asyncio.create_task(scene.http.post("/v1/chat/completions", json=body))
        lease = await scene.lease()
        prompt = lease["prompt"]
        assert [turn["role"] for turn in prompt["messages"]] == ["system", "user"]
        assert prompt["messages"][0]["content"] == "be brief"
        assert (prompt["max_tokens"], prompt["seed"], prompt["stop"]) == (7, 3, ["."])
        assert (prompt["mode"], prompt["temperature"]) == ("quiet", 0.0)
        await scene.finish(lease, done(lease, "x"))
        assert (await asking).json()["choices"][0]["message"]["content"] == "x"
        warm = asyncio.create_task(
            scene.http.post("/v1/chat/completions", json=CHAT | {"temperature": 1, "joulebox": BUDGET})
        )
        lease = await scene.lease()
        assert lease["prompt"]["seed"] != 0
        assert lease["prompt"]["max_energy_j"] == 50.0
        assert lease["prompt"]["max_tokens"] == min(TOKENS_MAX, 512)
        await scene.finish(lease, done(lease, "x"))
        assert (await warm).status_code == 200


SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}}
SHAPES: list[tuple[str, Json, Json | None]] = [
    ("/v1/chat/completions", CHAT | {"response_format": {"type": "text"}}, None),
    ("/v1/chat/completions", CHAT | {"response_format": {"type": "json_object"}}, {"type": "object"}),
    (
        "/v1/chat/completions",
        CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        SCHEMA,
    ),
    ("/v1/responses", {"model": "m", "input": "x", "text": {}}, None),
    (
        "/v1/responses",
        {"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}},
        SCHEMA,
    ),
    ("/api/chat", CHAT | {"stream": False, "format": "json"}, {"type": "object"}),
    ("/api/generate", {"model": "m", "prompt": "x", "stream": False, "format": SCHEMA}, SCHEMA),
]


@pytest.mark.parametrize(("path", "body", "schema"), SHAPES)
async def test_a_schema_reaches_the_node(tmp_path: Path, path: str, body: Json, schema: Json | None) -> None:
    """In whatever words an answer is asked to be JSON, the node is leased the same."""
    async with stage(tmp_path) as scene:
        await scene.join()
        asking = asyncio.create_task(scene.http.post(path, json=body))
        lease = await scene.lease()
        packed = lease["prompt"]["json_schema"]
        assert (json.loads(packed) if packed is not None else None) == schema
        await scene.finish(lease, done(lease, "{}"))
        assert (await asking).status_code == 200


async def test_a_stream_ends_with_its_energy(tmp_path: Path) -> None:
    """Pieces and the end come first, then a chunk with energy and receipt, the comment that other tools read, `[DONE]`;
    tokens are told to who asked for them."""
    async with stage(tmp_path) as scene, answering(scene, *WORDS):
        reply = await post(scene, "/v1/chat/completions", CHAT | {"stream": True})
        assert reply.headers["content-type"].startswith("text/event-stream")
        told = chunks(reply.text)
        assert [one["choices"][0]["delta"].get("content") for one in told] == ["Hel", "lo", None, None]
        assert told[0]["choices"][0]["delta"]["role"] == "assistant"
        assert [one["choices"][0]["finish_reason"] for one in told] == [None, None, "stop", None]
        assert told[-1]["energy"]["energy_joules"] == told[-1]["joulebox"]["energy"]["answer"]["j"]
        assert all(one["id"] == f"chatcmpl-{reply.headers['x-joulebox-prompt-id']}" for one in told)
        comment = next(line for line in reply.text.splitlines() if line.startswith(": energy "))
        assert json.loads(comment.removeprefix(": energy ")) == told[-1]["energy"]
        assert reply.text.endswith(f"{comment}\n\ndata: [DONE]\n\n")
        body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
        *others, last = chunks((await post(scene, "/v1/chat/completions", body)).text)
        assert {one["usage"] for one in others} == {None}
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 36)
        assert last["energy"]["energy_joules"] == last["usage"]["energy_joules"] > 0
        handed_on = last["provider_specific_fields"]
        assert handed_on["energy"] == last["energy"]
        assert handed_on["joulebox"].items() <= last["joulebox"].items()
        assert handed_on["joulebox"]["receipt_url"]


async def test_completions(tmp_path: Path) -> None:
    """The older way to ask answers in its own form, whole and in pieces."""
    async with stage(tmp_path) as scene, answering(scene, *WORDS):
        body = {"model": "m", "prompt": ["hi"]}
        told = (await post(scene, "/v1/completions", body)).json()
        Completion.model_validate(told)
        assert (told["object"], told["choices"][0]["text"]) == ("text_completion", "Hello")
        streamed = chunks((await post(scene, "/v1/completions", body | {"stream": True})).text)
        assert "".join(one["choices"][0]["text"] for one in streamed) == "Hello"


async def test_responses(tmp_path: Path) -> None:
    """A response holds one message, numbered events tell it in order, and a later one goes on from it."""
    async with stage(tmp_path) as scene, answering(scene, *WORDS):
        first = (await post(scene, "/v1/responses", {"model": "m", "input": "hi", "instructions": "be brief"})).json()
        ResponseObject.model_validate(first)
        assert first["output"][0]["content"][0]["text"] == "Hello"
        assert (first["status"], first["usage"]["total_tokens"]) == ("completed", 36)
        assert first["energy"]["energy_joules"] > 0
        said = [{"role": "user", "content": [{"type": "input_text", "text": "and?"}]}]
        body = {"model": "m", "input": said, "previous_response_id": first["id"], "stream": True}
        told = chunks((await post(scene, "/v1/responses", body)).text)
        assert [one["sequence_number"] for one in told] == list(range(len(told)))
        kinds = [one["type"].removeprefix("response.") for one in told]
        assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
        assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
        last = told[-1]["response"]
        assert "".join(one["delta"] for one in told if one["type"].endswith("delta")) == "Hello"
        assert last["energy"] == json.loads(json.dumps(last["energy"]))
        record = await scene.store.record(last["joulebox"]["prompt_id"])
        assert record is not None
        assert [turn.content for turn in record.job.prompt.messages] == ["be brief", "hi", "Hello", "and?"]


async def test_models(tmp_path: Path) -> None:
    """Each model is listed with the files behind its name; one of a name with a slash can be looked at."""
    async with stage(tmp_path) as scene:
        await scene.join(models=("m", "org/k"))
        listed = (await scene.http.get("/v1/models")).json()
        ModelList.model_validate(listed)
        assert [one["id"] for one in listed["data"]] == ["m", "org/k"]
        assert listed["data"][0]["joulebox"]["files"][0]["quantization"] == "Q4_1"
        for path in ("/v1/models/org/k", "/v1/models/org%2Fk"):
            assert (await scene.http.get(path)).json() == listed["data"][1]
        missing = await scene.http.get("/v1/models/nope")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


# --- late receipts, lost nodes, hanging up ----------------------------------------------------------------------------


async def test_a_late_receipt_is_fetched(tmp_path: Path) -> None:
    """Where the receipt is not there in time, energy is null, and its address has it as soon as it is made."""
    async with stage(tmp_path) as scene:
        await scene.join()
        body = CHAT | {"joulebox": {"receipt_wait_s": 0.01}}
        asking = [
            asyncio.create_task(scene.http.post("/v1/chat/completions", json=body | {"stream": stream}))
            for stream in (False, True)
        ]
        for _ in asking:
            lease = await scene.lease()
            async with scene.hold(lease):
                await scene.send(lease, story(*WORDS))
                status = (await scene.http.get(f"/api/v1/prompts/{lease['job_id']}")).json()
                assert status["phase"] == "measuring"
                url = f"{scene.url}/api/v1/prompts/{lease['job_id']}/receipt"
                await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                assert (await scene.http.get(url)).json()["code"] == "not_ready"
                reply = next(task for task in asking if task.done()).result()
                asking = [task for task in asking if not task.done()]
                streamed = reply.headers["content-type"].startswith("text/event-stream")
                told = chunks(reply.text)[-1] if streamed else reply.json()
                assert (told["energy"], told["joulebox"]["id"]) == (None, None)
                assert told["joulebox"]["receipt_url"] == url
                assert "0.01 s" in told["joulebox"]["detail"]
                await scene.finish(lease, done(lease, *WORDS))
            assert (await scene.http.get(url)).json()["prompt_id"] == lease["job_id"]


async def second_attempt(scene: Stage, *words: str) -> None:
    """Another attempt at what a node was lost at."""
    lease = await scene.lease()
    assert lease["attempt"] == 2
    async with scene.hold(lease):
        await scene.send(lease, story(*words))
        await scene.finish(lease, done(lease, *words))


@pytest.mark.parametrize("words", [("Hel", "lo"), ("Bye",), ("He",)])
async def test_a_stream_goes_on_after_a_lost_node(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A stream takes up where it was cut when the next attempt says the same, and breaks off when it does not."""
    async with stage(tmp_path) as scene:
        await scene.join()
        async with scene.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply:
            lease = await scene.lease()
            lines = reply.aiter_lines()
            async with scene.hold(lease):
                await scene.send(lease, story("Hell")[:3])
                first = await anext(lines)
            await second_attempt(scene, *words)
            text = "\n".join([first, *[line async for line in lines]])
        told = chunks(text)
        if words == ("Hel", "lo"):
            assert [one["choices"][0]["delta"].get("content") for one in told] == ["Hell", "o", None, None]
            assert told[-1]["energy"]["energy_joules"] > 0
        else:
            assert [one["error"]["code"] for one in told[1:]] == ["energy_interrupted"]
            assert "[DONE]" not in text


async def test_who_waits_for_all_of_it_gets_the_later_attempt(tmp_path: Path) -> None:
    """An answer that was not streamed is that of the attempt which was completed."""
    async with stage(tmp_path) as scene:
        await scene.join()
        asking = asyncio.create_task(scene.http.post("/v1/chat/completions", json=CHAT))
        lease = await scene.lease()
        async with scene.hold(lease):
            await scene.send(lease, story("Hell")[:3])
        await second_attempt(scene, "Bye")
        assert (await asking).json()["choices"][0]["message"]["content"] == "Bye"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
@pytest.mark.parametrize("streams", [True, False])
async def test_hanging_up_stops_the_prompt(tmp_path: Path, path: str, streams: bool) -> None:
    """Who hangs up before the answer is complete stops a live prompt, in the line and on the node."""
    async with stage(tmp_path) as scene:
        await scene.join()
        for runs in (False, True):
            asking = asyncio.create_task(scene.http.post(path, json=CHAT | {"stream": streams}))
            if runs:
                lease = await scene.lease()
                async with scene.hold(lease) as words:
                    await scene.send(lease, story("Hel")[:3])
                    asking.cancel()
                    assert await anext(words) == "cancel"
            else:
                prompt_id = (await newest(scene))["id"]
                asking.cancel()
                await until_gone(scene, prompt_id)


async def test_hanging_up_spares_what_is_wanted_later(tmp_path: Path) -> None:
    """A quiet prompt, one with a key, and one whose answer is complete go on when nobody listens; with the key the
    answer is heard later."""
    async with stage(tmp_path) as scene:
        await scene.join()
        body, prompt_id = CHAT, ""
        for terms in ({"mode": "quiet"}, {"idempotency_key": "again"}):
            body = CHAT | {"stream": True, "joulebox": terms}
            async with scene.http.stream("POST", "/v1/chat/completions", json=body) as reply:
                prompt_id = reply.headers["x-joulebox-prompt-id"]
            await asyncio.sleep(0.05)
            lease = await scene.lease()
            assert lease["job_id"] == prompt_id
            await scene.finish(lease, done(lease, *WORDS))
        assert chunks((await post(scene, "/v1/chat/completions", body)).text)[0]["id"] == f"chatcmpl-{prompt_id}"
        async with scene.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply:
            lease = await scene.lease()
            async with scene.hold(lease):
                await scene.send(lease, story(*WORDS))
                async for line in reply.aiter_lines():
                    if '"finish_reason":"stop"' in line:
                        break
                await reply.aclose()
                await asyncio.sleep(0.05)
                assert (await scene.finish(lease, done(lease, *WORDS))).json()["receipt_id"] is not None


async def test_who_waits_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a prompt waits a stream says so from time to time, in a form that clients skip; a quiet one that runs is
    left alone."""
    monkeypatch.setattr(following, "KEEP_ALIVE_S", 0.02)
    async with stage(tmp_path) as scene:
        await scene.join()
        for path, quiet in (("/v1/chat/completions", False), ("/api/chat", False), ("/v1/chat/completions", True)):
            body = CHAT | {"stream": True, "joulebox": {"mode": "quiet" if quiet else "live"}}
            async with scene.http.stream("POST", path, json=body) as reply:
                lines = reply.aiter_lines()
                first = await anext(lines)
                assert first == ": waiting" if path.startswith("/v1") else json.loads(first)["message"]["content"] == ""
                lease = await scene.lease()
                if quiet:
                    async with scene.hold(lease):
                        await asyncio.sleep(0.2)
                        await scene.finish(lease, done(lease, *WORDS))
                    rest = [line async for line in lines if line]
                    assert rest.count(": waiting") < 5
                else:
                    await scene.finish(lease, done(lease, *WORDS))


# --- Ollama -----------------------------------------------------------------------------------------------------------


async def test_ollama_answers(tmp_path: Path) -> None:
    """Chat and generate stream lines unless told not to; the last has times in ns, tokens, energy and receipt; what
    curl calls a form is read as JSON."""
    async with stage(tmp_path) as scene, answering(scene, *WORDS):
        lines = [json.loads(line) for line in (await post(scene, "/api/chat", CHAT)).text.splitlines()]
        assert [line["message"]["content"] for line in lines] == ["Hel", "lo", ""]
        assert [line["done"] for line in lines] == [False, False, True]
        whole = (await post(scene, "/api/chat", CHAT | {"stream": False, "model": "m:latest"})).json()
        OllamaChat.model_validate(whole)
        assert (whole["message"]["content"], whole["model"]) == ("Hello", "m")
        assert whole["total_duration"] >= whole["prompt_eval_duration"] + whole["eval_duration"] > 0
        assert (whole["prompt_eval_count"], whole["eval_count"], whole["done_reason"]) == (27, 9, "stop")
        assert whole["energy"]["energy_joules"] == whole["joulebox"]["energy"]["answer"]["j"]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        body = json.dumps(
            {"model": "m", "prompt": "hi", "stream": False, "keep_alive": "5m", "options": {"num_ctx": 1}}
        )
        told = (await scene.http.post("/api/generate", content=body, headers=form)).json()
        Generated.model_validate(told)
        assert told["response"] == "Hello"
        loaded = json.loads((await post(scene, "/api/generate", {"model": "m"})).text)
        assert loaded["done_reason"] == "load"
        assert not loaded.keys() & {"eval_count", "eval_duration", "prompt_eval_duration"}  # never null


async def test_ollama_lists(tmp_path: Path) -> None:
    """Tags, show, ps and version say what is known of models, truthfully; the root answers who looks whether it is
    there."""
    async with stage(tmp_path) as scene:
        await scene.join(loaded="m")
        (tag,) = (await scene.http.get("/api/tags")).json()["models"]
        assert (tag["name"], tag["size"], tag["digest"]) == ("m", 1, "0")
        assert tag["details"]["quantization_level"] == "Q4_1"
        shown = (await scene.http.post("/api/show", json={"name": "m:latest"})).json()
        assert shown["model_info"]["joulebox.context_length"] == 512
        (loaded,) = (await scene.http.get("/api/ps")).json()["models"]
        assert loaded["model"] == "m"
        assert (await scene.http.get("/api/version")).json()["version"]
        assert (await scene.http.head("/")).status_code == 200


# --- failures ---------------------------------------------------------------------------------------------------------

TOOL: Json = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
LONG: Json = {"type": "function", "function": {"name": "add", "description": "x" * 20_000}}
NAMED: Json = {"type": "function", "function": {"name": "multiply"}}
JSON: Json = {"type": "json_object"}
OPENAI: list[tuple[str, Json | None, int, str, str]] = [
    ("/v1/chat/completions", CHAT | {"model": "nope"}, 404, "model_not_found", "There is m."),
    ("/v1/chat/completions", {"model": "m"}, 400, "bad_request", "messages is missing"),
    ("/v1/chat/completions", CHAT | {"messages": []}, 400, "empty_prompt", "write something"),
    ("/v1/chat/completions", CHAT | {"max_tokens": 999}, 400, "bad_request", "max_tokens 999"),
    ("/v1/chat/completions", CHAT | {"max_tokens": 0}, 400, "bad_request", "max_tokens"),
    ("/v1/chat/completions", CHAT | {"n": 2}, 400, "not_supported", "n is not supported here: leave it out, or give 1"),
    ("/v1/chat/completions", CHAT | {"functions": [{"name": "f"}]}, 400, "not_supported", "functions"),
    (
        "/v1/chat/completions",
        CHAT | {"tools": [{"type": "web_search"}]},
        400,
        "not_supported",
        "tools.0 is of the type",
    ),
    ("/v1/chat/completions", CHAT | {"tools": [TOOL]}, 400, "not_supported", "No node that has m takes tools"),
    ("/v1/chat/completions", CHAT | {"tools": [TOOL, TOOL]}, 400, "bad_request", "Function add is there twice"),
    ("/v1/chat/completions", CHAT | {"tools": [{"type": "function"}]}, 400, "bad_request", "tools.0.function"),
    ("/v1/chat/completions", CHAT | {"tools": [LONG]}, 400, "bad_request", "longer than 20000 characters"),
    (
        "/v1/chat/completions",
        CHAT | {"tool_choice": "required"},
        400,
        "bad_request",
        "tool_choice required needs tools",
    ),
    ("/v1/chat/completions", CHAT | {"tools": [TOOL], "tool_choice": NAMED}, 400, "bad_request", "not among the tools"),
    ("/v1/chat/completions", CHAT | {"tools": [TOOL], "response_format": JSON}, 400, "bad_request", "one of the two"),
    ("/v1/chat/completions", CHAT | {"response_format": {"type": "json_schema"}}, 400, "bad_request", "response_for"),
    ("/v1/chat/completions", CHAT | {"temperature": 1, "top_p": 1.5}, 400, "bad_request", "top_p"),
    ("/v1/chat/completions", CHAT | {"logprobs": True}, 400, "not_supported", "logprobs"),
    (
        "/v1/chat/completions",
        CHAT | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        400,
        "not_supported",
        "messages.0 has a part of type image_url",
    ),
    (
        "/v1/chat/completions",
        CHAT | {"messages": [{"role": "tool", "content": "x"}]},
        400,
        "bad_request",
        "tool_call_id",
    ),
    (
        "/v1/chat/completions",
        CHAT | {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
        400,
        "bad_request",
        "messages.0 answers the call 1, which no turn before it made",
    ),
    ("/v1/chat/completions", CHAT | {"joulebox": {"mode": "loud"}}, 400, "bad_request", "joulebox.mode"),
    ("/v1/chat/completions", CHAT | {"joulebox": {"speed": 1}}, 400, "bad_request", "joulebox.speed"),
    (
        "/v1/chat/completions",
        CHAT | {"joulebox": {"placement": "zone:FR"}},
        400,
        "bad_request",
        "There are nodes in DE",
    ),
    ("/v1/chat/completions", None, 400, "bad_request", "JSON object"),
    ("/v1/completions", {"model": "m", "prompt": ["a", "b"]}, 400, "not_supported", "one text"),
    ("/v1/completions", {"model": "m", "prompt": [1, 2]}, 400, "not_supported", "one text"),
    ("/v1/responses", {"model": "m", "input": [{"type": "reasoning"}]}, 400, "not_supported", "input.0"),
    ("/v1/responses", {"model": "m", "input": "x", "previous_response_id": "resp_x"}, 404, "not_found", "no prompt x"),
    ("/v1/embeddings", {"model": "m", "input": "x"}, 400, "not_supported", "no embeddings"),
    ("/v1/nothing", {}, 404, "not_found", "/v1/nothing"),
]
OLLAMA: list[tuple[str, Json, int, str]] = [
    ("/api/chat", CHAT | {"model": "nope"}, 404, "There is m."),
    ("/api/chat", CHAT | {"format": "yaml"}, 400, "format"),
    ("/api/chat", CHAT | {"options": {"temperature": 1, "top_k": 3}}, 400, "options.top_k"),
    (
        "/api/chat",
        CHAT | {"messages": [{"role": "user", "content": "x", "images": ["eA=="]}]},
        400,
        "messages.0.images",
    ),
    ("/api/generate", {"model": "m", "prompt": "x", "raw": True}, 400, "raw"),
    ("/api/generate", {"prompt": "x"}, 400, "model is missing"),
    ("/api/show", {"model": "nope"}, 404, "nope"),
    ("/api/show", {}, 400, "model is missing"),
    ("/api/pull", {"model": "m"}, 400, "joulebox models"),
    ("/api/embed", {"model": "m"}, 400, "no embeddings"),
    ("/api/nothing", {}, 404, "/api/nothing"),
]


async def test_failures_in_their_words(tmp_path: Path) -> None:
    """What cannot be is refused in the form of the API that was used, with one sentence; nothing is queued."""
    async with stage(tmp_path) as scene:
        await scene.join()
        for path, body, status, code, part in OPENAI:
            reply = await scene.http.post(path, **({"json": body} if body is not None else {"content": b"{"}))
            error = reply.json()["error"]
            assert (reply.status_code, error["code"]) == (status, code), (path, body, error)
            assert part in error["message"], error["message"]
            assert error["type"] == "invalid_request_error"
            assert reply.headers["x-should-retry"] == "false"
        for path, sent, status, part in OLLAMA:
            reply = await scene.http.post(path, json=sent)
            assert (reply.status_code, part in reply.json()["error"]) == (status, True), (path, reply.text)
        large = await scene.http.post("/v1/chat/completions", content=b" " * (1024 * 1024 + 1))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
        wrong = await scene.http.get("/v1/chat/completions")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        assert (await scene.http.get("/api/v1/prompts")).json()["prompts"] == []


@pytest.mark.usefixtures("one_minute")
async def test_keys_and_limits_in_their_words(tmp_path: Path) -> None:
    """Without a key 401, beyond the limits 429 with `Retry-After`, which clients heed; a key as theirs opens."""
    async with stage(tmp_path, public=(), asks_per_minute=1) as scene:
        local = (tmp_path / "local.token").read_text().strip()
        made = await scene.http.post(
            "/api/v1/tokens", json={"name": "a", "scopes": ["ask"]}, headers={"Authorization": f"Bearer {local}"}
        )
        for path in ("/v1/models", "/api/tags"):
            refused = await scene.http.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
        assert (await scene.http.get("/v1/models")).json()["error"]["code"] == "invalid_api_key"
        scene.http.headers["Authorization"] = f"Bearer {made.json()['token']}"
        async with answering(scene, "x", Authorization=f"Bearer {local}"):
            assert (await scene.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
            second = await scene.http.post("/v1/chat/completions", json=CHAT)
        assert (second.status_code, second.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(second.headers["retry-after"]) <= 60
        assert second.headers["x-should-retry"] == "true"


async def test_failed_prompts_in_their_words(tmp_path: Path) -> None:
    """A prompt that is cancelled by somebody else ends in the form of the API, whole and streamed."""
    async with stage(tmp_path) as scene:
        await scene.join()
        for path, streams in (("/v1/chat/completions", True), ("/v1/chat/completions", False), ("/api/chat", True)):
            asking = asyncio.create_task(scene.http.post(path, json=CHAT | {"stream": streams}))
            await scene.http.delete(f"/api/v1/prompts/{(await _waiting(scene))['id']}")
            reply = await asking
            found: Any = chunks(reply.text)[-1] if path.startswith("/v1") and streams else reply.json()
            error = found["error"]
            assert "cancelled" in (error if path == "/api/chat" else error["message"])
            assert reply.status_code == (200 if streams else 409)


async def _waiting(scene: Stage) -> Json:
    async with asyncio.timeout(WAIT_S):
        while (found := await newest(scene))["state"] != "available":  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return found
