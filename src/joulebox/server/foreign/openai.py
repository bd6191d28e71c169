"""The routes that OpenAI's clients use: chat completions, completions, models. Every answer has its energy.

A prompt goes the way of `POST /api/v1/prompts`: line, quotas and rights are the same. While it waits, a stream says so
in comments; who does not stream waits for the answer and for its receipt.
"""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from joulebox.conversation import ToolCall, called
from joulebox.errors import JouleboxError
from joulebox.server.campaigns import AUTO, EVERYTHING
from joulebox.server.following import (
    Answer,
    Ended,
    Following,
    Piece,
    Settled,
    Stream,
    Waits,
    spoken,
    unless_gone,
    whole,
)
from joulebox.server.foreign.asking import begin
from joulebox.server.foreign.openai_forms import (
    ChatBody,
    ChatCompletion,
    Completion,
    CompletionBody,
    ModelList,
    ModelObject,
    reason_of,
)
from joulebox.server.foreign.problems import OPENAI_PROBLEMS, openai_error
from joulebox.server.gate import remember
from joulebox.server.problems import NewRouter
from joulebox.server.receipt_fields import handed_on, openai_usage
from joulebox.server.service import Mine, Service

Json = dict[str, Any]
SSE: Final = "text/event-stream"
WAITING: Final = b": waiting\n\n"
DONE: Final = b"data: [DONE]\n\n"
FILE: Final = ("digest", "quantization", "size_bytes", "memory_bytes", "context_tokens", "nodes", "available")


@dataclass(frozen=True, slots=True)
class _Form:
    """How one kind of completion is written."""

    prefix: str
    whole: str
    chunk: str
    chat: bool

    def choice(self, answer: Answer) -> Json:
        """The choice of a whole answer."""
        message: Json = {"role": "assistant", "content": answer.text}
        if answer.calls:
            message |= {"content": answer.text or None, "tool_calls": called(answer.calls)}
        said: Json = {"message": message} if self.chat else {"text": answer.text}
        return {"index": 0, **said, "logprobs": None, "finish_reason": reason_of(answer.reason)}

    def delta(
        self, text: str, reason: str | None = None, *, first: bool = False, calls: Sequence[ToolCall] = ()
    ) -> Json:
        """The choice of a piece of it, or of its calls."""
        role = {"role": "assistant"} if first else {}
        pieces = {"tool_calls": [{"index": at, **one} for at, one in enumerate(called(calls))]} if calls else {}
        said: Json = (
            {"delta": {**role, **({"content": text} if text else {}), **pieces}} if self.chat else {"text": text}
        )
        return {"index": 0, **said, "logprobs": None, "finish_reason": reason}


CHAT: Final = _Form("chatcmpl-", "chat.completion", "chat.completion.chunk", chat=True)
TEXT: Final = _Form("cmpl-", "text_completion", "text_completion", chat=False)


def streamed(description: str, model: type[Any]) -> dict[int | str, Json]:
    """What a route may answer that streams where it is asked to."""
    stream: Json = {SSE: {}}
    return {200: {"description": description, "model": model, "content": stream}}


def router(new: NewRouter, receipt_wait_s: float) -> APIRouter:
    """All of them; `receipt_wait_s` is waited for a receipt after an answer."""
    routes = new(responses=OPENAI_PROBLEMS)
    _completions(routes, receipt_wait_s)

    @routes.get("/v1/models", response_model=ModelList)
    async def models(mine: Mine) -> Json:
        """The models that can be asked, in OpenAI's form; `joulebox` names the files behind each."""
        return {"object": "list", "data": await _models(mine)}

    @routes.get("/v1/models/{model_id:path}", response_model=ModelObject)
    async def model(mine: Mine, model_id: str) -> Json:
        """One of them."""
        found = next((one for one in await _models(mine) if one["id"] == model_id), None)
        if found is None:
            raise JouleboxError("unknown_model", f"No node has the model {model_id[:200]}.", field="model")
        return found

    return routes


def _completions(routes: APIRouter, receipt_wait_s: float) -> None:
    @routes.post("/v1/chat/completions", responses=streamed("The answer with its energy.", ChatCompletion))
    async def chat(request: Request, mine: Mine, body: ChatBody) -> Response:
        """Ask a model as OpenAI's clients do. The object `energy` holds the answer's joules, `joulebox` its receipt;
        where they stream, the last piece has both, and the comment `: energy {...}` before `[DONE]`."""
        asked = await begin(request, mine, body.model, body.to_fields(), body.joulebox, receipt_wait_s)
        return await _answer(request, asked, CHAT, body)

    @routes.post("/v1/completions", responses=streamed("The answer with its energy.", Completion))
    async def completion(request: Request, mine: Mine, body: CompletionBody) -> Response:
        """The same for one prompt without turns, which is put to the model as a question."""
        asked = await begin(request, mine, body.model, body.to_fields(), body.joulebox, receipt_wait_s)
        return await _answer(request, asked, TEXT, body)


async def _answer(request: Request, asked: Following, form: _Form, body: ChatBody | CompletionBody) -> Response:
    if body.stream:
        return said_in_pieces(request, asked, _pieces(asked, form, with_usage=body.with_usage), SSE)
    return await said_whole(request, asked, lambda answer: _whole(asked, form, answer))


def said_in_pieces(
    request: Request, asked: Following, pieces: AsyncGenerator[bytes, None], media_type: str
) -> Response:
    """An answer as it comes."""
    response = Stream(pieces, media_type, asked.hung_up, {"x-joulebox-prompt-id": asked.prompt_id})
    remember(request, response)
    return response


async def said_whole(request: Request, asked: Following, form: Callable[[Answer], Json]) -> Response:
    """An answer when it is complete, and its receipt there or waited for long enough."""
    answer = await unless_gone(request, whole(asked.hear()), asked.hung_up)
    if answer is None:
        return Response(status_code=499)  # nobody reads it
    response = JSONResponse(form(answer), headers=asked.headers(answer.settled))
    remember(request, response)
    return response


def _whole(asked: Following, form: _Form, answer: Answer) -> Json:
    energy, receipt = asked.told(answer.settled)
    return {
        "id": f"{form.prefix}{asked.prompt_id}",
        "object": form.whole,
        "created": asked.created_s,
        "model": asked.model,
        "choices": [form.choice(answer)],
        "usage": openai_usage(answer.settled.receipt),
        "energy": energy,
        "joulebox": receipt,
    }


async def _pieces(asked: Following, form: _Form, *, with_usage: bool) -> AsyncGenerator[bytes, None]:
    """The chunks. Text and end go out at once; energy follows when the machine was listened to after the answer."""
    common: Json = {"id": f"{form.prefix}{asked.prompt_id}", "object": form.chunk}
    common |= {"created": asked.created_s, "model": asked.model}
    usage: Json = {"usage": None} if with_usage else {}
    first = True
    try:
        async with aclosing(asked.hear()) as heard:
            async for one in spoken(heard):
                match one:
                    case Waits():
                        yield WAITING
                    case Piece(text):
                        yield sse({**common, "choices": [form.delta(text, first=first)], **usage})
                        first = False
                    case Ended(reason, calls):
                        if calls:
                            yield sse({**common, "choices": [form.delta("", first=first, calls=calls)], **usage})
                            first = False
                        yield sse({**common, "choices": [form.delta("", reason_of(reason), first=first)], **usage})
                    case Settled(receipt):
                        energy, about = asked.told(one)
                        # whoever has not asked for tokens may not know a chunk without a choice
                        choices = [] if with_usage else [form.delta("")]
                        used: Json = {"usage": openai_usage(receipt)} if with_usage else {}
                        used |= handed_on(energy, about) if form.chat else {}
                        yield sse({**common, "choices": choices, **used, "energy": energy, "joulebox": about})
                        yield b": energy " + packed(energy) + b"\n\n"
                        yield DONE
    except JouleboxError as error:
        await asked.hung_up()  # what goes on now is heard by nobody
        yield sse({"error": openai_error(error)})


def sse(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event."""
    event = f"event: {name}\n".encode() if name is not None else b""
    return event + b"data: " + packed(data) + b"\n\n"


def packed(data: object) -> bytes:
    """JSON in one line."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


async def _models(mine: Service) -> list[Json]:
    """Each name once; the one that lets the server choose only where it could."""
    files: dict[str, list[Json]] = {}
    for one in await mine.models():
        files.setdefault(one["id"], []).append({name: one[name] for name in FILE})
    if files and (await mine.advice(EVERYTHING, 0.0, None)).model is not None:
        files[AUTO] = []
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": "joulebox", "joulebox": {"files": each}}
        for name, each in files.items()
    ]
