"""OpenAI's newer way to ask, `/v1/responses`, for text and calls of functions: whole, or as events.
`previous_response_id` goes on from an earlier answer, as `follows` does.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from joulebox.conversation import ToolCall
from joulebox.errors import JouleboxError
from joulebox.server.following import Answer, Ended, Following, Piece, Settled, Waits, spoken
from joulebox.server.foreign.asking import Form, TermsBody, begin, text_of, turn
from joulebox.server.foreign.openai import SSE, WAITING, packed, said_in_pieces, said_whole, sse, streamed
from joulebox.server.foreign.openai_forms import Kind, Tokens, Unsupported, reason_of, schema_of
from joulebox.server.foreign.problems import OPENAI_PROBLEMS, openai_error
from joulebox.server.problems import NewRouter
from joulebox.server.receipt_fields import EnergyObject, JouleboxObject, openai_usage
from joulebox.server.service import Mine
from joulebox.server.tool_bodies import TOOLS_MAX, Name, functions_of

Json = dict[str, Any]
PREFIX: Final = "resp_"
HARMLESS: Final[Mapping[str, Sequence[object]]] = {
    "background": (False,),
    "conversation": (),
    "prompt": (),
}


class TextFormat(Form):
    """What the text is to be like."""

    type: Kind
    schema_: Annotated[Json | None, Field(alias="schema")] = None

    def schema_asked(self) -> Json | None:
        """The JSON schema of the answer; `None` for plain text. Raises `JouleboxError("bad_request")`."""
        return schema_of(self.type, self.schema_, "text.format.schema")


class TextOptions(Form):
    """How the text is to be."""

    format: TextFormat | None = None


class NamedTool(Form):
    """The function that must be called."""

    type: Literal["function"]
    name: Name


class ResponseBody(Form):
    """A request for a response."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "small", "input": "Why is the sky blue?"}]})

    model: Annotated[str, Field(max_length=200, description="Id of a model, as `GET /v1/models` lists it.")]
    input: Annotated[str | list[Json], Field(description="A text, or messages of text.")]
    instructions: Annotated[str | None, Field(description="How the model is to behave.")] = None
    max_output_tokens: Annotated[Tokens | None, Field(description="The answer ends here at the latest.")] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="0 where nothing is said.")] = None
    top_p: Annotated[float | None, Field(ge=0, le=1, description="Where temperature is 0 it has no effect.")] = None
    previous_response_id: Annotated[str | None, Field(description="This one goes on from there.")] = None
    stream: bool | None = None
    metadata: Annotated[Json | None, Field(description="Given back as it is.")] = None
    text: Annotated[
        TextOptions | None, Field(description="Its `format`: `text`, `json_object`, or `json_schema` with its schema.")
    ] = None
    tools: Annotated[
        list[Json] | None, Field(max_length=TOOLS_MAX, description="Functions that the model may call.")
    ] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | NamedTool | None,
        Field(description="`auto` (the model decides), `none`, `required`, or the function that must be called."),
    ] = None
    background: Unsupported = None
    conversation: Unsupported = None
    prompt: Unsupported = None
    joulebox: TermsBody | None = None

    @property
    def text_format(self) -> Json:
        """What the text was asked to be like, as it is given back."""
        found = self.text.format if self.text is not None else None
        return found.model_dump(by_alias=True, exclude_none=True) if found is not None else {"type": "text"}

    @property
    def choice(self) -> Json | str | None:
        """Which function must be called, in the form of chats."""
        named = self.tool_choice
        return {"function": {"name": named.name}} if isinstance(named, NamedTool) else named

    def to_fields(self) -> Json:
        """The fields of our own prompt. Raises `JouleboxError`: `not_supported`, `bad_request`."""
        self.refuse(HARMLESS)
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        earlier = self.previous_response_id
        return {
            "messages": [_turn(item, f"input.{at}") for at, item in enumerate(items)],
            "tools": _tools(self.tools),
            "tool_choice": self.choice,
            "system": self.instructions,
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "json_schema": self.text.format.schema_asked() if self.text is not None and self.text.format else None,
            "follows": earlier.removeprefix(PREFIX) if earlier is not None else None,
        }


def _tools(tools: Sequence[Json] | None) -> list[Json] | None:
    """Functions in the form of chats. Raises `JouleboxError("not_supported")` for other tools."""
    found = functions_of(tools)
    return [{"function": {name: each for name, each in one.items() if name != "type"}} for one in found or ()] or None


def _turn(item: Json, place: str) -> Json:
    """A message, a call, or what came of one. Raises `JouleboxError`: `not_supported`, `bad_request`."""
    kind, role, call_id = item.get("type") or "message", item.get("role"), item.get("call_id")
    if kind == "function_call":
        function = {name: item.get(name) for name in ("name", "arguments")}
        return {"role": "assistant", "content": "", "tool_calls": [{"id": call_id, "function": function}]}
    if kind == "function_call_output":
        return {"role": "tool", "content": text_of(item.get("output"), place), "tool_call_id": call_id}
    if kind != "message" or not isinstance(role, str):
        raise JouleboxError(
            "not_supported",
            f"{place} is of the type {str(kind)[:40]}: only messages and calls are supported here.",
            field="input",
        )
    return turn(role, item.get("content"), place)


class ResponseObject(BaseModel):
    """The answer; `output` holds one message, or calls, or both. Many fields say what was asked."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[Json]
    usage: Json | None
    energy: EnergyObject | None
    joulebox: JouleboxObject | None


def router(new: NewRouter, receipt_wait_s: float) -> APIRouter:
    """The one route; `receipt_wait_s` is waited for a receipt after an answer."""
    routes = new(responses=OPENAI_PROBLEMS)

    @routes.post("/v1/responses", responses=streamed("The answer with its energy.", ResponseObject))
    async def respond(request: Request, mine: Mine, body: ResponseBody) -> Response:
        """Ask a model as those of OpenAI's clients do that use responses. `energy` and `joulebox` are in the response,
        where it is streamed in that of the last event."""
        asked = await begin(request, mine, body.model, body.to_fields(), body.joulebox, receipt_wait_s)
        shown = _Shown(asked, body)
        if body.stream:
            return said_in_pieces(request, asked, _events(asked, shown), SSE)
        return await said_whole(request, asked, shown.whole)

    return routes


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a response is written."""

    asked: Following
    body: ResponseBody

    def response(self, status: str, **changes: Any) -> Json:
        """The object, as far as it is known."""
        body = self.body
        return {
            "id": f"{PREFIX}{self.asked.prompt_id}",
            "object": "response",
            "created_at": self.asked.created_s,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self.asked.model,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": body.previous_response_id,
            "store": True,
            "temperature": body.temperature or 0.0,
            "text": {"format": body.text_format},
            "tool_choice": body.tool_choice.model_dump()
            if isinstance(body.tool_choice, NamedTool)
            else body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
            "metadata": body.metadata or {},
            "energy": None,
            "joulebox": None,
            **changes,
        }

    def item(self, text: str, status: str) -> Json:
        """The message."""
        content = [self.part(text)] if status != "in_progress" else []
        return {
            "type": "message",
            "id": f"msg_{self.asked.prompt_id}",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def call(self, call: ToolCall, status: str = "completed") -> Json:
        """A call."""
        return {
            "type": "function_call",
            "id": f"fc_{call.id}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments if status == "completed" else "",
            "status": status,
        }

    def part(self, text: str) -> Json:
        """Its one part."""
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def whole(self, answer: Answer) -> Json:
        """All of it."""
        energy, told = self.asked.told(answer.settled)
        status = _status(answer.reason)
        found = {"energy": energy, "joulebox": told, "usage": _usage(answer.settled)}
        said = [self.item(answer.text, status)] if answer.text or not answer.calls else []
        return self.response(status, output=[*said, *map(self.call, answer.calls)], **found)


def _status(reason: str) -> str:
    return "incomplete" if reason_of(reason) == "length" else "completed"


def _usage(settled: Settled) -> Json | None:
    used = openai_usage(settled.receipt)
    if used is None:
        return None
    return {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": used["prompt_tokens_details"],
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": used["completion_tokens_details"],
        "total_tokens": used["total_tokens"],
        **({"energy_joules": used["energy_joules"]} if "energy_joules" in used else {}),
    }


def _called(shown: _Shown, call: ToolCall) -> Iterator[tuple[str, Json]]:
    """The events of one call."""
    item, whole = shown.call(call, "in_progress"), shown.call(call)
    yield "response.output_item.added", {"item": item}
    yield "response.function_call_arguments.delta", {"item_id": item["id"], "delta": call.arguments}
    done = {"item_id": item["id"], "name": call.name, "arguments": call.arguments}
    yield "response.function_call_arguments.done", done
    yield "response.output_item.done", {"item": whole}


async def _events(asked: Following, shown: _Shown) -> AsyncGenerator[bytes, None]:
    """The events, numbered. The message is complete at once, the response when its energy is known."""
    number, text = 0, ""
    ended = Ended("stop")

    def told(kind: str, **data: Any) -> bytes:
        nonlocal number
        number += 1
        return sse({"type": kind, "sequence_number": number - 1, **data}, kind)

    place = {"output_index": 0, "item_id": f"msg_{asked.prompt_id}", "content_index": 0}
    begun = False
    yield told("response.created", response=shown.response("in_progress"))
    yield told("response.in_progress", response=shown.response("in_progress"))
    try:
        async with aclosing(asked.hear()) as heard:
            async for one in spoken(heard):
                if not begun and (isinstance(one, Piece) or (isinstance(one, Ended) and not one.calls)):
                    begun = True
                    yield told("response.output_item.added", output_index=0, item=shown.item("", "in_progress"))
                    yield told("response.content_part.added", **place, part=shown.part(""))
                match one:
                    case Waits():
                        yield WAITING
                    case Piece(piece):
                        text += piece
                        yield told("response.output_text.delta", **place, delta=piece, logprobs=[])
                    case Ended(reason, calls):
                        ended = one
                        if begun:
                            item = shown.item(text, _status(reason))
                            yield told("response.output_text.done", **place, text=text, logprobs=[])
                            yield told("response.content_part.done", **place, part=shown.part(text))
                            yield told("response.output_item.done", output_index=0, item=item)
                        for at, call in enumerate(calls, start=int(begun)):
                            for kind, data in _called(shown, call):
                                yield told(kind, output_index=at, **data)
                    case Settled():
                        answer = shown.whole(Answer(text, ended.reason, one, ended.calls))
                        yield b": energy " + packed(answer["energy"]) + b"\n\n"
                        yield told(f"response.{_status(ended.reason)}", response=answer)
    except JouleboxError as error:
        await asked.hung_up()  # what goes on now is heard by nobody
        said = openai_error(error)
        failed = {"code": said["code"], "message": said["message"]}
        yield told("response.failed", response=shown.response("failed", error=failed))
