"""What is kept of published campaigns."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, insert, select

from joulebox.server.campaigns import Campaign, CampaignCell
from joulebox.server.store.database import Database, whole
from joulebox.server.store.tables import campaign_cells, campaigns


class CampaignBooks:
    """Campaigns in the database. Every method may raise `JouleboxError("database")`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @whole
    async def publish(self, campaign: Campaign, cells: Sequence[CampaignCell]) -> None:
        """Keep a campaign, in place of what was kept of it before."""
        async with self._database.write() as connection:
            await connection.execute(delete(campaign_cells).where(campaign_cells.c.campaign == campaign.id))
            await connection.execute(delete(campaigns).where(campaigns.c.id == campaign.id))
            row = asdict(campaign) | {"notes": list(campaign.notes)}
            await connection.execute(insert(campaigns).values(row))
            if cells:
                await connection.execute(insert(campaign_cells), [asdict(cell) for cell in cells])

    @whole
    async def remove(self, campaign_id: str) -> bool:
        """Forget a campaign; `False` where there is none."""
        async with self._database.write() as connection:
            await connection.execute(delete(campaign_cells).where(campaign_cells.c.campaign == campaign_id))
            gone = await connection.execute(delete(campaigns).where(campaigns.c.id == campaign_id))
            return gone.rowcount == 1

    @whole
    async def campaigns(self) -> Sequence[Campaign]:
        """All of them, the one published last first."""
        async with self._database.read() as connection:
            newest = campaigns.c.published.desc(), campaigns.c.id
            rows = (await connection.execute(select(campaigns).order_by(*newest))).mappings()
            return [Campaign(**{name: row[name] for name in row if name != "notes"}, notes=tuple(row["notes"]))
                    for row in rows]  # fmt: skip

    @whole
    async def cells(self, category: str | None = None) -> Sequence[CampaignCell]:
        """Their cells, of one category or all, those of the newest campaign first."""
        asked = select(campaign_cells).join(campaigns, campaigns.c.id == campaign_cells.c.campaign)
        if category is not None:
            asked = asked.where(campaign_cells.c.category == category)
        place = (campaigns.c.published.desc(), campaigns.c.id, campaign_cells.c.node, campaign_cells.c.model)
        async with self._database.read() as connection:
            rows = (await connection.execute(asked.order_by(*place, campaign_cells.c.category))).mappings()
            return [CampaignCell(**row) for row in rows]
