"""What is kept of nodes that sleep, and what waits for them."""

from collections.abc import Callable, Collection, Mapping

from pydantic import TypeAdapter

from joulebox.server.sleep import Sleep
from joulebox.server.store import queries
from joulebox.server.store.database import Database, whole

_SLEEP = TypeAdapter(Sleep)


class SleepBooks:
    """Sleeping nodes in the database. Every method may raise `JouleboxError("database")`. Other servers are told of a
    change by `tell`."""

    def __init__(self, database: Database, tell: Callable[[str, str], None]) -> None:
        self._database = database
        self._tell = tell

    @whole
    async def sleeps(self) -> Mapping[str, Sleep]:
        """Every node that ever slept."""
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.sleeps())).mappings()
            return {row["node"]: _SLEEP.validate_python(row["sleep"]) for row in rows}

    @whole
    async def keep_sleep(self, node: str, sleep: Sleep) -> None:
        """Note how a node sleeps."""
        values = {"node": node, "sleep": _SLEEP.dump_python(sleep, mode="json")}
        async with self._database.write() as connection:
            await connection.execute(queries.save_sleep(connection.dialect.name, values))
        self._tell("node", node)

    @whole
    async def waiting(self, lines: Collection[tuple[str, str]]) -> Collection[tuple[str, str]]:
        """Those of these models and lines in which something waits; what that costs does not grow with the line."""
        if not lines:
            return ()
        async with self._database.read() as connection:
            rows = (await connection.execute(queries.waiting(lines))).mappings()
            return {(row["model"], row["placement"]) for row in rows}
