"""Failures over HTTP: RFC 9457 problem documents for everything, and the shell around the application that sees to it.

The shell also bounds request bodies and adds the headers that every response carries.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Never

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from joulebox.errors import REGISTRY, JouleboxError
from joulebox.logs import about
from joulebox.protocol import VERSION
from joulebox.server.foreign.problems import REFUSED, form_of
from joulebox.server.texts import NO_NUL, NUL

_log = logging.getLogger(__name__)

HEAR_OUT_BYTES: Final = 8_000_000
HEAR_OUT_S: Final = 2.0
"""So much of a request that is too large is read to its end before it is refused."""
SILENT_S: Final = 30.0
"""Who says nothing for so long in the middle of a request is not waited for: waiting costs a place among the held."""
PUBLIC_BODY_MAX_BYTES: Final = 1024 * 1024
NODE_BODY_MAX_BYTES: Final = 64 * 1024 * 1024
"""A trace and its answer; more than seven hours of readings do not fit a trace anyway."""
HEADERS: Final = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


MEDIA_TYPE: Final = "application/problem+json"
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "A problem document (RFC 9457).",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail", "code"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string", "description": "What is wrong and what to do, in one sentence."},
                        "code": {"type": "string", "enum": sorted(REGISTRY)},
                    },
                }
            }
        },
    }
}
"""What every route may answer, as `/openapi.json` tells it."""

NewRouter = Callable[..., APIRouter]
"""Makes a router whose routes have the gate before them; takes what `APIRouter` takes beside that."""


class Problem(JSONResponse):
    """A problem document."""

    media_type = MEDIA_TYPE


def problem(error: JouleboxError) -> Problem:
    """The failure as RFC 9457 says it; `code` is the name of the failure, `detail` the sentence for the person."""
    document = {
        "type": f"urn:joulebox:problem:{error.code}",
        "title": error.failure.title,
        "status": error.failure.status,
        "detail": error.detail,
        "code": error.code,
    }
    return Problem({**error.extra, **document}, error.failure.status, headers_of(error))


def answered(error: JouleboxError, path: str) -> Response:
    """The failure in the form that whoever uses this address reads."""
    form = form_of(path)
    return problem(error) if form is None else form(error, headers_of(error))


def headers_of(error: JouleboxError) -> dict[str, str]:
    """What a failure says in headers: when to come again, and that a token is the way in."""
    wait_s = error.extra.get("retry_after_s")
    headers = {"Retry-After": str(wait_s)} if wait_s is not None else {}
    return headers | ({"WWW-Authenticate": 'Bearer realm="joulebox"'} if error.failure.status == 401 else {})


def bad_request(error: ValidationError | RequestValidationError) -> JouleboxError:
    """The first thing that is wrong with a request, in one sentence that names the field."""
    first: Mapping[str, Any] = error.errors()[0]
    kind, place = first["type"], [part for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    name = ".".join(str(part) for part in place)
    if kind == "json_invalid" or not name:
        return JouleboxError("bad_request", "The body must be a JSON object, sent as application/json.")
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        return JouleboxError("bad_request", f"There is no field {name}: leave it out.", field=name)
    if kind == "missing":
        return JouleboxError("bad_request", f"The field {name} is missing.", field=name)
    message = str(first["msg"])
    sentence = f"The field {name} cannot be used: {message[:1].lower()}{message[1:]}."
    return JouleboxError("bad_request", sentence, field=name)


def install(app: FastAPI, page: Callable[[Request, JouleboxError], Response]) -> None:
    """Have every failure of `app` answered by a problem document; where a page was asked for, by a `page`."""

    @app.exception_handler(JouleboxError)
    async def named(request: Request, error: Exception) -> Response:
        assert isinstance(error, JouleboxError)
        _note(error)
        route = request.scope.get("route")
        if route is not None and not getattr(route, "include_in_schema", True):
            answer = page(request, error)
            answer.headers.update(headers_of(error))
            return answer
        return answered(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answered(bad_request(error), request.url.path)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _of_http(request, error)


def told(request: Request, error: JouleboxError | HTTPException) -> Response:
    """What a program is told of a failure."""
    if isinstance(error, HTTPException):
        return _of_http(request, error)
    _note(error)
    return answered(error, request.url.path)


def _note(error: JouleboxError) -> None:
    if error.failure.status >= 500 and error.code in {"database", "internal"}:
        _log.error("%s: %s", error.code, error.detail)


def _of_http(request: Request, error: HTTPException) -> Response:
    if error.status_code < 400:
        return Response(status_code=error.status_code)
    answer = answered(_of_status(request, error), request.url.path)
    answer.headers.update(error.headers or {})
    return answer


def _of_status(request: Request, error: HTTPException) -> JouleboxError:
    match error.status_code:
        case 404:
            if (why := REFUSED.get(request.url.path)) is not None:
                return JouleboxError("not_supported", why)
            return JouleboxError("not_found", f"There is nothing at {request.url.path}.")
        case 405:
            allowed = Headers(error.headers or {}).get("allow", "another method")
            return JouleboxError("method_not_allowed", f"{request.url.path} takes {allowed}, not {request.method}.")
        case 413:
            return JouleboxError("body_too_large", str(error.detail))
        case status if status < 500:
            return JouleboxError("bad_request", f"The request cannot be read: {error.detail}.")
        case _:
            return JouleboxError("internal", "Something broke inside Joulebox; the server's log says what.")


class Shell:
    """The outermost layer: bounded bodies, headers on every response, a problem document for what nobody caught."""

    def __init__(self, app: ASGIApp, large: Sequence[str] = ()) -> None:
        self._app = app
        self._large = tuple(large)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        limit_bytes = NODE_BODY_MAX_BYTES if scope["path"].startswith(self._large) else PUBLIC_BODY_MAX_BYTES
        try:
            if NUL in scope["path"] or b"%00" in scope.get("query_string", b""):
                await answered(_unkept(), "")(scope, receive, send_with_headers)
                return
            if _declared_bytes(scope) > limit_bytes:
                await _sent(receive)
                await answered(_too_large(limit_bytes), scope["path"])(scope, receive, send_with_headers)
                return
            await self._app(scope, _bounded(receive, limit_bytes), send_with_headers)
        except ClientDisconnect:
            return  # hung up in the middle of a request: there is nobody to answer
        except Exception as error:
            if begun and (named := _named(error)) is not None:  # whoever reads the stream sees it cut, and comes again
                _log.warning("%s %s was cut: %s", scope["method"], _place(scope), named.detail, extra=_about(scope))
                raise
            _log.exception("unexpected failure at %s %s", scope["method"], _place(scope), extra=_about(scope))
            if begun:
                raise
            broken = JouleboxError("internal", "Something broke inside Joulebox; the server's log says what.")
            await answered(broken, scope["path"])(scope, receive, send_with_headers)


def _named(error: BaseException) -> JouleboxError | None:
    """The failure with a name that ended a stream; a stream's tasks put it into groups."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, JouleboxError) else None


def _place(scope: Scope) -> str:
    """Where a request went, without what is secret in it: the token of an attempt, the link to a receipt."""
    route = scope.get("route")
    return str(route.path) if route is not None else str(scope["path"])


def _about(scope: Scope) -> dict[str, Any]:
    parts = scope.get("path_params", {})
    return about(job=parts.get("prompt_id"), receipt=parts.get("receipt_id"), node=parts.get("name"))


def _declared_bytes(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "0")
    return int(text) if text.isdecimal() and text.isascii() else 0


async def _sent(receive: Receive) -> None:
    """Let the other side say what it is saying, up to a bound: an answer that comes before is lost with the line."""
    got_bytes = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(HEAR_OUT_S):
            while got_bytes <= HEAR_OUT_BYTES:
                message = await receive()
                got_bytes += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def _unkept() -> JouleboxError:
    return JouleboxError("bad_request", f"The address cannot be used: {NO_NUL}.")


def _too_large(limit_bytes: int) -> JouleboxError:
    return JouleboxError("body_too_large", f"The request is larger than {limit_bytes} bytes: send less.")


def _bounded(receive: Receive, limit_bytes: int) -> Receive:
    got_bytes, whole = 0, False

    async def bounded() -> Message:
        nonlocal got_bytes, whole
        if whole:  # what comes now is that they hang up, which may take as long as it likes
            return await receive()
        try:
            async with asyncio.timeout(SILENT_S):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, f"nothing more came within {SILENT_S:g} s") from error
        whole = not message.get("more_body", False)
        got_bytes += len(message.get("body", b""))
        if got_bytes > limit_bytes:
            raise HTTPException(413, _too_large(limit_bytes).detail)
        return message

    return bounded


def refuse_version(version: int) -> Never:
    """Raises `JouleboxError("protocol_version")`: a node of another version."""
    older = "node" if version < VERSION else "server"
    raise JouleboxError(
        "protocol_version",
        f"The node speaks version {version}, the server version {VERSION}: update the {older}.",
        version=VERSION,
    )
