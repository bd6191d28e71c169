"""A SQLite file as a whole: copied at one moment while a server writes, looked through, put in another's place."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.host import own_file
from joulebox.server.store.sqlite import sentence_of
from joulebox.server.store.tables import metadata

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and how much it is in all."""
PAGES: Final = 1024
"""So many pages are copied between two words about how far it is."""
LOGS: Final = ("-wal", "-shm")


def snapshot(source: Path, target: Path, progress: Progress) -> None:
    """Copy a file as it is at this moment into the new file `target`, which needs no logs beside it; a server may go on
    writing into the source meanwhile.

    Raises `JouleboxError`: `bad_request` where there is no source, `database`.
    """
    if not source.is_file():
        raise JouleboxError(
            "bad_request",
            f"There is no database {source}: set JOULEBOX_DATA_DIR or JOULEBOX_DATABASE_URL as the server's.",
        )
    own_file(target)
    with opened(source) as here, opened(target) as there:
        here.execute("BEGIN")
        # The moment: what is read from now on is this, however long it takes and whoever writes. Without it the copy
        # would begin anew after every change.
        here.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        here.backup(there, pages=PAGES, progress=lambda _, left, total: progress("copying", total - left, total))
        make_single(there)


def make_single(connection: sqlite3.Connection) -> None:
    """Have a file hold everything by itself, so that it may be moved."""
    connection.execute("PRAGMA journal_mode=DELETE").fetchone()


def look_through(path: Path) -> str | None:
    """The schema of a file whose every page was read and found in order, and whose evidence is what was delivered;
    `None` where no server wrote the file.

    Raises `JouleboxError("database")` where it is damaged.
    """
    with opened(path) as connection:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise JouleboxError("database", sentence_of("malformed", path))
        names = _tables(connection)
        if "alembic_version" not in names:
            return None
        for token, digest, blob in connection.execute("SELECT token, sha256, blob FROM traces"):
            if hashlib.sha256(blob).hexdigest() != digest:
                sentence = f"The evidence {token} in {path} is not what was delivered: use an earlier backup."
                raise JouleboxError("database", sentence)
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def rows(path: Path) -> dict[str, int]:
    """How many rows each table holds; of a file that is not there, none. Raises `JouleboxError("database")`."""
    if not path.is_file():
        return {}
    with opened(path) as connection:
        ours = [name for name in _tables(connection) if name in metadata.tables]
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ours}  # noqa: S608


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return [str(name) for (name,) in found]


def put(fresh: Path, path: Path, aside: Path | None) -> None:
    """Put the file `fresh`, on the same disk, in the place of `path`, at once and for good. What stood there is kept as
    `aside`, if that is a name. Nobody may use either file meanwhile.

    Raises `OSError`.
    """
    if aside is not None:
        with suppress(JouleboxError), opened(path) as old:  # a damaged one is kept as it is, with its logs
            make_single(old)
        for end in ("", *LOGS):
            if (one := path.with_name(path.name + end)).exists():
                _twin(one, aside.with_name(aside.name + end))
    for end in LOGS:
        path.with_name(path.name + end).unlink(missing_ok=True)
    keep(fresh)
    fresh.replace(path)
    keep(path.parent)


def _twin(path: Path, name: Path) -> None:
    try:
        os.link(path, name)
    except OSError:  # some disks know no second name
        shutil.copy2(path, name)
        keep(name)


def keep(path: Path) -> None:
    """Wait until a file, or what a folder says of its files, is on the disk. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A file that is there already. Raises `JouleboxError("database")`."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            connection.execute("PRAGMA busy_timeout=5000")
            yield connection
    except sqlite3.Error as error:
        raise JouleboxError("database", sentence_of(str(error), path)) from error


def give_to_owner_of(folder: Path, path: Path) -> None:
    """What root restores belongs to the user whom the folder belongs to: the server's."""
    with suppress(OSError):
        whose = folder.stat()
        os.chown(path, whose.st_uid, whose.st_gid)
