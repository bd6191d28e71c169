"""What the pages of the whole installation show: campaigns, how nodes idle, the line, the grid's day, feedback."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from joulebox.model import DatedIntensity
from joulebox.server.campaigns import Campaign, CampaignCell
from joulebox.server.desk import Desk
from joulebox.server.feedback import checked
from joulebox.server.grid.live import Grid
from joulebox.server.idle import IdleShare, shares
from joulebox.server.jobs import FASTEST, NODE_PREFIX, ZONE_PREFIX
from joulebox.server.store import Store

DAY: Final = timedelta(hours=24)


class Overview:
    """All of it, for everybody alike. Every method may raise `JouleboxError`."""

    def __init__(self, desk: Desk, store: Store, grid: Grid) -> None:
        self._desk = desk
        self._store = store
        self._grid = grid

    async def campaigns(self) -> tuple[Sequence[Campaign], Sequence[CampaignCell]]:
        """What was published, the newest campaign first, with all cells."""
        return await self._store.campaigns.campaigns(), await self._store.campaigns.cells()

    async def idle(self, node: str) -> Sequence[IdleShare]:
        """What a node drew between prompts within a day, by state and meters."""
        now = self._desk.now()
        rows = await self._store.node_idle(now - DAY, now, node)
        return shares(row for row in rows if row.start >= now - DAY)

    async def waiting(self, node: str, zone: str | None, models: Sequence[str]) -> int:
        """How many prompts wait that this node may take; of each line no more than are counted."""
        lines = {FASTEST, f"{NODE_PREFIX}{node}", f"{ZONE_PREFIX}{(zone or '').strip().upper()}"}
        crowd = await self._store.crowd()
        return sum(count for (model, line), count in crowd.items() if model in models and line in lines)

    def grid_day(self, zone: str | None) -> tuple[datetime, Sequence[DatedIntensity]]:
        """Now, and what is known of today's grid (UTC) in a zone; it is looked for, for who asks again."""
        now = self._grid.clock.utc()
        start = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self._grid.expect(zone, ahead=True)
        return now, self._grid.series(zone, start, start + DAY)

    async def leave(self, form: Mapping[str, str]) -> None:
        """Keep a message for the operator. Raises `JouleboxError("bad_request")` for one that is empty or too long."""
        message, contact = checked(form.get("message", ""), form.get("contact", ""))
        await self._store.feedback.leave(message, contact, self._desk.now())
