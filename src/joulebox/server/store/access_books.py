"""What is kept about access: tokens (only their hashes), the audit log, the secret that servers share."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Insert, RowMapping, insert

from joulebox.server.access import Act, Token, Usage
from joulebox.server.quota import Spent
from joulebox.server.store import queries
from joulebox.server.store.database import Database, whole
from joulebox.server.store.tables import audit, tokens


class AccessBooks:
    """Tokens and acts in the database. Every method may raise `JouleboxError("database")`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @whole
    async def secret(self, name: str, new: str) -> str:
        """The secret of that name that all servers on this database share; `new` where there is none yet."""
        async with self._database.write() as connection:
            await connection.execute(queries.add_secret(connection.dialect.name, name, new))
            found = await connection.execute(queries.secret(name))
            return str(found.scalar_one())

    @whole
    async def token(self, token_id: str) -> Token | None:
        """One token, revoked ones too."""
        async with self._database.read() as connection:
            row = (await connection.execute(queries.token(token_id))).mappings().first()
            return _token(row) if row else None

    @whole
    async def tokens(self) -> Sequence[Token]:
        """Every token there ever was, oldest first."""
        async with self._database.read() as connection:
            return [_token(row) for row in (await connection.execute(queries.all_tokens())).mappings()]

    @whole
    async def add_token(self, token: Token, act: Act) -> None:
        """Keep a new token, and who made it."""
        async with self._database.write() as connection:
            await connection.execute(insert(tokens).values(asdict(token) | {"scopes": list(token.scopes)}))
            await connection.execute(_line(act))

    @whole
    async def revoke(self, token_id: str, act: Act) -> bool:
        """A token opens nothing from now on; `False` where it did not before."""
        async with self._database.write() as connection:
            if (await connection.execute(queries.revoke(token_id, act.at))).rowcount != 1:
                return False
            await connection.execute(_line(act))
            return True

    @whole
    async def used(self, token_id: str, now: datetime) -> None:
        """Note that a token was used."""
        async with self._database.write() as connection:
            await connection.execute(queries.use(token_id, now))

    @whole
    async def usage(self, asker: str, since: datetime) -> Usage:
        """What an asker has in hand, and has asked since a moment."""
        async with self._database.read() as connection:
            waiting = (await connection.execute(queries.unfinished(asker))).mappings()
            asked = (await connection.execute(queries.asked_since(asker, since))).mappings().one()
            outstanding = sum(row["count"] for row in waiting)
            return Usage(outstanding=outstanding, asked=asked["count"], first=asked["first"])

    @whole
    async def spent(self, asker: str, since: datetime) -> Spent:
        """What an asker's prompts took that ended since a moment, oldest first, and what is still to come."""
        async with self._database.read() as connection:
            ended = (await connection.execute(queries.answered_since(asker, since))).mappings().all()
            waiting = (await connection.execute(queries.unfinished(asker))).mappings()
            return Spent(
                ended=[(row["finalized"], row["charged_j"]) for row in ended if row["charged_j"] is not None],
                unknown=sum(row["charged_j"] is None for row in ended),
                pending={row["model"]: row["count"] for row in waiting},
            )

    @whole
    async def note(self, act: Act) -> None:
        """Add a line to the audit log."""
        async with self._database.write() as connection:
            await connection.execute(_line(act))

    @whole
    async def acts(self, limit: int, before: int | None) -> tuple[Sequence[Act], int | None]:
        """Up to `limit` lines of the audit log, newest first, and the number of the next page's first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.acts(limit, before))).mappings().all()
        following = rows[limit]["number"] if len(rows) > limit else None
        return [Act(**row) for row in rows[:limit]], following


def _token(row: RowMapping) -> Token:
    return Token(**{name: row[name] for name in row if name != "scopes"}, scopes=tuple(row["scopes"]))


def _line(act: Act) -> Insert:
    """A further line of the audit log; the database numbers it."""
    return insert(audit).values({name: value for name, value in asdict(act).items() if name != "number"})
