"""Backups: everything that servers keep, as it is at one moment, in one file, and back again. Whole or not at all.

The file is a ZIP of `joulebox.db`, a SQLite database whatever the servers use, and `manifest.json`, which says what is
inside, with its digest, and what is not.
"""

import asyncio
import errno
import hashlib
import importlib.metadata
import json
import lzma
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from joulebox.accounting import METHOD_VERSION
from joulebox.errors import JouleboxError
from joulebox.host import own_file, own_folder
from joulebox.server.store import carry, sqlite_file
from joulebox.server.store.database import database_at
from joulebox.server.store.schema import HEAD, refuse_newer, shown
from joulebox.server.store.sqlite import Sqlite, lock
from joulebox.server.store.sqlite_file import Progress
from joulebox.server.store.tables import metadata
from joulebox.wording import size

FORMAT: Final = 1
DATABASE: Final = "joulebox.db"
MANIFEST: Final = "manifest.json"
MANIFEST_BYTES_MAX: Final = 10_000_000
LEFT_OUT: Final = (
    "model files: the manifest lists them with their digests, to be added again",
    "settings, and the files of secrets that they name",
    "what nodes keep: calibrations, and answers that are not delivered yet",
)
BY_ITSELF: Final = frozenset({"replicas", "secrets", "server_time"})
"""Tables into which a server writes before anybody asks it anything."""
DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    KeyError,
    EOFError,
    RuntimeError,
    ValueError,
)
"""What reading an archive raises that is none."""
_BLOCK_BYTES: Final = 1 << 20
_COMPRESSION: Final = 1
"""Readings are packed already; texts gain little more at slower ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """A model that a node had, whose file is not part of a backup."""

    node: str
    id: str
    digest: str
    quantization: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself. `rows` by table; `sha256` and `size_bytes` are those of the database inside."""

    format: int
    joulebox: str
    method_version: str
    schema: str
    source: str
    created: datetime
    size_bytes: int
    sha256: str
    rows: Mapping[str, int]
    models: tuple[SavedModel, ...]
    left_out: tuple[str, ...]


_MANIFEST: Final = TypeAdapter(Manifest)


def described(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON."""
    told: dict[str, Any] = _MANIFEST.dump_python(manifest, mode="json")
    return told


def back_up(url: str, file: Path, now: datetime, progress: Progress) -> Manifest:
    """Save everything in the database at `url`, which servers may go on using, in the new `file`, readable for its
    owner alone. `progress` is told what is done, how much of it and of how much. Where it fails, there is no file.

    Raises `JouleboxError`: `bad_request` where `file` is there already or no database is, `database`, `bad_setting`;
    and `OSError`.
    """
    if file.exists():
        raise JouleboxError("bad_request", f"{file} is there already: choose another name.")
    source, where = database_at(url), _where(url)
    own_folder(file.parent)
    with TemporaryDirectory(prefix=".joulebox-backup-", dir=file.parent) as name:
        copy, packed = Path(name) / DATABASE, Path(name) / "backup.zip"
        if isinstance(source, Sqlite):
            _refuse_narrow(file.parent, 2 * source.size_bytes)
            sqlite_file.snapshot(source.path, copy, progress)
        else:
            asyncio.run(_moment_of_postgres(url, copy, progress))
        schema = sqlite_file.look_through(copy)
        if schema is None:
            raise _not_ours(where)
        refuse_newer(schema, where)
        manifest = _manifest(copy, schema, "postgresql" if source.shared else "sqlite", now)
        own_file(packed)
        with packed.open("r+b") as out:
            _pack(copy, manifest, out, progress)
            out.flush()
            os.fsync(out.fileno())
        packed.rename(file)
        sqlite_file.keep(file.parent)
    return manifest


async def _moment_of_postgres(url: str, copy: Path, progress: Progress) -> None:
    from joulebox.server.store.postgres import Postgres

    source, target, where = Postgres(make_url(url)), database_at(f"sqlite:///{copy}"), _where(url)
    async with source.moment() as there:
        if (await there.execute(text("SELECT to_regclass('alembic_version')"))).scalar() is None:
            raise _not_ours(where)
        version = str((await there.execute(text("SELECT version_num FROM alembic_version"))).scalar())
        if version != HEAD:
            refuse_newer(version, where)
            sentence = f"The database {where} has schema {version}, and this Joulebox {HEAD}"
            raise JouleboxError("database", f"{sentence}: back it up with the one that wrote it.")
        await target.open()
        try:
            async with target.write() as here:
                await carry.carry_over(there, here, _copying(progress))
        finally:
            await target.close()
    with sqlite_file.opened(copy) as connection:
        sqlite_file.make_single(connection)


def _manifest(copy: Path, schema: str, source: str, now: datetime) -> Manifest:
    with copy.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Manifest(
        format=FORMAT,
        joulebox=importlib.metadata.version("joulebox"),
        method_version=METHOD_VERSION,
        schema=schema,
        source=source,
        created=now,
        size_bytes=copy.stat().st_size,
        sha256=digest,
        rows=sqlite_file.rows(copy),
        models=tuple(_models(copy)),
        left_out=LEFT_OUT,
    )


def _models(copy: Path) -> Iterator[SavedModel]:
    with sqlite_file.opened(copy) as connection:
        found = connection.execute("SELECT name, models FROM nodes ORDER BY name").fetchall()
    for node, models in found:
        for model in json.loads(models):
            told = {name: model[name] for name in ("id", "digest", "quantization", "size_bytes")}
            yield SavedModel(node=node, **told)


def _pack(copy: Path, manifest: Manifest, out: IO[bytes], progress: Progress) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive:
        archive.writestr(MANIFEST, _MANIFEST.dump_json(manifest, indent=1))
        with archive.open(DATABASE, "w", force_zip64=True) as member, copy.open("rb") as file:
            _pour(file, member, manifest.size_bytes, "packing", progress)


def _pour(source: IO[bytes], target: IO[bytes], size_bytes: int, what: str, progress: Progress) -> str:
    """Everything of `source`, at most one block more than it should be; its SHA-256."""
    digest, done = hashlib.sha256(), 0
    while done <= size_bytes and (block := source.read(_BLOCK_BYTES)):
        target.write(block)
        digest.update(block)
        done += len(block)
        progress(what, done, size_bytes)
    return digest.hexdigest()


# --- back again -------------------------------------------------------------------------------------------------------


def manifest_of(file: Path) -> Manifest:
    """What a backup says of itself.

    Raises `JouleboxError`: `bad_request` where it is none, `database` where a newer Joulebox made it; and `OSError`.
    """
    with _archive(file) as archive, archive.open(MANIFEST) as member:
        document = member.read(MANIFEST_BYTES_MAX)
    try:
        said = json.loads(document)
        newer = said["format"] > FORMAT
        manifest = None if newer else _MANIFEST.validate_json(document)
    except (KeyError, TypeError, ValueError, ValidationError, RecursionError) as error:
        raise _no_backup(file) from error
    if manifest is None:
        sentence = f"{file} was made by a newer Joulebox ({said.get('joulebox')}): update this one to restore it."
        raise JouleboxError("database", sentence)
    refuse_newer(manifest.schema, f"in {file}")
    return manifest


def check(file: Path, scratch: Path, progress: Progress) -> Manifest:
    """Unpack a backup in a folder below `scratch`, look through every page and every piece of evidence, bring it to the
    newest schema, and remove it again: it could be restored.

    Raises `JouleboxError`: `bad_request`, `database`; and `OSError`.
    """
    manifest = manifest_of(file)
    with _unpacked(file, manifest, scratch, progress):
        return manifest


def restore(
    file: Path, url: str, scratch: Path, now: datetime, progress: Progress, *, replace: bool = False
) -> tuple[Manifest, Path | None]:
    """Put a backup into the database at `url`, which no server uses, brought to the newest schema. Where people or
    nodes left something there before, that is refused, or with `replace` replaced; of a SQLite file the old one is kept
    beside it, and named here. Nothing is changed unless everything is there. For Postgres it is unpacked below
    `scratch` first.

    Raises `JouleboxError`: `bad_request`, `database`, `bad_setting`; and `OSError`.
    """
    manifest = manifest_of(file)
    target = database_at(url)
    if isinstance(target, Sqlite):
        return manifest, _into_file(file, manifest, target.path, now, progress, replace=replace)
    with _unpacked(file, manifest, scratch, progress) as fresh:
        asyncio.run(_into_postgres(fresh, url, progress, replace=replace))
    return manifest, None


def _into_file(
    file: Path, manifest: Manifest, path: Path, now: datetime, progress: Progress, *, replace: bool
) -> Path | None:
    with lock(path) as held:
        if not replace:
            _refuse_full(str(path), sqlite_file.rows(path))
        aside = path.with_name(f"{path.name}.before-{now:%Y%m%dT%H%M%SZ}") if path.exists() else None
        with _unpacked(file, manifest, path.parent, progress) as fresh:
            sqlite_file.put(fresh, path, aside)
        for one in (path, Path(held.name)):
            sqlite_file.give_to_owner_of(path.parent, one)
    return aside


def _refuse_full(where: str, rows: Mapping[str, int]) -> None:
    full = sorted(name for name, count in rows.items() if count and name not in BY_ITSELF)
    if full:
        sentence = f"The database {where} holds {', '.join(full)} already: restore into an empty one, or say --replace."
        raise JouleboxError("bad_request", sentence)


async def _into_postgres(fresh: Path, url: str, progress: Progress, *, replace: bool) -> None:
    source, target = database_at(f"sqlite:///{fresh}"), database_at(url)
    await source.open()
    try:
        await target.open()
        try:
            async with source.write() as there, target.write() as here:
                await carry.refuse_live(here, "the database")
                if not replace:
                    _refuse_full(_where(url), await _counted(here))
                names = ", ".join(table.name for table in metadata.sorted_tables)
                await here.execute(text(f"TRUNCATE {names}"))
                await carry.carry_over(there, here, _copying(progress))
        finally:
            await target.close()
    finally:
        await source.close()


async def _counted(here: AsyncConnection) -> dict[str, int]:
    return {
        table.name: (await here.execute(select(func.count()).select_from(table))).scalar_one()
        for table in metadata.sorted_tables
    }


@contextmanager
def _unpacked(file: Path, manifest: Manifest, folder: Path, progress: Progress) -> Iterator[Path]:
    """The database inside, in order and with the newest schema, in a folder below `folder` that goes with the block."""
    own_folder(folder)
    _refuse_narrow(folder, 2 * manifest.size_bytes)
    with TemporaryDirectory(prefix=".joulebox-restore-", dir=folder) as name:
        fresh = Path(name) / DATABASE
        own_file(fresh)
        with _archive(file) as archive, archive.open(DATABASE) as member, fresh.open("r+b") as out:
            digest = _pour(member, out, manifest.size_bytes, "unpacking", progress)
        if digest != manifest.sha256 or fresh.stat().st_size != manifest.size_bytes:
            raise _no_backup(file)
        if sqlite_file.look_through(fresh) != manifest.schema:
            raise _no_backup(file)
        carry.migrate(f"sqlite:///{fresh}")
        with sqlite_file.opened(fresh) as connection:
            sqlite_file.make_single(connection)
        yield fresh


@contextmanager
def _archive(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except DAMAGE as error:
        raise _no_backup(file) from error
    except OSError as error:  # what no disk says: a place before the file's beginning, a stream that is none
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _no_backup(file) from error


def _no_backup(file: Path) -> JouleboxError:
    return JouleboxError("bad_request", f"{file} is no backup of Joulebox, or it is damaged. Nothing was changed.")


def _not_ours(where: str) -> JouleboxError:
    return JouleboxError("bad_request", f"No Joulebox server wrote the database {where}: nothing was saved.")


def _refuse_narrow(folder: Path, need_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < need_bytes:
        numbers = f"It takes up to {size(need_bytes)} of disk, and {size(free_bytes)} are free in {folder}"
        raise JouleboxError("bad_request", f"{numbers}: make room there, or choose another place.")


def _where(url: str) -> str:
    parts = make_url(url)
    return str(parts.database) if parts.get_backend_name() == "sqlite" else shown(parts)


def _copying(progress: Progress) -> Progress:
    return lambda table, done, total: progress(f"copying {table}", done, total)
