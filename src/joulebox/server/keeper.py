"""The one background task of the grid: it asks live sources for what is expected, and looks again at receipts for which
better data may come, for two days after their run. It sleeps until somebody rings or the next receipt is due."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.logs import about
from joulebox.model import Intensity
from joulebox.server.background import Background
from joulebox.server.grid.chain import RANK
from joulebox.server.grid.live import ASK_EVERY, LIVE, Grid
from joulebox.server.jobs import Recheck
from joulebox.server.recompute import anything_new, recompute
from joulebox.server.store import Store

_log = logging.getLogger(__name__)

AGES: Final = tuple(timedelta(hours=hours) for hours in (0.25, 1, 3, 6, 12, 23, 36, 48))
"""So long after its run a receipt is looked at again (23: free plans reach back 24 h); after the last one, no more."""
TROUBLED_S: Final = 300.0
"""After a failure of its own (the database is away) the task rests so long."""


class Keeper(Background):
    """The task, and what it does in a turn."""

    def __init__(self, grid: Grid, store: Store) -> None:
        super().__init__()
        self._grid = grid
        self._store = store

    def start(self) -> None:
        """Begin, where any live source is turned on; without one there is no task at all."""
        if self._grid.live:
            super().start()

    async def turn(self) -> float | None:
        """Do what is due; seconds until the next receipt is due, `None` where none waits.

        Raises `JouleboxError("database")`.
        """
        await self._grid.fetch_wanted()
        now = self._grid.clock.utc()
        due = await self._store.due_rechecks(now)
        for zone in dict.fromkeys(one.zone for one in due):
            mine = [one for one in due if one.zone == zone]
            asked = await self._grid.fetch(zone, min(one.start for one in mine), max(one.until for one in mine))
            for one in mine:
                await self._look(one, now, asked=asked)
        following = await self._store.next_recheck()
        return max((following - now).total_seconds(), 1.0) if following is not None else None

    async def _look(self, one: Recheck, now: datetime, *, asked: bool) -> None:
        """Make a receipt again where better data have come; say when to look next. Not `asked`: it is too soon."""
        following = next((one.until + age for age in AGES if one.until + age > now), None)
        wanted = better if following is not None else settled
        try:
            outcome = await recompute(self._store, self._grid.look_up, one.receipt_id, now, wanted)
        except JouleboxError as error:
            if error.code == "database":
                raise
            _log.warning("receipt is not looked at again: %s", error.detail, extra=about(receipt=one.receipt_id))
            following = None
        else:
            if outcome.carbon["intensity"]["quality"] in LIVE:
                following = None
            elif not asked and not outcome.changed:
                following = now + ASK_EVERY
        await self._store.set_recheck(one.receipt_id, following)

    async def _run(self) -> None:
        while True:
            self._grid.bell.clear()
            try:
                wait_s = await self.turn()
            except Exception as error:  # noqa: BLE001 - prompts do not need this task, and it must not end
                _log.warning("grid data: this turn failed: %s", error, exc_info=not isinstance(error, JouleboxError))
                await asyncio.sleep(TROUBLED_S)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._grid.bell.wait(), wait_s)


def better(before: Sequence[Intensity], now: Sequence[Intensity]) -> bool:
    """Whether what is known now is surer. The operator's own figure changes no receipt by itself."""
    return "static" not in {one.quality for one in now} and _worst(now) > _worst(before)


def settled(before: Sequence[Intensity], now: Sequence[Intensity]) -> bool:
    """The last look: what has changed is taken too, unless it is less sure."""
    return better(before, now) or (_worst(now) == _worst(before) and anything_new(before, now))


def _worst(intensities: Sequence[Intensity]) -> int:
    return min(RANK[one.quality] for one in intensities)
