"""Texts that are older than the operator wants to keep them are erased; receipts and evidence hold none and stay."""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.server.background import Background
from joulebox.server.store import Store
from joulebox.units import S_PER_HOUR

_log = logging.getLogger(__name__)
EVERY_S: Final = S_PER_HOUR
BATCH: Final = 100
"""So many at once, so that nobody waits long for the database."""


class Retention(Background):
    """The task, and what it does in a turn."""

    def __init__(self, store: Store, clock: Clock, days: float | None) -> None:
        super().__init__()
        self._store = store
        self._clock = clock
        self._days = days

    def start(self) -> None:
        """Begin, where there is a limit; without one there is no task at all."""
        if self._days is not None:
            super().start()

    async def turn(self) -> int:
        """Erase what is due; how many. Raises `JouleboxError("database")`."""
        if self._days is None:
            return 0
        now, erased = self._clock.utc(), 0
        while True:
            count = await self._store.erase_before(now - timedelta(days=self._days), now, BATCH)
            erased += count
            if count < BATCH:
                return erased

    async def _run(self) -> None:
        while True:
            try:
                if erased := await self.turn():
                    _log.info("the texts of %d old prompts are erased", erased)
            except JouleboxError as error:
                _log.warning("old texts are not erased now: %s", error.detail)
            await asyncio.sleep(EVERY_S)
