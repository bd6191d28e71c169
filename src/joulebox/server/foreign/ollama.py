"""The routes that Ollama's clients use: chat, generate, and what models there are. Every answer has its energy.

A prompt goes the way of `POST /api/v1/prompts`. Nodes load a model when a prompt needs it and keep it as their operator
says: asking for that (`keep_alive`, or a request without a prompt) is heard and changes nothing.
"""

import importlib.metadata
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from joulebox.conversation import ToolCall
from joulebox.errors import JouleboxError
from joulebox.server.following import Answer, Ended, Following, Piece, Settled, Waits, spoken
from joulebox.server.foreign.asking import ANY_TAG, Form, TermsBody, begin
from joulebox.server.foreign.openai import packed, said_in_pieces, said_whole
from joulebox.server.foreign.openai_forms import ANY_OBJECT, Unsupported
from joulebox.server.foreign.problems import OLLAMA_PROBLEMS, ollama_error
from joulebox.server.problems import NewRouter
from joulebox.server.receipt_fields import EnergyObject, JouleboxObject, ollama_usage
from joulebox.server.service import Mine, Service
from joulebox.server.tool_bodies import CALLS_MAX, TOOLS_MAX, CallId, Name, functions_of

Json = dict[str, Any]
NDJSON: Final = "application/x-ndjson"
NOTHING_LOADED: Final = "Nodes load a model when a prompt needs it: nothing was loaded or unloaded now."
HARMLESS: Final[Mapping[str, Sequence[object]]] = {
    "think": (False,),
    "logprobs": (False,),
    "raw": (False,),
    "template": ("",),
    "suffix": ("",),
    "context": ([],),
    "images": ([],),
}
OPTIONS: Final[Mapping[str, Sequence[object]]] = {
    "repeat_penalty": (1, 1.1),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "mirostat": (0,),
}
WARM_OPTIONS: Final[Mapping[str, Sequence[object]]] = {
    "top_k": (40,),
    "min_p": (0,),
    "typical_p": (1,),
}
"""Values that ask for nothing, Ollama's own defaults among them; the latter matter only above temperature 0."""


class OptionsBody(Form):
    """How to answer."""

    num_predict: Annotated[int | None, Field(description="The answer ends here at the latest.")] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="0 where nothing is said.")] = None
    seed: int | None = None
    stop: str | list[str] | None = None
    top_k: Annotated[Any, Field(description="Not supported above temperature 0.")] = None
    top_p: Annotated[float | None, Field(ge=0, le=1, description="Where temperature is 0 it has no effect.")] = None
    min_p: Annotated[Any, Field(description="Not supported above temperature 0.")] = None
    typical_p: Annotated[Any, Field(description="Not supported above temperature 0.")] = None
    repeat_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    frequency_penalty: Unsupported = None
    mirostat: Unsupported = None

    def to_fields(self) -> Json:
        """Its part of a prompt of ours. Raises `JouleboxError("not_supported")`."""
        self.refuse({**OPTIONS, **(WARM_OPTIONS if self.temperature else {})}, "options.")
        return {
            "max_tokens": self.num_predict if self.num_predict is not None and self.num_predict > 0 else None,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed if self.seed is not None and self.seed >= 0 else None,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
        }


class _Asking(Form):
    """What both ways to ask take."""

    model: Annotated[str, Field(min_length=1, max_length=200, description="Id of a model, as `GET /api/tags` has it.")]
    stream: Annotated[bool | None, Field(description="A line for each piece, unless it is false.")] = None
    options: OptionsBody | None = None
    keep_alive: Annotated[Any, Field(description="Heard, without effect.")] = None
    format: Annotated[
        Literal["", "json"] | Json | None, Field(description="`json`, or a JSON schema: the answer is nothing else.")
    ] = None
    think: Unsupported = None
    logprobs: Unsupported = None
    tools: Annotated[
        list[Json] | None, Field(max_length=TOOLS_MAX, description="Functions that the model may call.")
    ] = None
    raw: Unsupported = None
    template: Unsupported = None
    suffix: Unsupported = None
    context: Unsupported = None
    images: Unsupported = None
    joulebox: TermsBody | None = None

    def common(self) -> Json:
        """The fields of our own prompt that both have. Raises `JouleboxError("not_supported")`."""
        self.refuse(HARMLESS)
        schema = ANY_OBJECT if self.format == "json" else self.format or None
        tools = functions_of(self.tools)
        return {**(self.options or OptionsBody()).to_fields(), "json_schema": schema, "tools": tools}


class OllamaFunction(Form):
    """Which function was called, and with what."""

    name: Name
    arguments: Annotated[Json, Field(default_factory=dict)]


class OllamaCall(Form):
    """A call that an answer had."""

    id: CallId | None = None
    function: OllamaFunction


class OllamaMessage(Form):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: Unsupported = None
    tool_calls: Annotated[
        list[OllamaCall] | None, Field(max_length=CALLS_MAX, description="What the assistant called.")
    ] = None
    tool_name: Annotated[str | None, Field(description="Of role `tool`: which function this came of.")] = None
    tool_call_id: Annotated[CallId | None, Field(description="The same by the id of the call.")] = None


class OllamaChatBody(_Asking):
    """A request for the next turn of a chat."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "small", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "stream": False}
            ]
        }
    )

    messages: Annotated[list[OllamaMessage] | None, Field(max_length=1_000)] = None

    def to_fields(self) -> Json:
        """The fields of our own prompt. Raises `JouleboxError("not_supported")`."""
        turns = self.messages or ()
        for at, one in enumerate(turns):
            one.refuse({"images": ([],)}, f"messages.{at}.")
        return self.common() | {"messages": _turns(turns)}


def _turns(messages: Sequence[OllamaMessage]) -> list[Json]:
    """The turns as ours: calls have ids, by which what came of them is known. Ollama's clients may leave them out: then
    it came of the first open call of that function, or of the first that is open."""
    turns: list[Json] = []
    waiting: dict[str, str] = {}
    for at, one in enumerate(messages):
        turn: Json = {"role": one.role, "content": one.content}
        if one.tool_calls:
            calls = [(each.id or f"call_{at}_{number}", each.function) for number, each in enumerate(one.tool_calls)]
            waiting |= {call_id: function.name for call_id, function in calls}
            turn["tool_calls"] = [
                {"id": call_id, "function": {"name": function.name, "arguments": json.dumps(function.arguments)}}
                for call_id, function in calls
            ]
        if one.role == "tool":
            named = (call_id for call_id, name in waiting.items() if one.tool_name in (None, name))
            turn["tool_call_id"] = found = one.tool_call_id or next(named, f"of {one.tool_name}")
            waiting.pop(found, None)
        turns.append(turn)
    return turns


class GenerateBody(_Asking):
    """A request for an answer to one prompt."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "small", "prompt": "Why is the sky blue?", "stream": False}]}
    )

    prompt: str = ""
    system: Annotated[str | None, Field(description="How the model is to behave.")] = None

    def to_fields(self) -> Json:
        """The fields of our own prompt. Raises `JouleboxError("not_supported")`."""
        if self.tools:
            raise JouleboxError("not_supported", "tools are for /api/chat: ask there.", field="tools")
        return self.common() | {"prompt": self.prompt, "system": self.system or None}


class ShowBody(Form):
    """Which model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "small"}]})

    model: Annotated[str | None, Field(max_length=200)] = None
    name: Annotated[str | None, Field(max_length=200, description="The older name of `model`.")] = None


class _Told(BaseModel):
    """What the last object has. Times in ns; they and the counts are left out where nobody knows. `energy` is null
    where it is not known, or not yet."""

    model: str
    created_at: str
    done: Literal[True]
    done_reason: str
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    energy: EnergyObject | None
    joulebox: JouleboxObject | Json


class ChatMessageObject(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[OllamaCall] | None = None


class OllamaChat(_Told):
    """The answer to a chat."""

    message: ChatMessageObject


class Generated(_Told):
    """The answer to a prompt."""

    response: str


class _JsonRoute(APIRoute):
    """Takes JSON whatever the request calls it, as Ollama does: `curl -d` calls it a form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        plain = super().get_route_handler()

        async def handler(request: Request) -> Response:
            kept = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
            scope = dict(request.scope) | {"headers": [*kept, (b"content-type", b"application/json")]}
            return await plain(Request(scope, request.receive))

        return handler


def router(new: NewRouter, receipt_wait_s: float) -> APIRouter:
    """All of them; `receipt_wait_s` is waited for a receipt after an answer."""
    routes = new(responses=OLLAMA_PROBLEMS, route_class=_JsonRoute)
    _answers(routes, receipt_wait_s)
    _models(routes)

    @routes.get("/api/version")
    async def version() -> Json:
        """The version of Joulebox."""
        return {"version": importlib.metadata.version("joulebox")}

    @routes.head("/", include_in_schema=False)
    async def here() -> Response:
        return Response()

    return routes


def _answers(routes: APIRouter, receipt_wait_s: float) -> None:
    @routes.post("/api/chat", responses=_streamed(OllamaChat))
    async def chat(request: Request, mine: Mine, body: OllamaChatBody) -> Response:
        """Ask a model as Ollama's clients do. `energy` holds the joules of the answer, `joulebox` its receipt; where it
        is streamed, both are in the last line."""
        if not body.messages:
            return await _no_prompt(mine, body, CHAT)
        asked = await begin(request, mine, body.model, body.to_fields(), body.joulebox, receipt_wait_s)
        return await _answer(request, asked, CHAT, body)

    @routes.post("/api/generate", responses=_streamed(Generated))
    async def generate(request: Request, mine: Mine, body: GenerateBody) -> Response:
        """The same for one prompt without turns."""
        if not body.prompt:
            return await _no_prompt(mine, body, TEXT)
        asked = await begin(request, mine, body.model, body.to_fields(), body.joulebox, receipt_wait_s)
        return await _answer(request, asked, TEXT, body)


def _streamed(model: type[Any]) -> dict[int | str, Json]:
    lines: Json = {NDJSON: {}}
    return {200: {"description": "The answer with its energy.", "model": model, "content": lines}}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of answer is written."""

    chat: bool

    def said(self, text: str, calls: Sequence[ToolCall] = ()) -> Json:
        """A piece of it, or all of it."""
        called = {"tool_calls": [_call(one) for one in calls]} if calls else {}
        return {"message": {"role": "assistant", "content": text, **called}} if self.chat else {"response": text}


def _call(call: ToolCall) -> Json:
    """A call as Ollama has it: its arguments are an object."""
    return {"id": call.id, "function": {"name": call.name, "arguments": json.loads(call.arguments)}}


CHAT: Final = _Kind(chat=True)
TEXT: Final = _Kind(chat=False)


async def _answer(request: Request, asked: Following, kind: _Kind, body: _Asking) -> Response:
    if body.stream is False:
        return await said_whole(request, asked, lambda answer: _last(asked, kind, answer))
    return said_in_pieces(request, asked, _lines(asked, kind), NDJSON)


async def _lines(asked: Following, kind: _Kind) -> AsyncGenerator[bytes, None]:
    """A line for each piece; the last one when the energy is known. Who waits gets pieces without text."""
    ending = "stop"
    try:
        async with aclosing(asked.hear()) as heard:
            async for one in spoken(heard):
                match one:
                    case Waits():
                        yield _line(_head(asked) | kind.said("") | {"done": False})
                    case Piece(text):
                        yield _line(_head(asked) | kind.said(text) | {"done": False})
                    case Ended(reason, calls):
                        ending = reason
                        if calls:
                            yield _line(_head(asked) | kind.said("", calls) | {"done": False})
                    case Settled():
                        yield _line(_last(asked, kind, Answer("", ending, one)))
    except JouleboxError as error:
        await asked.hung_up()  # what goes on now is heard by nobody
        yield _line(ollama_error(error))


def _line(data: Json) -> bytes:
    return packed(data) + b"\n"


def _head(asked: Following) -> Json:
    return {"model": asked.model, "created_at": _time(asked.mine)}


def _last(asked: Following, kind: _Kind, answer: Answer) -> Json:
    energy, told = asked.told(answer.settled)
    return {
        **_head(asked),
        **kind.said(answer.text, answer.calls),
        "done": True,
        "done_reason": "stop" if answer.reason == "tool_calls" else answer.reason,
        **ollama_usage(answer.settled.receipt),
        "energy": energy,
        "joulebox": told,
    }


async def _no_prompt(mine: Service, body: _Asking, kind: _Kind) -> Response:
    """A request to load or unload a model."""
    body.common()
    found = _named(await mine.models(), body.model)
    unload = body.keep_alive in (0, "0", "0s")
    line = {
        "model": found["id"],
        "created_at": _time(mine),
        **kind.said(""),
        "done": True,
        "done_reason": "unload" if unload else "load",
        **ollama_usage(None),
        "energy": None,
        "joulebox": {"detail": NOTHING_LOADED},
    }
    return JSONResponse(line) if body.stream is False else Response(_line(line), media_type=NDJSON)


def _time(mine: Service) -> str:
    return mine.desk.now().isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- models -----------------------------------------------------------------------------------------------------------


def _models(routes: APIRouter) -> None:
    @routes.get("/api/tags")
    async def tags(mine: Mine) -> Json:
        """The models that can be asked, in Ollama's form. What nobody knows is null or empty."""
        return {"models": [_listed(one) for one in await mine.models()]}

    @routes.get("/api/ps")
    async def loaded(mine: Mine) -> Json:
        """The models that nodes have in memory now."""
        nodes = await mine.nodes()
        holds = {one["name"]: one["loaded"] for one in nodes if one["loaded"] and one["state"] != "away"}
        return {"models": [_loaded(one) for one in await mine.models() if _held(one, holds)]}

    @routes.post("/api/show")
    async def show(mine: Mine, body: ShowBody) -> Json:
        """What is known of a model."""
        name = body.model or body.name
        if not name:
            raise JouleboxError("bad_request", "The field model is missing.", field="model")
        found = _named(await mine.models(), name)
        return {
            "license": "",
            "modelfile": "",
            "parameters": "",
            "template": "",
            "modified_at": None,
            "details": _details(found),
            "model_info": {
                "general.architecture": "joulebox",
                "joulebox.context_length": found["context_tokens"],
                "joulebox.memory_bytes": found["memory_bytes"],
            },
            "capabilities": ["completion", *(["tools"] if found["tools"] else [])],
            "joulebox": found,
        }


def _named(models: Sequence[Json], name: str) -> Json:
    """The model of that name, with or without the tag that Ollama's clients add. Raises `unknown_model`."""
    for wanted in (name, name.removesuffix(ANY_TAG)):
        if (found := next((one for one in models if one["id"] == wanted), None)) is not None:
            return found
    raise JouleboxError("unknown_model", f"No node has the model {name}: GET /api/tags lists those there are.")


def _held(model: Json, holds: Mapping[str, str]) -> bool:
    return any(holds.get(node) == model["id"] for node in model["nodes"])


def _details(model: Json) -> Json:
    return {
        "parent_model": "",
        "format": "",
        "family": "",
        "families": None,
        "parameter_size": "",
        "quantization_level": model["quantization"],
    }


def _listed(model: Json) -> Json:
    return {
        "name": model["id"],
        "model": model["id"],
        "modified_at": None,
        "size": model["size_bytes"],
        "digest": model["digest"].removeprefix("sha256:"),
        "details": _details(model),
        "joulebox": {name: model[name] for name in ("memory_bytes", "context_tokens", "nodes", "available")},
    }


def _loaded(model: Json) -> Json:
    return _listed(model) | {"expires_at": None, "size_vram": None, "context_length": model["context_tokens"]}
