"""The routes for nodes: lease, hold, events, finish. Bodies are the dataclasses of `protocol`."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from joulebox.errors import JouleboxError
from joulebox.protocol import VERSION, Batch, Finish, LeaseRequest, to_json
from joulebox.server.desk import Desk
from joulebox.server.live import SAID_MAX_BYTES, Elsewhere, Hold, Live
from joulebox.server.problems import NewRouter, bad_request, refuse_version
from joulebox.server.replicas import PASSED, Replicas
from joulebox.server.texts import NUL

_LEASE_REQUEST: Final = TypeAdapter(LeaseRequest)
_BATCH: Final = TypeAdapter(Batch)
_FINISH: Final = TypeAdapter(Finish)
_VERSION: Final = TypeAdapter(dict[str, Any])
_T = TypeVar("_T")
LARGE: Final = "/node/v1/attempts/"
"""Addresses below this take large bodies."""
NUMBER_MAX: Final = 2**63 - 1
INSTEAD: Final = "\ufffd"
REASON_MAX: Final = 32
DETAIL_MAX: Final = 2_000


def router(new: NewRouter, desk: Desk, replicas: Replicas) -> APIRouter:
    """All routes for nodes."""
    routes = new(prefix="/node/v1")

    @routes.post("/lease", responses={204: {"description": "Nothing to do for `wait_s`."}})
    async def lease(request: Request) -> Response:
        """Held open until there is work (200) or `wait_s` is over (204)."""
        body = await request.body()
        _check_version(body)
        wanted = _read(_LEASE_REQUEST, body)
        gone = asyncio.ensure_future(request.receive())
        try:
            granted = await desk.lease(wanted, gone)
        finally:
            gone.cancel()
        return Response(status_code=204) if granted is None else _json(granted)

    @routes.get("/attempts/{token}/hold", response_class=_Lines, status_code=200)
    async def hold(token: str, request: Request) -> Response:
        """Held open while the node works: one JSON line for each word of the server."""
        found = await _found(desk, token, request)
        if isinstance(found, Elsewhere):
            return _Lines(replicas.hold(found))
        hold = desk.open_hold(found)
        return _Lines(_words(hold), lambda cut: desk.let_go(hold, cut=cut))

    @routes.post("/attempts/{token}/events")
    async def events(token: str, request: Request) -> Response:
        """What a watching person may see, in order."""
        found, body = await _found(desk, token, request), await request.body()
        if isinstance(found, Elsewhere):
            status, reply = await replicas.events(found, body)
            return Response(reply, status, media_type="application/json")
        found.said_bytes += len(body)
        if found.said_bytes > SAID_MAX_BYTES:
            raise JouleboxError("bad_request", f"An attempt may say at most {SAID_MAX_BYTES} bytes.")
        return _json(desk.events(found, _read(_BATCH, body)))

    @routes.get("/attempts/{token}/log", response_class=_Lines, status_code=200)
    async def log(token: str, request: Request) -> Response:
        """All that a node has said and says, for another server: one JSON line for each event."""
        found = await _found(desk, token, request)
        if isinstance(found, Elsewhere):
            raise _disagreement()
        return _Lines(_log_lines(desk, found))

    @routes.post("/attempts/{token}/finish")
    async def finish(token: str, request: Request) -> Response:
        """How an attempt ended; the same again is answered the same."""
        return _json(await desk.finish(token, _checked(_read(_FINISH, await request.body()))))

    return routes


def _read(adapter: TypeAdapter[_T], body: bytes) -> _T:
    try:
        message = adapter.validate_json(body)
    except ValidationError as error:
        raise bad_request(error) from error
    if not _sound(message):
        raise JouleboxError("bad_request", f"Every number must be finite and at most {NUMBER_MAX}: one is not.")
    return message


def _sound(value: object) -> bool:
    """Whether whoever reads this later can: a browser knows no NaN, the database no longer integers."""
    kind = type(value)
    if kind is str or value is None:
        return True
    if kind is int or kind is float:
        return abs(value) <= NUMBER_MAX  # type: ignore[arg-type]
    if kind is list or kind is tuple:
        return all(map(_sound, value))  # type: ignore[call-overload]
    if kind is dict:
        return all(map(_sound, value.values()))  # type: ignore[attr-defined]
    return all(_sound(getattr(value, one.name)) for one in fields(value)) if is_dataclass(value) else True


def _checked(finish: Finish) -> Finish:
    """What can be written down: no database takes the sign NUL in a text, which a model may well write."""
    if len(finish.finish_reason or "") > REASON_MAX:
        raise JouleboxError("bad_request", f"The field finish_reason has at most {REASON_MAX} characters.")
    problem = finish.problem
    if problem is not None:
        problem = replace(problem, detail=problem.detail.replace(NUL, INSTEAD)[:DETAIL_MAX])
    if NUL not in (finish.answer or "") + (finish.finish_reason or ""):
        return replace(finish, problem=problem) if problem is not None else finish
    return replace(
        finish,
        answer=finish.answer and finish.answer.replace(NUL, INSTEAD),
        finish_reason=finish.finish_reason and finish.finish_reason.replace(NUL, INSTEAD),
        chunks=tuple((seq, text.replace(NUL, INSTEAD)) for seq, text in finish.chunks),
        problem=problem,
    )


def _check_version(body: bytes) -> None:
    """Before anything else: another version may have other fields."""
    version = _read(_VERSION, body).get("version")
    if isinstance(version, int) and version != VERSION:
        refuse_version(version)


def _json(message: object) -> Response:
    return Response(to_json(message), media_type="application/json")


async def _found(desk: Desk, token: str, request: Request) -> Live | Elsewhere:
    """The attempt, here or at another server; what was passed on once must be here."""
    found = await desk.find(token)
    if isinstance(found, Elsewhere) and PASSED in request.headers:
        raise _disagreement()
    return found


def _disagreement() -> JouleboxError:
    return JouleboxError(
        "no_server", "The servers are sorting out who looks after this attempt: try again in a moment."
    )


async def _words(hold: Hold) -> AsyncIterator[bytes]:
    async for word in hold.words():
        yield json.dumps(word, separators=(",", ":")).encode() + b"\n"


async def _log_lines(desk: Desk, live: Live) -> AsyncIterator[bytes]:
    bell, told, so_far = desk.bell(live.attempt.job_id), 0, True
    while True:
        ring = bell.next()
        for event in live.log[told:]:
            yield to_json(event) + b"\n"
        told = len(live.log)
        if so_far:
            yield b"{}\n"
            so_far = False
        if live.over or desk.closing:
            return
        await ring


class _Lines(Response):
    """Streams lines as they come and notices at once when the other side hangs up; `ended` is told whether it did."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes], ended: Callable[[bool], None] = lambda _: None) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._lines = lines
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_hung_up(receive))
        speech = asyncio.ensure_future(self._speak(send))
        try:
            await asyncio.wait({gone, speech}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended(not (speech.done() and not speech.cancelled() and speech.exception() is None))
            gone.cancel()
            speech.cancel()

    async def _speak(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for line in self._lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
