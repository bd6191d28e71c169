"""The routes for nodes: lease, hold, events, finish. Bodies are the dataclasses of `protocol`."""

import asyncio
import json
from dataclasses import asdict, is_dataclass
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from joulebox.errors import JouleboxError
from joulebox.protocol import VERSION, Batch, Finish, LeaseRequest, to_json
from joulebox.server.desk import Desk, Hold, refuse_version
from joulebox.server.problems import bad_request

_LEASE_REQUEST: Final = TypeAdapter(LeaseRequest)
_BATCH: Final = TypeAdapter(Batch)
_FINISH: Final = TypeAdapter(Finish)
_VERSION: Final = TypeAdapter(dict[str, Any])
_T = TypeVar("_T")
LARGE: Final = "/node/v1/attempts/"
"""Addresses below this take large bodies."""
NUMBER_MAX: Final = 2**63 - 1


def router(desk: Desk) -> APIRouter:
    """All routes for nodes."""
    routes = APIRouter(prefix="/node/v1")

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

    @routes.get("/attempts/{token}/hold")
    async def hold(token: str) -> Response:
        """Held open while the node works: one JSON line for each word of the server."""
        return _HoldResponse(desk, desk.open_hold(token))

    @routes.post("/attempts/{token}/events")
    async def events(token: str, request: Request) -> Response:
        """What a watching person may see, in order."""
        return _json(desk.events(token, _read(_BATCH, await request.body())))

    @routes.post("/attempts/{token}/finish")
    async def finish(token: str, request: Request) -> Response:
        """How an attempt ended; the same again is answered the same."""
        return _json(await desk.finish(token, _read(_FINISH, await request.body())))

    return routes


def _read(adapter: TypeAdapter[_T], body: bytes) -> _T:
    try:
        message = adapter.validate_json(body)
    except ValidationError as error:
        raise bad_request(error) from error
    if not _sound(asdict(message) if is_dataclass(message) and not isinstance(message, type) else message):
        raise JouleboxError("bad_request", f"Every number must be finite and at most {NUMBER_MAX}: one is not.")
    return message


def _sound(value: object) -> bool:
    """Whether whoever reads this later can: a browser knows no NaN, the database no longer integers."""
    if isinstance(value, dict):
        return all(map(_sound, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_sound, value))
    return not isinstance(value, int | float) or abs(value) <= NUMBER_MAX


def _check_version(body: bytes) -> None:
    """Before anything else: another version may have other fields."""
    version = _read(_VERSION, body).get("version")
    if isinstance(version, int) and version != VERSION:
        refuse_version(version)


def _json(message: object) -> Response:
    return Response(to_json(message), media_type="application/json")


class _HoldResponse(Response):
    """Streams the words of a hold and notices at once when the node hangs up."""

    media_type = "application/x-ndjson"

    def __init__(self, desk: Desk, hold: Hold) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._desk = desk
        self._hold = hold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_hung_up(receive))
        speech = asyncio.ensure_future(self._speak(send))
        try:
            await asyncio.wait({gone, speech}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._desk.let_go(
                self._hold, cut=not (speech.done() and not speech.cancelled() and speech.exception() is None)
            )
            gone.cancel()
            speech.cancel()

    async def _speak(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for word in self._hold.words():
            line = json.dumps({"say": word}, separators=(",", ":")).encode() + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
