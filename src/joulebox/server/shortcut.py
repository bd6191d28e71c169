"""The shortcut of the nodes' routes: past everything that only people's requests need.

A prompt costs a node four requests. Their bodies are read and answered by the handlers themselves, so that matching
among all routes, dependencies, compression and the layers of the framework would be most of what they cost.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from joulebox.errors import JouleboxError
from joulebox.server.gate import Gate
from joulebox.server.problems import Shell, told

PREFIX: Final = "/node/v1/"


class Shortcut:
    """An application before the application: it takes what its routes match, with the same gate, bounds and headers."""

    def __init__(self, app: FastAPI, gate: Gate, routes: Sequence[Any], large: Sequence[str]) -> None:
        self._app = app
        self._gate = gate
        self._routes = [route for route in routes if isinstance(route, APIRoute)]
        self._node: ASGIApp = Shell(self._handle, large)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            for route in self._routes:
                found = route.path_regex.match(scope["path"])
                if found is not None and scope["method"] in (route.methods or ()):
                    scope.update({"route": route, "path_params": found.groupdict(), "app": self._app})
                    await self._node(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            await self._gate(request, Response())
            response = await scope["route"].endpoint(**scope["path_params"], request=request)
        except (JouleboxError, HTTPException) as error:
            response = told(request, error)
        await response(scope, receive, send)
