"""The shared database: Postgres through asyncpg, for several servers at once.

A connection that was cut (a restart of the database) is noticed before it is used again. What fails is one sentence,
without the password.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from joulebox.errors import JouleboxError
from joulebox.server.store.queries import CHANNEL, REPLICAS
from joulebox.server.store.schema import migrate, shown
from joulebox.server.store.steps import How, Steps

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
AGAIN_S: Final = 0.5
DRIVER: Final = "postgresql+asyncpg"
CONNECTIONS: Final = 4
BUSY_CONNECTIONS: Final = 8
"""For what every prompt costs; the others are for what people look up."""
BY_INDEX: Final = {"enable_seqscan": "off", "enable_bitmapscan": "off", "plan_cache_mode": "force_generic_plan"}
"""What every prompt costs is found by an index, whatever Postgres has counted so far, and planned once."""
CONNECT_S: Final = 5.0
STATEMENT_S: Final = 10.0
TURN_S: Final = 30.0
"""So long a transaction waits for one of the connections; nodes deliver again, people read that it is too slow."""
MIGRATION_LOCK: Final = 0x4A6F756C65
"""One server at a time brings the schema up to date; the others wait for it (an advisory lock's number)."""


class Postgres:
    """A Postgres database. `read` and `write` give a connection inside a transaction that is committed at the end."""

    shared = True
    keeps = False

    def __init__(self, url: URL) -> None:
        if url.drivername not in {"postgresql", "postgres", DRIVER}:
            raise JouleboxError("bad_setting", f"Setting database_url uses {url.drivername}: use {DRIVER}.")
        # SQLAlchemy hands the driver `ssl`, the driver's own URLs call it `sslmode`.
        self._url = url.set(drivername=DRIVER, query=_renamed(url, "sslmode", "ssl"))
        self._engine: AsyncEngine | None = None
        self._at_once: AsyncEngine | None = None
        self._busy: Any = None
        self._listening: asyncio.Task[None] | None = None
        self._ears: Any = None
        self._unsaid: list[str] = []
        self._saying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises `JouleboxError("database")` with one sentence, `bad_setting` where the driver is not installed.
        """
        try:
            self._engine = create_async_engine(
                self._url,
                hide_parameters=True,
                pool_size=CONNECTIONS,
                max_overflow=0,
                pool_timeout=TURN_S,
                connect_args={"timeout": CONNECT_S, "command_timeout": STATEMENT_S},
            )
            event.listen(self._engine.sync_engine, "checkout", _refuse_cut)
            self._at_once = self._engine.execution_options(isolation_level="AUTOCOMMIT")
            self._busy = await _busy(self._address)
        except ModuleNotFoundError as error:
            raise _not_installed() from error
        try:
            async with self.write() as connection:
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
                await connection.run_sync(migrate, shown(self._url))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection."""
        if self._saying is not None:
            await asyncio.wait({self._saying}, timeout=CONNECT_S)
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
            self._listening = None
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = self._at_once = None
        if self._busy is not None:
            busy, self._busy = self._busy, None
            with suppress(TimeoutError):
                await asyncio.wait_for(busy.close(), CONNECT_S)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to look with, each statement by itself: between two of them others may change something.

        Raises `JouleboxError("database")`.
        """
        async with self._begin(at_once=True) as connection:
            yield connection

    async def carry_out(self, steps: Steps[_T], how: How) -> _T:
        """The steps on a connection of their own. Raises `JouleboxError("database")`."""
        if self._busy is None or self._engine is None:
            raise _closed()
        import asyncpg

        try:
            async with self._busy.acquire(timeout=TURN_S) as connection:
                if how != "change":
                    return await self._drive(connection, steps)
                async with connection.transaction():
                    return await self._drive(connection, steps)
        except asyncpg.IntegrityConstraintViolationError:
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise JouleboxError("database", self._sentence(error)) from error

    async def _drive(self, connection: Any, steps: Steps[_T]) -> _T:
        assert self._engine is not None
        dialect, rows = self._engine.dialect, None
        try:
            while True:
                statement, values = next(steps) if rows is None else steps.send(rows)
                words = statement.words(dialect)
                rows = words.rows(await connection.fetch(words.text, *words.arguments(values)))
        except StopIteration as end:
            result: _T = end.value
            return result

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """All of it happens or nothing. Raises `JouleboxError("database")`."""
        async with self._begin() as connection:
            yield connection

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[AsyncConnection]:
        """Everything as it is at one moment, however long that is looked at and whoever writes; nothing can be changed,
        and the schema is what it is. Needs no `open`.

        Raises `JouleboxError("database")`, `bad_setting` where the driver is not installed.
        """
        try:
            engine = create_async_engine(
                self._url,
                hide_parameters=True,
                poolclass=NullPool,
                isolation_level="REPEATABLE READ",
                connect_args={"timeout": CONNECT_S},
            )
        except ModuleNotFoundError as error:
            raise _not_installed() from error
        try:
            async with engine.connect() as connection:
                await connection.execution_options(postgresql_readonly=True)
                async with connection.begin():
                    yield connection
        except (DBAPIError, OSError, TimeoutError) as error:
            raise JouleboxError("database", self._sentence(error)) from error
        finally:
            await engine.dispose()

    async def listen(self, number: int, heard: Callable[[str | None], None]) -> None:
        """Hold the advisory lock `number` and hear what is said, on a connection of its own that is made again when it
        is cut. Raises `JouleboxError("database")` where it cannot be made now."""
        try:
            self._ears = await self._listener(number, heard)
        except Exception as error:
            raise JouleboxError("database", self._sentence(error)) from error
        self._listening = asyncio.create_task(self._keep_listening(number, heard))

    def say(self, news: str) -> None:
        """Tell the others, outside any transaction: a NOTIFY inside would let one commit wait for the other. What comes
        while one statement is under way goes out with the next; what cannot be said now is said when it can."""
        self._unsaid.append(news)
        if self._saying is None:
            self._saying = asyncio.create_task(self._say())

    async def _say(self) -> None:
        statement = "SELECT pg_notify($1, news) FROM unnest($2::text[]) AS news"
        try:
            while self._unsaid and self._ears is not None and not self._ears.is_closed():
                news, self._unsaid = self._unsaid, []
                try:
                    await self._ears.execute(statement, CHANNEL, news, timeout=STATEMENT_S)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is said again
                    _log.warning("%s", self._sentence(error))
                    self._unsaid = news + self._unsaid
                    break
        finally:
            self._saying = None

    @property
    def _address(self) -> str:
        own = self._url.set(drivername="postgresql", query=_renamed(self._url, "ssl", "sslmode"))
        return own.render_as_string(hide_password=False)

    async def _listener(self, number: int, heard: Callable[[str | None], None]) -> Any:
        import asyncpg

        # What is said needs no disk: whoever does not hear it looks again anyway.
        how = {"tcp_keepalives_idle": "10", "synchronous_commit": "off"}
        ears = await asyncpg.connect(self._address, timeout=CONNECT_S, server_settings=how)
        await ears.execute(f"SELECT pg_advisory_lock({REPLICAS}, {number})")
        await ears.add_listener(CHANNEL, lambda _connection, _pid, _channel, said: heard(said))
        return ears

    async def _keep_listening(self, number: int, heard: Callable[[str | None], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                cut = loop.create_future()
                self._ears.add_termination_listener(lambda _, cut=cut: cut.done() or cut.set_result(None))
                if not self._ears.is_closed():
                    await cut
                self._ears = await self._again(number, heard)
                if self._unsaid and self._saying is None:
                    self._saying = loop.create_task(self._say())
                heard(None)
        finally:
            self._ears.terminate()

    async def _again(self, number: int, heard: Callable[[str | None], None]) -> Any:
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                return await self._listener(number, heard)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try comes
                _log.warning("%s", self._sentence(error))

    async def wipe(self) -> None:
        """Postgres removes old rows by itself (autovacuum); nothing is left to do here."""

    @asynccontextmanager
    async def _begin(self, *, at_once: bool = False) -> AsyncIterator[AsyncConnection]:
        engine = self._at_once if at_once else self._engine
        if self._engine is None or engine is None:
            raise _closed()
        try:
            async with engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout, OSError, TimeoutError) as error:
            raise JouleboxError("database", self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        where = shown(self._url)
        cause = error.orig if isinstance(error, DBAPIError) else error
        text_ = " ".join(str(cause).split()) or type(cause).__name__
        for sign, sentence in _SENTENCES:
            if sign in text_.lower():
                return sentence.format(where=where)
        return f"The database {where} cannot be used: {text_.removesuffix('.')}."


async def _busy(address: str) -> Any:
    """Connections for the busy path. One that was cut is replaced when it is wanted; none is closed for resting."""
    import asyncpg

    class Connection(asyncpg.Connection):  # type: ignore[misc]
        def get_reset_query(self) -> str:
            return ""  # nothing is left behind that another user of the connection could see

    async def prepare(connection: Any) -> None:
        await connection.set_type_codec("json", schema="pg_catalog", encoder=str, decoder=json.loads)

    return await asyncpg.create_pool(
        address,
        min_size=0,
        max_size=BUSY_CONNECTIONS,
        max_inactive_connection_lifetime=0,
        timeout=CONNECT_S,
        command_timeout=STATEMENT_S,
        server_settings=BY_INDEX,
        connection_class=Connection,
        init=prepare,
    )


def _renamed(url: URL, one: str, other: str) -> dict[str, Any]:
    return {other if name == one else name: value for name, value in url.query.items()}


def _not_installed() -> JouleboxError:
    return JouleboxError("bad_setting", "Postgres needs the extra: pip install 'joulebox[postgres]'.")


def _closed() -> JouleboxError:
    return JouleboxError("database", "The database is closed: the server is stopping.")


def _refuse_cut(connection: Any, _record: Any, _proxy: Any) -> None:
    """The pool makes another connection where this one was cut: known without asking, so that asking costs nothing."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


_SENTENCES: Final = (
    ("queuepool", "The database {where} is too slow for what is asked of it: everybody waits for it."),
    ("password authentication", "The database {where} refuses the password: check database_url."),
    ('database "', "There is no database {where}: create it (`createdb`), or check database_url."),
    ('role "', "The database {where} knows no such role: create it (`createuser`), or check database_url."),
    ("permission denied", "The database {where} does not let this role do that: grant it its own schema."),
    ("too many", "The database {where} has no connection left: raise max_connections or run fewer servers."),
    ("no space", "The disk of the database {where} is full: free some space; nothing was half written."),
    ("connection", "The database {where} does not answer: it is away, starting or stopping."),
    ("connect call failed", "The database {where} does not answer: is it running, and is the address right?"),
    ("no such file", "The database {where} does not answer: is it running, and is the address right?"),
    ("starting up", "The database {where} is starting: try again in a moment."),
    ("shutting down", "The database {where} is stopping: try again in a moment."),
    ("timed out", "The database {where} does not answer in time."),
    ("timeouterror", "The database {where} does not answer in time, or has more to do than it can."),
)
