"""Where the tables are: a file (SQLite) or a server (Postgres), behind one port; what fails is one sentence."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection

from joulebox.errors import JouleboxError
from joulebox.server.store.steps import How, Steps

_P = ParamSpec("_P")
_T = TypeVar("_T")

_UNDER_WAY: Final[set[asyncio.Task[Any]]] = set()
"""The transactions of `whole`: an event loop alone does not keep a task alive."""


class Database(Protocol):
    """`read` and `write` give a connection inside a transaction that is committed at the end.

    Every method may raise `JouleboxError("database")` with one sentence.
    """

    shared: bool
    """Whether several servers may use it at once."""

    @property
    def keeps(self) -> bool:
        """Whether changes are being kept at this moment, so that one more costs less than a look beside them."""

    async def open(self) -> None:
        """Open it and bring its schema up to date; an empty one gets its tables."""

    async def close(self) -> None:
        """Close every connection."""

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to look with."""

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to change with: all of it happens or nothing."""

    async def carry_out(self, steps: Steps[_T], how: How) -> _T:
        """Carry out the steps of the busy path, `how` they need it; what comes of them."""

    def say(self, news: str) -> None:
        """Let every program that shares this database hear it soon. Only where it is shared."""

    async def listen(self, number: int, heard: Callable[[str | None], None]) -> None:
        """Be known to the others by `number` as long as this program lives, and hear what they say; `None`: for a while
        nothing could be heard. Only where it is shared."""

    async def wipe(self) -> None:
        """Have what was removed leave the disk too, as far as that is in a program's hands."""


def whole(method: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """A transaction runs to its end even when whoever asked for it has gone."""

    @wraps(method)
    async def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        task = asyncio.create_task(method(*args, **kwargs))
        _UNDER_WAY.add(task)
        task.add_done_callback(_UNDER_WAY.discard)
        return await asyncio.shield(task)

    return run


async def settled(limit_s: float) -> None:
    """Wait until the transactions under way have ended, at most `limit_s`: also those whose askers have gone."""
    loop = asyncio.get_running_loop()
    if mine := [task for task in _UNDER_WAY if task.get_loop() is loop]:
        await asyncio.wait(mine, timeout=limit_s)


def database_at(url: str) -> Database:
    """The database of that URL. Raises `JouleboxError`: `bad_setting`, `missing_extra`."""
    try:
        parts = make_url(url)
    except ArgumentError as error:
        raise JouleboxError("bad_setting", "Setting database_url is not a database URL.") from error
    backend = parts.get_backend_name()
    if backend in ("postgresql", "postgres"):
        from joulebox.server.store.postgres import Postgres

        return Postgres(parts)
    if backend == "sqlite":
        from joulebox.server.store.sqlite import Sqlite

        return Sqlite(parts)
    raise JouleboxError(
        "bad_setting",
        f"Setting database_url names {parts.drivername}; it takes postgresql://USER@HOST/NAME, or "
        "sqlite:////path/to/joulebox.db.",
    )
