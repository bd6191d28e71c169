"""New databases with the newest schema: the migrations make it once in each test process, then it is copied."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import postgres_server
from joulebox.host import own_file, own_folder
from joulebox.server.store import Store


def prepare(folder: Path) -> None:
    """Put a SQLite file into `folder`, as a server leaves it that nobody asked anything, where there is none."""
    path = folder / "joulebox.db"
    if not path.exists():
        own_folder(folder)
        own_file(path)
        path.write_bytes(_file())


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of a new database on the Postgres of this test process, gone afterwards."""
    with postgres_server.database(like=_template()) as url:
        yield url


@contextlib.contextmanager
def setting(kind: str) -> Iterator[dict[str, str]]:
    """A new database of that kind (`sqlite` or `postgres`), as a setting."""
    if kind == "sqlite":
        yield {}
        return
    with postgres() as url:
        yield {"database_url": url}


@cache
def _file() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "joulebox.db"
        _migrate(f"sqlite+aiosqlite:///{path}")
        return path.read_bytes()


@cache
def _template() -> str:
    name = "newest"
    running = postgres_server.server()
    running.execute(f"CREATE DATABASE {name}")
    _migrate(running.url(name))
    return name


def _migrate(url: str) -> None:
    """In a thread: where it is called an event loop may run."""

    async def opened() -> None:
        store = Store(url)
        await store.open()
        await store.close()

    thread = threading.Thread(target=asyncio.run, args=(opened(),))
    thread.start()
    thread.join()
