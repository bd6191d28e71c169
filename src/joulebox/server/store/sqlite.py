"""The embedded database: one SQLite file, opened with durable settings.

One server at a time holds a file (the live side of the queue is in its memory): a lock file beside it keeps others out.
"""

import asyncio
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from joulebox.errors import JouleboxError
from joulebox.host import kept_file, own_file, own_folder
from joulebox.server.store.schema import migrate
from joulebox.server.store.steps import How, Steps

_T = TypeVar("_T")
_Change = tuple[Steps[Any], asyncio.Future[Any]]
DRIVER: Final = "sqlite+aiosqlite"
BUSY_S: Final = 5
CONNECTIONS: Final = 4
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "foreign_keys=ON",
    "synchronous=FULL",
    "secure_delete=ON",
    f"busy_timeout={BUSY_S * 1000}",
    "cache_size=-512",
)
"""A connection keeps 512 KiB of the file, not SQLite's 2,000: there are six, most of their pages are void after each
change, and the system keeps the file in its own cache anyway."""


class Sqlite:
    """One SQLite file. `read` and `write` give a connection inside a transaction that is committed at the end."""

    shared = False

    def __init__(self, url: URL) -> None:
        self._url = _checked(url)
        self._path = Path(self._url.database or "")
        self._engine: AsyncEngine | None = None
        self._lock_file: IO[bytes] | None = None
        # SQLite has one writer; waiting here costs nothing, waiting in its busy handler costs wake-ups.
        self._turn = asyncio.Lock()
        self._busy: _Busy | None = None
        self._asked: list[_Change] = []
        self._keeping: asyncio.Task[None] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def keeps(self) -> bool:
        """Whether changes are being kept at this moment, so that one more costs less than a look beside them."""
        return self._keeping is not None

    @property
    def size_bytes(self) -> int:
        """What file and log take, as far as they are there."""
        both = (self._path, self._path.with_name(self._path.name + "-wal"))
        return sum(one.stat().st_size for one in both if one.exists())

    async def open(self) -> None:
        """Open the file and bring its schema up to date; a new file is made where there is none.

        Raises `JouleboxError("database")` with one sentence.
        """
        self._lock_file = lock(self._path)
        _close_to_others(self._path)
        self._engine = _engine(self._url)
        try:
            async with self.write() as connection:
                await connection.run_sync(migrate, str(self._path))
            self._busy = _Busy(self._path)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection and let others have the file."""
        if self._keeping is not None:
            await asyncio.wait({self._keeping})
        if self._busy is not None:
            self._busy.close()
            self._busy = None
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A consistent view. Raises `JouleboxError("database")`."""
        async with self._begin(immediate=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """The only writer until it ends; all of it happens or nothing. Raises `JouleboxError("database")`."""
        async with self._turn, self._begin(immediate=True) as connection:
            yield connection

    async def carry_out(self, steps: Steps[_T], how: How) -> _T:
        """The steps, at once where they only look. Changes that come while others are being kept are kept together,
        each of them whole or not at all. Raises `JouleboxError("database")`."""
        if self._engine is None or self._busy is None:
            raise _closed()
        if how == "look":
            # The reader's pages are void after each change. The writer's are not, but while it waits for the disk, or
            # holds what is not kept yet, nobody else may use it.
            connection = self._busy.reader if self.keeps else self._busy.writer
            try:
                return self._drive(connection, steps)
            except sqlite3.Error as error:
                raise self._failed(error) from error
        outcome: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._asked.append((steps, outcome))
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep_asked())
        return await outcome

    async def _keep_asked(self) -> None:
        try:
            while self._asked:
                async with self._turn:
                    together, self._asked = self._asked, []
                    await self._keep(together)
        finally:
            self._keeping = None

    async def _keep(self, together: "list[_Change]") -> None:
        """One BEGIN and one COMMIT, the disk's slow part, for all of them."""
        assert self._busy is not None
        try:
            await self._busy.begin()
            outcomes = [self._one(steps, alone=len(together) == 1) for steps, _ in together]
            await asyncio.get_running_loop().run_in_executor(self._busy.disk, self._busy.writer.commit)
        except BaseException as error:
            with suppress(sqlite3.Error):
                self._busy.writer.rollback()
            outcomes = [self._failed(error) if isinstance(error, sqlite3.Error) else error] * len(together)
            if not isinstance(error, Exception):
                raise
        finally:
            for (_, asked), outcome in zip(together, outcomes, strict=True):
                if asked.done():
                    continue
                if isinstance(outcome, BaseException):
                    asked.set_exception(outcome)
                else:
                    asked.set_result(outcome)

    def _one(self, steps: Steps[Any], *, alone: bool) -> Any:
        """One change among others: what came of it, or its failure, which undoes it alone."""
        assert self._busy is not None
        writer = self._busy.writer
        if alone:  # its failure undoes all there is
            return self._drive(writer, steps)
        writer.execute("SAVEPOINT one")
        try:
            outcome = self._drive(writer, steps)
        except Exception as error:
            if not writer.in_transaction:
                raise
            writer.execute("ROLLBACK TO one")
            outcome = self._failed(error) if isinstance(error, sqlite3.Error) else error
        writer.execute("RELEASE one")
        return outcome

    def _drive(self, connection: sqlite3.Connection, steps: Steps[_T]) -> _T:
        assert self._engine is not None
        dialect, rows = self._engine.dialect, None
        try:
            while True:
                statement, values = next(steps) if rows is None else steps.send(rows)
                words = statement.words(dialect)
                rows = words.rows(connection.execute(words.text, words.arguments(values)).fetchall())
        except StopIteration as end:
            result: _T = end.value
            return result

    def _failed(self, error: sqlite3.Error) -> Exception:
        if isinstance(error, sqlite3.IntegrityError):
            return error
        return JouleboxError("database", sentence_of(str(error), self._path))

    def say(self, news: str) -> None:
        """There is nobody else to tell."""

    async def listen(self, number: int, heard: Callable[[str | None], None]) -> None:
        """There is nobody else to hear."""
        raise NotImplementedError

    async def wipe(self) -> None:
        """Have what was removed leave the disk too: the log of writes still holds it. Best effort while others read."""
        if self._engine is None:
            return
        async with self._turn, self._engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @asynccontextmanager
    async def _begin(self, *, immediate: bool) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            raise _closed()
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(immediate=immediate)
                async with connection.begin():
                    yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise JouleboxError("database", sentence_of(str(error.orig), self._path)) from error


class _Busy:
    """The connections of the busy path: its statements take microseconds each and are carried out where they are asked
    for; only the disk is waited for elsewhere."""

    def __init__(self, path: Path) -> None:
        self.writer, self.reader = _plain(path), _plain(path)
        self.disk = ThreadPoolExecutor(1, "disk")

    async def begin(self) -> None:
        """Be the only writer. Another program may be, for a moment."""
        for _ in range(BUSY_S * 20):
            try:
                self.writer.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                await asyncio.sleep(0.05)
        self.writer.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """End them."""
        self.disk.shutdown()
        self.writer.close()
        self.reader.close()


def _plain(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("PRAGMA busy_timeout=0")
    return connection


def _closed() -> JouleboxError:
    return JouleboxError("database", "The database is closed: the server is stopping.")


def _checked(url: URL) -> URL:
    if url.drivername not in {"sqlite", DRIVER} or not url.database or url.database == ":memory:":
        raise JouleboxError(
            "bad_setting",
            f"Setting database_url uses {url.drivername} without a file it can use: {DRIVER}:////path/to/joulebox.db.",
        )
    return url.set(drivername=DRIVER)


def _engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: `begin` below does, and says which kind.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _close_to_others(path: Path) -> None:
    """Everybody's texts are in it: a new file is for this user alone, and SQLite makes its logs alike. Of one that is
    there, and of logs that a crash left, everybody else loses what they may."""
    logs = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    with suppress(OSError):  # what cannot be made cannot be opened either, and then there is a sentence for it
        for one in (path, *(log for log in logs if log.exists())):
            own_file(one)


def lock(path: Path) -> IO[bytes]:
    """Be the only server of a file until what is given is closed. Raises `JouleboxError("database")` where one is."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        own_folder(path.parent)
        lock_file = kept_file(lock_path)
    except OSError as error:
        sentence = (
            f"The database {path} cannot be opened: {error.strerror}. Set JOULEBOX_DATA_DIR to a folder you may write."
        )
        raise JouleboxError("database", sentence) from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock_file.close()
        sentence = f"Another server is using the database {path}: stop it, or give this one its own JOULEBOX_DATA_DIR."
        raise JouleboxError("database", sentence) from error
    return lock_file


_SENTENCES: Final = (
    ("readonly", "The database {path} cannot be written: give this user write permission to the file and its folder."),
    ("unable to open", "The database {path} cannot be opened: it must be a file in a folder that this user may write."),
    ("full", "The disk that holds the database {path} is full: free some space; nothing was half written."),
    ("disk i/o", "The disk that holds the database {path} fails to read or write: check the disk."),
    ("locked", "Another program is using the database {path}: stop it and try again."),
    ("not a database", "The file {path} is not a database: move it away, or set another JOULEBOX_DATA_DIR."),
    ("malformed", "The database {path} is damaged: restore a backup, or move it away to begin anew."),
)


def sentence_of(message: str, path: Path) -> str:
    """What SQLite complains of, and what to do."""
    for sign, sentence in _SENTENCES:
        if sign in message.lower():
            return sentence.format(path=path)
    return f"The database {path} cannot be used: {message}."
