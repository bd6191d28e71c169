"""A prompt as it is heard by those who know no receipts: text, its end, and what it took, as soon as that is known.

Whoever hangs up stops the prompt, unless it is quiet or has a key by which they may come back.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from fastapi import Request
from fastapi.responses import Response
from fastapi.sse import ServerSentEvent
from starlette.types import Receive, Scope, Send

from joulebox.conversation import ToolCall
from joulebox.errors import REGISTRY, JouleboxError
from joulebox.server.events import Seen, watch
from joulebox.server.jobs import stopping
from joulebox.server.receipt_fields import LATE, energy_object, header_fields
from joulebox.server.service import Service
from joulebox.server.tool_bodies import read_calls
from joulebox.units import seconds

Json = dict[str, Any]
_T = TypeVar("_T")
KEEP_ALIVE_S: Final = 15.0
"""Who waits hears at least so often that the line still stands; a quiet prompt that runs is left alone."""
ENDS: Final = frozenset({"receipt", "cancelled", "error"})
AGAIN: Final = "The node was lost after the answer was sent; the prompt is being answered again, for its receipt."
OTHER: Final = "The node was lost in the middle of the answer, and another attempt says something else. Ask again."
_OVER: Final = ServerSentEvent(event="over")


@dataclass(frozen=True, slots=True)
class Waits:
    """Nothing is new; say something, so that the line is not taken for dead."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Anew:
    """Another attempt begins: what was heard so far is void."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is complete, with what the model called."""

    reason: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """The last: the receipt, or, where there is none, perhaps why."""

    receipt: Json | None
    detail: str | None = None


Heard = Waits | Piece | Anew | Ended | Settled


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    reason: str
    settled: Settled
    calls: tuple[ToolCall, ...] = ()


@dataclass(slots=True, kw_only=True)
class Following:
    """A prompt that somebody has asked and listens to. `kept`: they may come back for it."""

    mine: Service
    prompt_id: str
    model: str
    model_reason: str | None
    created_s: int
    url: str
    wait_s: float
    quiet: bool
    kept: bool
    answered: bool = False

    async def hear(self) -> AsyncGenerator[Heard, None]:
        """Everything until the receipt, for which `wait_s` is waited after the end of the answer.

        Raises `JouleboxError`: why a prompt has no answer, and `no_server` where this server ends.
        """
        mine, clock = self.mine, self.mine.grid.clock
        events = _Pulled(watch(self.prompt_id, Seen(), mine.desk, mine.replicas, mine.store, line=False))
        async with aclosing(events):
            spoke_ns = clock.now_ns()
            while (event := await events.next(KEEP_ALIVE_S - seconds(clock.now_ns() - spoke_ns))) is not _OVER:
                if event is None:
                    spoke_ns = clock.now_ns()
                    if not (self.quiet and mine.desk.live(self.prompt_id) is not None):
                        yield Waits()
                elif event.event == "token":
                    if text := _data(event)["text"]:  # of a call there is none before its end
                        spoke_ns = clock.now_ns()
                        yield Piece(text)
                elif event.event == "restarted":
                    yield Anew()
                elif event.event == "answer":
                    self.answered = True
                    data = _data(event)
                    yield Ended(data["finish_reason"] or "stop", read_calls(data.get("tool_calls")))
                    settled = await _settled(events, self.wait_s)
                    self.answered = settled is not None
                    yield settled or Anew()
                    if settled is not None:
                        return
                elif event.event in ENDS:
                    raise _failure(event)
        raise stopping()

    async def hung_up(self) -> None:
        """Nobody listens any more: a live prompt without an answer stops."""
        if not (self.answered or self.quiet or self.kept or self.mine.desk.closing):
            with suppress(JouleboxError):
                await self.mine.cancel(self.prompt_id)

    def told(self, settled: Settled) -> tuple[Json | None, Json]:
        """The objects `energy` and `joulebox` of the answer."""
        receipt = settled.receipt
        place = f"receipts/{receipt['id']}" if receipt is not None else f"prompts/{self.prompt_id}/receipt"
        late = {} if receipt is not None else {"id": None, "detail": settled.detail or LATE.format(wait_s=self.wait_s)}
        found = {"prompt_id": self.prompt_id, "receipt_url": f"{self.url}/api/v1/{place}"}
        return energy_object(receipt), {**late, **(receipt or {}), **found, "model_reason": self.model_reason}

    def headers(self, settled: Settled) -> dict[str, str]:
        """The same in the answer's headers, for scripts."""
        return header_fields(settled.receipt, self.prompt_id, self.told(settled)[1]["receipt_url"])


async def _settled(events: "_Pulled", wait_s: float) -> Settled | None:
    """What comes after the answer; `None` where it is an attempt that begins anew."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while (event := await events.next(None)) is not _OVER:
                if event is not None and event.event == "restarted":
                    return None
                if event is not None and event.event == "receipt":
                    return Settled(_data(event))
                if event is not None and event.event in ENDS:
                    return Settled(None, _failure(event).detail)
    return Settled(None)


def _data(event: ServerSentEvent) -> Json:
    data: Json = json.loads(event.raw_data or "{}")
    return data


def _failure(event: ServerSentEvent) -> JouleboxError:
    if event.event == "cancelled":
        return JouleboxError("cancelled", "The prompt was cancelled before its answer was complete.")
    data = _data(event)
    return JouleboxError(data["code"] if data["code"] in REGISTRY else "internal", data["detail"])


class _Pulled:
    """Events taken one at a time, with patience: to stop waiting for one does not end where they come from."""

    def __init__(self, events: AsyncIterator[ServerSentEvent]) -> None:
        self._events = cast(AsyncGenerator[ServerSentEvent, None], events)
        self._coming: asyncio.Task[ServerSentEvent] | None = None

    async def next(self, patience_s: float | None) -> ServerSentEvent | None:
        """The next event, `_OVER` after the last; `None` where none came in this time."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._take())
        timeout_s = max(patience_s, 0.0) if patience_s is not None else None
        done, _ = await asyncio.wait({self._coming}, timeout=timeout_s)
        if not done:
            return None
        coming, self._coming = self._coming, None
        return coming.result()

    async def _take(self) -> ServerSentEvent:
        return await anext(self._events, _OVER)

    async def aclose(self) -> None:
        """End where they come from."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait({self._coming})
            if not self._coming.cancelled():
                self._coming.exception()  # it is told to nobody any more
        await self._events.aclose()


async def spoken(heard: AsyncIterator[Heard]) -> AsyncIterator[Waits | Piece | Ended | Settled]:
    """The same for who cannot take back what was said: of an attempt that begins anew only what goes on from there.

    Raises `JouleboxError("energy_interrupted")` where it says something else.
    """
    said, now, ended = "", "", False
    async for one in heard:
        if isinstance(one, Anew):
            if ended:
                yield Settled(None, AGAIN)
                return
            now = ""
        elif isinstance(one, Piece):
            now += one.text
            if now.startswith(said):
                fresh, said = now[len(said) :], now
                if fresh:
                    yield Piece(fresh)
            elif not said.startswith(now):
                raise JouleboxError("energy_interrupted", OTHER)
        else:
            ended = ended or isinstance(one, Ended)
            if ended and now != said:
                raise JouleboxError("energy_interrupted", OTHER)
            yield one


async def whole(heard: AsyncIterator[Heard]) -> Answer:
    """All of it, for who waits for the end."""
    text, reason = "", ""
    calls: tuple[ToolCall, ...] = ()
    async for one in heard:
        match one:
            case Anew():
                text = ""
            case Piece(piece):
                text += piece
            case Ended(why, called):
                reason, calls = why, called
            case Settled():
                return Answer(text, reason, one, calls)
    raise stopping()


# --- hanging up -------------------------------------------------------------------------------------------------------


async def unless_gone(
    request: Request, work: Coroutine[Any, Any, _T], hung_up: Callable[[], Awaitable[None]]
) -> _T | None:
    """What the work comes to; `None`, and `hung_up` is called, where nobody waits for it any more."""
    gone, working = asyncio.ensure_future(_left(request.receive)), asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
    if not working.done():
        await asyncio.wait({working})
        await hung_up()
        return None
    return working.result()


class Stream(Response):
    """Sends pieces as they come, and calls `hung_up` at once when nobody reads them any more."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media_type: str,
        hung_up: Callable[[], Awaitable[None]],
        headers: dict[str, str],
    ) -> None:
        super().__init__(media_type=media_type, headers=headers | {"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._pieces = pieces
        self._hung_up = hung_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone, speech = asyncio.ensure_future(_left(receive)), asyncio.ensure_future(self._speak(send))
        try:
            await asyncio.wait({gone, speech}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not speech.done():
                speech.cancel()
        if not speech.done():
            await asyncio.wait({speech})
            await self._hung_up()
        elif not speech.cancelled():
            speech.result()

    async def _speak(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._pieces):
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
