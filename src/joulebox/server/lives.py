"""Hands every prompt that ends through this server to whoever exports its life; nobody waits for that."""

import asyncio
import logging
from typing import Final, Protocol

from joulebox.logs import about
from joulebox.server.jobs import Record
from joulebox.server.store import Store
from joulebox.server.store.seeing_books import Life

_log = logging.getLogger(__name__)
AT_ONCE: Final = 4
CLOSE_S: Final = 2.0
"""So long the end of a server waits for what is not told yet."""


class Listener(Protocol):
    """Who is told. Its calls may block."""

    def tell(self, life: Life) -> None:
        """A prompt is over."""

    def close(self) -> None:
        """Nothing more comes."""


class Lives:
    """What was told, and what is still to tell; without a listener nothing at all."""

    def __init__(self, store: Store, listener: Listener | None) -> None:
        self._books = store.seeing
        self._listener = listener
        if listener is not None:
            store.ended = self.ended
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def ended(self, record: Record) -> None:
        """Tell of this prompt soon."""
        task = asyncio.get_running_loop().create_task(self._tell(record.job.id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Tell what is left, within `CLOSE_S`."""
        if self._listener is None:
            return
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        try:
            await asyncio.wait_for(asyncio.to_thread(self._listener.close), CLOSE_S)
        except TimeoutError:
            _log.warning("what was told last of prompts could not be exported")

    async def _tell(self, job_id: str) -> None:
        try:
            async with self._turns:
                life = await self._books.life(job_id)
                if life is not None and self._listener is not None:
                    await asyncio.to_thread(self._listener.tell, life)
        except Exception:  # noqa: BLE001 - whoever looks on must not disturb the work
            _log.exception("the life of a prompt could not be exported", extra=about(job=job_id))
