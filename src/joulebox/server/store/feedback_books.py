"""What people told the operator."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, insert, select

from joulebox.server.feedback import KEPT_MAX, Message
from joulebox.server.store.database import Database, whole
from joulebox.server.store.tables import feedback


class FeedbackBooks:
    """Messages in the database. Every method may raise `JouleboxError("database")`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @whole
    async def leave(self, message: str, contact: str | None, now: datetime) -> None:
        """Keep a message; of very many the oldest go."""
        async with self._database.write() as connection:
            await connection.execute(insert(feedback).values(at=now, message=message, contact=contact))
            newest = (await connection.execute(select(func.max(feedback.c.number)))).scalar_one()
            await connection.execute(delete(feedback).where(feedback.c.number <= newest - KEPT_MAX))

    @whole
    async def messages(self) -> Sequence[Message]:
        """All of them, the newest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(feedback).order_by(feedback.c.number.desc()))).mappings()
            return [Message(**row) for row in rows]

    @whole
    async def remove(self, number: int) -> bool:
        """Forget a message; `False` where there is none."""
        async with self._database.write() as connection:
            gone = await connection.execute(delete(feedback).where(feedback.c.number == number))
            return gone.rowcount == 1
