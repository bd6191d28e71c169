"""Which nodes an operator wants to see no more."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select, update

from joulebox.server.store.database import Database, whole
from joulebox.server.store.tables import nodes


class NodeBooks:
    """Forgotten nodes in the database. Every method may raise `JouleboxError("database")`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @whole
    async def forget(self, name: str, now: datetime) -> None:
        """Show a node no more; what it did is kept."""
        async with self._database.write() as connection:
            await connection.execute(update(nodes).where(nodes.c.name == name).values(forgotten=now))

    @whole
    async def forgotten(self) -> Mapping[str, datetime]:
        """The nodes that were forgotten, each since when."""
        query = select(nodes.c.name, nodes.c.forgotten).where(nodes.c.forgotten.is_not(None))
        async with self._database.read() as connection:
            return {row.name: row.forgotten for row in await connection.execute(query)}
