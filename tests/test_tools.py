"""Functions that a model may call: how they reach the node, what of an answer is a call, and how every API tells it.

`test_foreign_clients` has the real clients and the real model.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from joulebox.clock import SystemClock
from joulebox.conversation import Message, Tool, ToolCall, with_calls
from joulebox.model import Prompt
from joulebox.node import llamacpp_wire, tool_calls
from joulebox.node.engine import Finished, LocalModel, Token
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.models import Registry
from joulebox.node.tool_calls import Calls
from joulebox.plain import plain
from joulebox.protocol import NodeEvent
from joulebox.server.foreign.ollama import OllamaChat
from joulebox.server.foreign.openai_forms import ChatCompletion
from joulebox.server.foreign.responses import ResponseObject
from server_stage import Json, Stage, done, stage, story
from test_foreign_apis import chunks

SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Json = {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA}
CLOCK: Json = {"name": "clock", "description": "", "parameters": {"type": "object"}}
TOOLS = tuple(
    Tool(name=one["name"], description=one["description"], parameters=json.dumps(one["parameters"]))
    for one in (WEATHER, CLOCK)
)
ARGUMENTS = '{"city": "Paris"}'
CALL = ToolCall(id="call_1", name="weather", arguments=ARGUMENTS)
WRITTEN = '{"name": "weather", "arguments": {"city": "Paris"}}'
QUESTION: Json = {"role": "user", "content": "What is the weather in Paris?"}
ASKED = Prompt(model="m", messages=(Message(role="user", content=str(QUESTION["content"])),), tools=TOOLS)
TOOL: Json = {"type": "function", "function": WEATHER}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- the engine's side ------------------------------------------------------------------------------------------------

TEXTS: list[tuple[Sequence[str], str, list[str]]] = [
    (["The weather", " is fine."], "The weather is fine.", []),
    ([WRITTEN[:9], WRITTEN[9:]], "", ["weather"]),
    (["```", "json\n", WRITTEN, "\n```"], "", ["weather"]),
    (["<tool_call>\n", WRITTEN, "\n</tool_call>\n<tool_call>", WRITTEN, "</tool_call>"], "", ["weather"] * 2),
    (["```", "python\nprint()"], "```python\nprint()", []),
    ([WRITTEN, " It is sunny."], f"{WRITTEN} It is sunny.", []),
    (['{"name": "rm", "arguments": {}}'], '{"name": "rm", "arguments": {}}', []),
    ([WRITTEN[:20]], WRITTEN[:20], []),
]


@pytest.mark.parametrize(("pieces", "text", "called"), TEXTS)
def test_a_call_in_the_text(pieces: Sequence[str], text: str, called: list[str]) -> None:
    """A text that is a call of a function there is, and nothing else, is that call; any other is text, all of it."""
    calls = Calls(tools=TOOLS)
    shown = "".join(calls.shown(piece) or "" for piece in pieces)
    found, rest = calls.close()
    assert (shown + rest, [name for name, _ in found]) == (text, called)


def test_calls_in_pieces() -> None:
    """Calls that an engine tells apart are put together by their numbers; one that was cut off is text."""
    calls = Calls(tools=TOOLS)
    calls.take([{"index": 0, "function": {"name": "weather", "arguments": '{"ci'}}])
    assert (calls.shown(""), calls.shown("")) == ("", None)
    calls.take([{"index": 1, "function": {"name": "clock"}}])
    calls.take([{"index": 0, "function": {"arguments": 'ty": "Paris"}'}}])
    calls.take([{"index": 2, "function": {"name": "weather", "arguments": '{"city'}}])
    assert calls.close() == ((("weather", '{"city": "Paris"}'), ("clock", "{}")), 'weather({"city')


def test_functions_in_plain_words() -> None:
    """For a model whose template knows no functions they stand in the system message, calls and answers in turns."""
    turns = (
        Message(role="system", content="Be brief."),
        *ASKED.messages,
        Message(role="assistant", content="", tool_calls=(CALL,)),
        Message(role="tool", content="21", tool_call_id="call_1"),
    )
    told = tool_calls.in_words(replace(ASKED, messages=turns))
    assert [one.role for one in told.messages] == ["system", "user", "assistant", "user"]
    system, _, call, answer = (one.content for one in told.messages)
    assert system.startswith("Be brief.\n\n")
    assert TOOLS[0].parameters in system
    assert (json.loads(call), answer) == (json.loads(WRITTEN), "weather answered: 21")
    assert (told.tools, tool_calls.schema(told)) == ((), None)


@pytest.mark.parametrize(
    ("choice", "told", "forms"),
    [
        ("auto", "auto", 0),
        ("required", "required", 2),
        ("function:clock", {"type": "function", "function": {"name": "clock"}}, 1),
    ],
)
def test_what_must_be_called(choice: str, told: object, forms: int) -> None:
    """An engine of OpenAI's form is told the choice, llama.cpp a schema with the functions that may be called."""
    asked = replace(ASKED, tool_choice=choice)
    assert tool_calls.choice(asked) == {"tool_choice": told}
    wire = llamacpp_wire.request(asked, LocalModel(file=None, path=Path()), tells_tools=True)  # type: ignore[arg-type]
    held = wire.get("response_format", {}).get("json_schema", {}).get("schema", {"anyOf": []})
    assert len(held["anyOf"]) == forms
    assert wire.get("tool_choice") == ("none" if forms else None)


def test_the_smallest_model_calls(tmp_path: Path, smollm2: Path) -> None:
    """Where it must, a model too small to know of functions calls the one that is named, with arguments of its schema;
    its tokens are counted and none of them is text."""
    engine = LlamaCpp(SystemClock(), 1, 512)
    engine.load(Registry(tmp_path).add(smollm2, "m"))
    try:
        events = list(engine.generate(replace(ASKED, tool_choice="function:weather", max_tokens=60)))
    finally:
        engine.unload()
    end, tokens = events[-1], [event for event in events if isinstance(event, Token)]
    assert isinstance(end, Finished)
    ((name, arguments),) = end.calls
    assert (name, list(json.loads(arguments)), end.finish_reason) == ("weather", ["city"], "tool_calls")
    assert "".join(one.text for one in tokens) == ""
    assert len(tokens) > 5
    assert sum(one.n for one in tokens) == pytest.approx(end.usage.output_tokens, abs=2)


# --- the server's side ------------------------------------------------------------------------------------------------


async def called(scene: Stage, path: str, body: Json, words: Sequence[str] = ()) -> tuple[Json, httpx2.Response]:
    """Ask; a node answers with the call. What it was leased, and the answer."""
    asking = asyncio.create_task(scene.http.post(path, json={"model": "m", "stream": False} | body))
    lease = await scene.lease(tools=True)
    *before, last = story(*words)
    data = {"finish_reason": "tool_calls", "tool_calls": plain([CALL])}
    await scene.send(lease, [*before, NodeEvent(seq=last.seq, kind="answer", data=data)])
    delivery = replace(done(lease, *words), finish_reason="tool_calls", tool_calls=(CALL,))
    assert (await scene.finish(lease, delivery)).status_code == 200
    reply = await asking
    assert reply.status_code == 200, reply.text
    return lease["prompt"], reply


@pytest.mark.anyio
async def test_openai_chats_call(tmp_path: Path) -> None:
    """A chat has the call beside its energy, whole and streamed; what came of it goes to the node with the next."""
    async with stage(tmp_path) as scene:
        await scene.join(tools=True)
        body: Json = {"messages": [QUESTION], "tools": [TOOL], "tool_choice": TOOL | {"function": {"name": "weather"}}}
        prompt, reply = await called(scene, "/v1/chat/completions", body)
        assert (prompt["tool_choice"], prompt["tools"][0]["name"]) == ("function:weather", "weather")
        assert json.loads(prompt["tools"][0]["parameters"]) == SCHEMA
        answer = reply.json()
        ChatCompletion.model_validate(answer)
        (choice,) = answer["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
        (call,) = choice["message"]["tool_calls"]
        assert (call["id"], call["function"]) == ("call_1", {"name": "weather", "arguments": ARGUMENTS})
        assert answer["energy"]["energy_joules"] > 0
        result = {"role": "tool", "tool_call_id": "call_1", "content": "21"}
        body |= {"messages": [QUESTION, choice["message"], result], "tool_choice": "auto", "stream": True}
        prompt, reply = await called(scene, "/v1/chat/completions", body, ["Hm."])
        assert [turn["role"] for turn in prompt["messages"]] == ["user", "assistant", "tool"]
        assert prompt["messages"][1]["tool_calls"] == [plain(CALL)]
        assert prompt["messages"][2]["tool_call_id"] == "call_1"
        deltas = [one["choices"][0] for one in chunks(reply.text)]
        assert [one["finish_reason"] for one in deltas] == [None, None, "tool_calls", None]
        assert (deltas[0]["delta"]["content"], deltas[1]["delta"]["tool_calls"]) == ("Hm.", [{"index": 0, **call}])


@pytest.mark.anyio
async def test_responses_call(tmp_path: Path) -> None:
    """A response holds the call as an item, events tell it in order; what came of it goes on from that response."""
    async with stage(tmp_path) as scene:
        await scene.join(tools=True)
        body: Json = {"input": "The weather?", "tools": [{"type": "function", **WEATHER}], "tool_choice": "required"}
        prompt, reply = await called(scene, "/v1/responses", body)
        assert prompt["tool_choice"] == "required"
        first = reply.json()
        ResponseObject.model_validate(first)
        (item,) = first["output"]
        assert (item["type"], item["call_id"], item["arguments"]) == ("function_call", "call_1", ARGUMENTS)
        result = [{"type": "function_call_output", "call_id": "call_1", "output": "21"}]
        more = {"input": result, "previous_response_id": first["id"], "stream": True, "tool_choice": None}
        prompt, reply = await called(scene, "/v1/responses", body | more)
        assert [turn["role"] for turn in prompt["messages"]] == ["user", "assistant", "tool"]
        kinds = [one["type"].removeprefix("response.") for one in chunks(reply.text)]
        assert kinds[2:6] == [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
        ]
        assert kinds[6:] == ["completed"]


@pytest.mark.anyio
async def test_ollama_calls(tmp_path: Path) -> None:
    """Ollama's clients read arguments as an object, and what came of a call needs no id."""
    async with stage(tmp_path) as scene:
        await scene.join(tools=True)
        body: Json = {"messages": [QUESTION], "tools": [TOOL]}
        _, reply = await called(scene, "/api/chat", body)
        told = reply.json()
        OllamaChat.model_validate(told)
        (call,) = told["message"]["tool_calls"]
        assert (call["function"], told["done_reason"]) == ({"name": "weather", "arguments": {"city": "Paris"}}, "stop")
        turns = [
            QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [{"function": call["function"]}]},
            {"role": "tool", "tool_name": "weather", "content": "21"},
        ]
        prompt, reply = await called(scene, "/api/chat", body | {"messages": turns, "stream": True})
        assert prompt["messages"][1]["tool_calls"][0]["id"] == prompt["messages"][2]["tool_call_id"]
        lines = [json.loads(line) for line in reply.text.splitlines()]
        assert [one["message"].get("tool_calls") for one in lines] == [[call], None]
        assert "tools" in (await scene.http.post("/api/show", json={"model": "m"})).json()["capabilities"]


@pytest.mark.anyio
async def test_calls_are_texts_of_who_asked(tmp_path: Path) -> None:
    """The prompt's status and pages show the call; with the texts it is erased, and with it the functions."""
    async with stage(tmp_path) as scene:
        await scene.join(tools=True)
        _, reply = await called(scene, "/v1/chat/completions", {"messages": [QUESTION], "tools": [TOOL]})
        about = reply.json()["joulebox"]
        status = await scene.status(about["prompt_id"])
        assert status["tool_calls"][0]["function"]["arguments"] == ARGUMENTS
        events = await scene.all_events(about["prompt_id"])
        assert next(one.data for one in events if one.name == "answer")["tool_calls"] == [plain(CALL)]
        for page in (f"/prompts/{about['prompt_id']}", f"/receipts/{about['id']}"):
            assert "weather({" in (await scene.http.get(page)).text, page
        assert (await scene.http.delete(f"/api/v1/prompts/{about['prompt_id']}/texts")).status_code == 200
        assert (await scene.status(about["prompt_id"]))["tool_calls"] == []
        record = await scene.store.record(about["prompt_id"])
        assert record is not None
        assert (record.job.tool_calls, record.job.prompt.tools) == ((), ())


BROKEN: list[Any] = [
    "x",
    [{"id": "1", "name": "f", "arguments": "no JSON"}],
    [{"id": "1", "name": "f"}],
    [plain(CALL)] * 200,
    [plain(replace(CALL, name="f" * 300))],
]


@pytest.mark.anyio
async def test_calls_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """A node that tells of calls without arguments, without end or of no form is answered with one sentence."""
    async with stage(tmp_path) as scene:
        await scene.join(tools=True)
        await scene.ask("hi", tools=[TOOL])
        lease = await scene.lease(tools=True)
        for broken in BROKEN:
            event = NodeEvent(seq=0, kind="answer", data={"finish_reason": "stop", "tool_calls": broken})
            reply = await scene.send(lease, [event])
            assert (reply.status_code, reply.json()["code"]) == (422, "bad_request"), broken
        reply = await scene.finish(lease, replace(done(lease), tool_calls=(replace(CALL, arguments="["),)))
        assert (reply.status_code, reply.json()["code"]) == (422, "bad_evidence")


def test_an_answer_as_people_read_it() -> None:
    """Text and calls stand one below the other, and alone where the other is not there."""
    assert with_calls("Hm.", [CALL]) == f"Hm.\nweather({ARGUMENTS})"
    assert with_calls("", [CALL]) == f"weather({ARGUMENTS})"
    assert with_calls("Hm.", []) == "Hm."
