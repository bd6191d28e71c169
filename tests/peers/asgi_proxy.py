"""The least that a gateway in Python can be: bare ASGI on uvicorn, aiohttp behind it. Run by `make bench` with the
Python of an environment of its own.

    asgi_proxy.py UPSTREAM PORT
"""

import sys
from typing import Any

import aiohttp
import uvicorn

UPSTREAM = sys.argv[1]
sessions: list[aiohttp.ClientSession] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Hand a request on, and its answer back piece by piece."""
    if scope["type"] != "http":
        return
    if not sessions:  # made in the loop that uses it
        sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = {"content-type": "application/json"}
    async with sessions[0].request(scope["method"], UPSTREAM + scope["path"], data=body, headers=headers) as reply:
        kind = reply.headers.get("content-type", "application/json").encode()
        await send({"type": "http.response.start", "status": reply.status, "headers": [(b"content-type", kind)]})
        async for piece in reply.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", lifespan="off", loop="uvloop")
