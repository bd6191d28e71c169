"""A node that speaks the protocol and answers whatever is asked, as long as a block lasts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2

from joulebox.protocol import to_json
from server_stage import Json, Stage, done, offer, story

WAIT_S = 5.0


@asynccontextmanager
async def answering(scene: Stage, *words: str, **headers: str) -> AsyncIterator[None]:
    """It says these words to everything; `headers` are its own."""
    http = httpx2.AsyncClient(base_url=scene.url, timeout=60.0, verify=False, headers=headers)
    node = replace(scene, http=http)
    await node.join()
    work = asyncio.create_task(_work(node, words))
    try:
        yield
    finally:
        work.cancel()
        await asyncio.wait({work})
        await http.aclose()


async def _work(node: Stage, words: tuple[str, ...]) -> None:
    while True:
        reply = await node.http.post("/node/v1/lease", content=to_json(offer(wait_s=WAIT_S)))
        if reply.status_code == 200:
            await _answer(node, reply.json(), words)


async def _answer(node: Stage, lease: Json, words: tuple[str, ...]) -> None:
    async with node.hold(lease):
        await node.send(lease, story(*words))
        await node.finish(lease, done(lease, *words))
