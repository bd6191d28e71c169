"""Several servers on one queue: what reaches the wrong one is passed on to the one that looks after the attempt.

Nodes speak to any server (a balancer chooses); people watch through any. A token is the key to its attempt's routes, so
servers use those of the nodes among themselves. Nothing here runs where one server is alone.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from joulebox.errors import JouleboxError
from joulebox.protocol import NodeEvent
from joulebox.server.delivery import Wanted
from joulebox.server.desk import Desk
from joulebox.server.jobs import Attempt
from joulebox.server.live import PHASES, Elsewhere, Live

if TYPE_CHECKING:
    import httpx2

_log = logging.getLogger(__name__)
PASSED: Final = "joulebox-passed"
"""A request with this header has been passed on once, and is not passed on again; it holds the servers' secret."""
CONNECT_S: Final = 2.0
FIRST_S: Final = 0.5
"""A person who watches waits so long for what was said so far, then sees what there is."""


class Replicas:
    """The other servers, as far as this one speaks to them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.secret = ""
        self._client: httpx2.AsyncClient | None = None
        self._mirrors: dict[str, _Mirror] = {}

    async def close(self) -> None:
        """End every connection to the others."""
        for mirror in list(self._mirrors.values()):
            mirror.task.cancel()
            with suppress(asyncio.CancelledError):
                await mirror.task
        if self._client is not None:
            await self._client.aclose()

    async def events(self, where: Elsewhere, body: bytes) -> tuple[int, bytes]:
        """Pass on what a node says; status and body of the reply. Raises `JouleboxError("no_server")`."""
        import httpx2

        try:
            reply = await self._http().post(f"{_attempt(where)}/events", content=body)
        except httpx2.HTTPError as error:
            raise _silent(where) from error
        return reply.status_code, reply.content

    async def hold(self, where: Elsewhere) -> AsyncIterator[bytes]:
        """The words for a node, from the server that looks after it; ends when that server ends them or dies."""
        import httpx2

        with suppress(httpx2.HTTPError):
            async with self._http().stream("GET", f"{_attempt(where)}/hold") as reply:
                if reply.status_code == 200:
                    async for line in reply.aiter_lines():
                        yield line.encode() + b"\n"

    async def follow(self, job_id: str) -> Live | None:
        """What the attempt at this job says that another server looks after: a copy that grows as it goes. `None` where
        this server looks after it, or nobody."""
        mirror = self._mirrors.get(job_id)
        if mirror is None:
            where = await self._desk.elsewhere(job_id)
            if where is None:
                return None
            mirror = self._mirrors.get(job_id) or self._open(job_id, where)
        await asyncio.wait({mirror.task, mirror.begun}, timeout=FIRST_S, return_when=asyncio.FIRST_COMPLETED)
        return mirror.live

    def _open(self, job_id: str, where: Elsewhere) -> "_Mirror":
        mirror = self._mirrors[job_id] = _Mirror(where.attempt)
        mirror.task = asyncio.create_task(self._copy(job_id, where, mirror))
        return mirror

    async def _copy(self, job_id: str, where: Elsewhere, mirror: "_Mirror") -> None:
        import httpx2

        try:
            async with self._http().stream("GET", f"{_attempt(where)}/log") as reply:
                if reply.status_code == 200:
                    async for line in reply.aiter_lines():
                        mirror.take(json.loads(line))
                        self._desk.ring(job_id)
        except (httpx2.HTTPError, ValueError) as error:
            _log.warning("server %s stopped telling of job %s: %s", where.url, job_id, error)
        finally:
            mirror.live.over = True
            del self._mirrors[job_id]
            self._desk.ring(job_id)

    def _http(self) -> "httpx2.AsyncClient":
        if self._client is None:
            import httpx2

            self._client = httpx2.AsyncClient(
                headers={PASSED: self.secret},
                timeout=httpx2.Timeout(None, connect=CONNECT_S),
                limits=httpx2.Limits(max_connections=None),
                trust_env=False,
            )
        return self._client


class _Mirror:
    """A copy of an attempt that another server looks after."""

    def __init__(self, attempt: Attempt) -> None:
        self.live = Live(attempt=attempt, wanted=Wanted(""), cancel=False)
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None]

    def take(self, said: dict[str, Any]) -> None:
        """One event, or the word that all events so far were told."""
        if "seq" in said:
            event = NodeEvent(**said)
            self.live.log.append(event)
            self.live.phase = PHASES.get(event.kind, self.live.phase)
        elif not self.begun.done():
            self.begun.set_result(None)


def _attempt(where: Elsewhere) -> str:
    return f"{where.url}/node/v1/attempts/{where.attempt.token}"


def _silent(where: Elsewhere) -> JouleboxError:
    return JouleboxError("no_server", f"The server {where.url}, which looks after this attempt, does not answer.")
