"""Backups: one moment of a database that is written into, whole or not at all, and back into either kind."""

import asyncio
import hashlib
import json
import shutil
import sqlite3
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import databases
import postgres_server
from commands import joulebox
from joulebox.errors import JouleboxError
from joulebox.server.store import archive, sqlite_file
from joulebox.server.store.schema import HEAD
from server_stage import Stage, stage
from test_carry import filled, goes_on, holds
from test_queue import NOW, opened
from test_recompute import answered, body

WHEN = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


def quiet(_what: str, _done: int, _total: int) -> None:
    """Somebody who does not look."""


def url_of(where: Path | str) -> str:
    return where if isinstance(where, str) else f"sqlite:///{where / 'joulebox.db'}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a backup goes: a folder of its own, so that what is left behind is seen."""
    (tmp_path / "safe").mkdir()
    return tmp_path / "safe" / "backup.zip"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small installation on SQLite, and a backup of it."""
    folder = tmp_path_factory.mktemp("original")
    databases.prepare(folder)
    asyncio.run(filled(folder))
    archive.back_up(url_of(folder), folder / "backup.zip", WHEN, quiet)
    return folder


@pytest.fixture
def saved(original: Path, file: Path) -> Path:
    """That backup, alone."""
    return Path(shutil.copy(original / "backup.zip", file))


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where a backup is restored, of each kind, with nothing in it yet."""
    if request.param == "sqlite":
        yield tmp_path / "new"
    else:
        with postgres_server.database() as url:
            yield url


def test_a_backup_comes_back_whole(where: Path | str, target: Path | str, file: Path, tmp_path: Path) -> None:
    """Everything of either database stands in either other one after a backup and its restoring, and numbers go on."""
    asyncio.run(filled(where))
    before = asyncio.run(holds(where))
    made = archive.back_up(url_of(where), file, WHEN, quiet)
    assert (made.schema, made.rows["jobs"], made.rows["receipts"], made.created) == (HEAD, 4, 2, WHEN)
    assert [model.id for model in made.models] == ["m"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert archive.check(file, tmp_path / "scratch", quiet) == made
    restored = archive.restore(file, url_of(target), tmp_path / "scratch", WHEN, quiet)
    assert restored == (made, None)
    assert asyncio.run(holds(target)) == before
    assert asyncio.run(goes_on(target)) == asyncio.run(goes_on(where))
    assert list(file.parent.iterdir()) == [file]
    assert list((tmp_path / "scratch").iterdir()) == []


# --- while it is written into -----------------------------------------------------------------------------------------


class Load:
    """Somebody who asks and is answered on and on, until told to stop."""

    def __init__(self, scene: Stage) -> None:
        self._scene = scene
        self._task: asyncio.Task[None] | None = None
        self.receipts: list[str] = []
        self._more = threading.Event()

    async def _ask_on(self) -> None:
        while True:
            self.receipts.append(await answered(self._scene))
            self._more.set()

    def one_more(self, _what: str = "", _done: int = 0, _total: int = 0) -> None:
        """From another thread: go on once somebody more has been answered."""
        self._more.clear()
        assert self._more.wait(20), "nobody was answered while the backup was made"

    @classmethod
    @asynccontextmanager
    async def on(cls, scene: Stage) -> AsyncIterator["Load"]:
        load = cls(scene)
        load._task = asyncio.create_task(load._ask_on())
        try:
            yield load
        finally:
            load._task.cancel()
            await asyncio.gather(load._task, return_exceptions=True)


@pytest.mark.anyio
async def test_a_server_goes_on_meanwhile(
    where: Path | str, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup made while people are answered holds one moment of it: what came later is not in it, what is in it is
    whole, and each receipt is made again of its evidence bit for bit."""
    monkeypatch.setattr(sqlite_file, "PAGES", 16)
    settings = {"database_url": where} if isinstance(where, str) else {}
    async with stage(tmp_path, **settings) as scene:
        early = await answered(scene)
        before = await body(scene, early)
        made, known, total = await under_load(scene, url_of(where), file)
    assert 1 <= made.rows["receipts"] <= known < total
    assert made.rows["receipts"] <= made.rows["traces"]
    await asyncio.to_thread(archive.restore, file, url_of(tmp_path / "new"), tmp_path, WHEN, quiet)
    with sqlite3.connect(tmp_path / "new" / "joulebox.db") as by_hand:
        assert by_hand.execute("PRAGMA foreign_key_check").fetchall() == []
        counted = "SELECT count(*) FROM jobs WHERE state = 'completed' AND receipt_id NOT IN (SELECT id FROM receipts)"
        assert by_hand.execute(counted).fetchone() == (0,)
        ids = [str(one) for (one,) in by_hand.execute("SELECT id FROM receipts")]
    async with stage(tmp_path / "new") as scene:
        assert await body(scene, early) == before
        for one in ids:
            again = (await scene.http.post(f"/api/v1/receipts/{one}/recompute")).json()
            assert (again["revision"], again["identical"]) == (1, True)


async def under_load(scene: Stage, where: str, file: Path) -> tuple[archive.Manifest, int, int]:
    """A backup, how many receipts there were once its moment had come, and how many there were at its end."""
    known: list[int] = []

    async with Load.on(scene) as load:

        def look(_what: str, _done: int, _total: int) -> None:
            if len(known) < 1:
                known.append(len(load.receipts) + 2)  # the early one, and one that was just not told yet
                load.one_more()
                load.one_more()
                load.one_more()

        made = await asyncio.to_thread(archive.back_up, where, file, WHEN, look)
        return made, known[0], len(load.receipts) + 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- what is refused, and what stays --------------------------------------------------------------------------------


def test_nothing_is_mixed_or_lost(where: Path | str, original: Path, saved: Path, tmp_path: Path) -> None:
    """A database that holds something is left as it is, unless told otherwise; then of a file the old one is kept."""
    asyncio.run(filled(where))
    before, wanted = asyncio.run(holds(where)), asyncio.run(holds(original))
    asyncio.run(goes_on(where))
    longer = asyncio.run(holds(where))
    with pytest.raises(JouleboxError, match=r"holds .*jobs.* already: restore into an empty one"):
        archive.restore(saved, url_of(where), tmp_path, WHEN, quiet)
    assert asyncio.run(holds(where)) == longer != before
    _, aside = archive.restore(saved, url_of(where), tmp_path, WHEN, quiet, replace=True)
    assert asyncio.run(holds(where)) == wanted
    if isinstance(where, Path):
        assert aside == where / "joulebox.db.before-20261123T070000Z"
        assert sqlite_file.rows(aside)["jobs"] == 5
        (tmp_path / "kept").mkdir()
        aside.rename(tmp_path / "kept" / "joulebox.db")
        assert asyncio.run(holds(tmp_path / "kept")) == longer
    else:
        assert aside is None


def test_what_a_server_leaves_by_itself_is_empty(
    saved: Path, original: Path, where: Path | str, tmp_path: Path
) -> None:
    """Where a server was only started and stopped again, a backup is restored without a further word."""

    async def started_once() -> None:
        settings = {"database_url": where} if isinstance(where, str) else {}
        async with stage(where if isinstance(where, Path) else tmp_path / "server", **settings):
            pass

    asyncio.run(started_once())
    archive.restore(saved, url_of(where), tmp_path, WHEN, quiet)
    assert asyncio.run(holds(where)) == asyncio.run(holds(original))


def test_nothing_is_restored_under_a_server(saved: Path, where: Path | str, tmp_path: Path) -> None:
    """While a server uses the database nothing is put into it."""

    async def used() -> None:
        async with opened(where) as store:
            await store.join("http://one", lambda _: None, NOW)
            await asyncio.to_thread(archive.restore, saved, url_of(where), tmp_path, WHEN, quiet, replace=True)

    with pytest.raises(JouleboxError, match=r"Another server is using|A server uses the database"):
        asyncio.run(used())


def broken(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(change(file.read_bytes()))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def told(**changes: object) -> Callable[[Path], None]:
    """A backup whose manifest says something else."""

    def change(file: Path) -> None:
        with zipfile.ZipFile(file) as old:
            manifest, data = json.loads(old.read("manifest.json")), old.read("joulebox.db")
        with zipfile.ZipFile(file, "w") as new:
            new.writestr("manifest.json", json.dumps(manifest | changes))
            new.writestr("joulebox.db", data)

    return change


def without_evidence(file: Path) -> None:
    """A backup in which somebody changed evidence, and the digest of the whole with it."""
    with zipfile.ZipFile(file) as old:
        path = Path(old.extract("joulebox.db", file.parent))
    with sqlite3.connect(path) as by_hand:
        by_hand.execute("UPDATE traces SET blob = x'00'")
    by_hand.close()
    data = path.read_bytes()
    path.unlink()
    with zipfile.ZipFile(file) as old:
        manifest = json.loads(old.read("manifest.json"))
    manifest |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    with zipfile.ZipFile(file, "w") as new:
        new.writestr("manifest.json", json.dumps(manifest))
        new.writestr("joulebox.db", data)


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("other file", lambda file: file.write_text("no backup"), "is no backup of Joulebox"),
    ("other archive", lambda file: zipfile.ZipFile(file, "w").close(), "is no backup of Joulebox"),
    ("cut off", broken(lambda data: data[: len(data) // 2]), "is no backup of Joulebox"),
    ("flipped", broken(flipped), "is no backup of Joulebox"),
    ("other digest", told(sha256="0" * 64), "is no backup of Joulebox"),
    ("longer than said", told(size_bytes=10), "is no backup of Joulebox"),
    ("no manifest", told(rows="many"), "is no backup of Joulebox"),
    ("newer form", told(format=2, joulebox="9.9"), "made by a newer Joulebox"),
    ("newer schema", told(schema="9999"), "written by a newer Joulebox .schema 9999."),
    ("changed evidence", without_evidence, "is not what was delivered"),
]


@pytest.mark.parametrize(("change", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_whole_backup(change: Callable[[Path], object], says: str, saved: Path, tmp_path: Path) -> None:
    """A file that is none, was cut off, changed, or made by a newer Joulebox is refused, and nothing is left of it."""
    change(saved)
    for what in (
        lambda: archive.check(saved, tmp_path / "new", quiet),
        lambda: archive.restore(saved, url_of(tmp_path / "new"), tmp_path, WHEN, quiet),
    ):
        with pytest.raises(JouleboxError, match=says):
            what()
    left = [path.name for path in (tmp_path / "new").iterdir()] if (tmp_path / "new").exists() else []
    assert [name for name in left if name != "joulebox.db.lock"] == []


def test_nothing_is_half_written(where: Path | str, saved: Path, tmp_path: Path) -> None:
    """A backup that is stopped leaves no file, and a restoring that is stopped leaves the database as it was."""

    def stopped(_what: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    def late(what: str, _done: int, _total: int) -> None:
        if what == ("copying receipts" if isinstance(where, str) else "unpacking"):
            raise KeyboardInterrupt

    asyncio.run(filled(where))
    before = asyncio.run(holds(where))
    with pytest.raises(KeyboardInterrupt):
        archive.back_up(url_of(where), saved.with_name("second.zip"), WHEN, stopped)
    assert list(saved.parent.iterdir()) == [saved]
    with pytest.raises(KeyboardInterrupt):
        archive.restore(saved, url_of(where), tmp_path, WHEN, late, replace=True)
    assert asyncio.run(holds(where)) == before


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation in the folder that the settings name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`backup` says what is inside and what is not, and refuses to write over anything; `restore` looks first, keeps
    what was there, and both speak JSON."""
    code, _, err = joulebox(capsys, "backup")
    assert code == 2
    assert err.startswith(f"joulebox: There is no database {folder}/joulebox.db: set JOULEBOX_DATA_DIR or ")
    asyncio.run(filled(folder))
    code, out, _ = joulebox(capsys, "backup", "my.zip")
    assert code == 0
    assert "The backup is in my.zip (" in out
    assert "jobs 4" in out
    assert "Not inside:\n  model files" in out
    assert "n1 had the model m Q4_1" in out
    code, _, err = joulebox(capsys, "backup", "my.zip")
    assert (code, err) == (2, "joulebox: my.zip is there already: choose another name.\n")
    code, out, _ = joulebox(capsys, "backup", "--json", str(folder.parent))
    named: dict[str, Any] = json.loads(out)
    assert Path(named["file"]).parent == folder.parent
    assert (named["schema"], named["rows"]["receipts"]) == (HEAD, 2)
    assert joulebox(capsys, "restore", "my.zip", "--check")[1].startswith("my.zip is in order and can be restored.\n")
    assert joulebox(capsys, "restore", "my.zip")[0] == 2
    code, out, _ = joulebox(capsys, "restore", "my.zip", "--replace", "--json")
    assert code == 0
    assert sqlite_file.rows(Path(json.loads(out)["aside"]))["jobs"] == 4
    code, _, err = joulebox(capsys, "restore", "nowhere.zip")
    assert (code, err) == (1, "joulebox: nowhere.zip cannot be used: No such file or directory.\n")


def test_a_foreign_file_is_not_saved(folder: Path, file: Path) -> None:
    """A SQLite file of another program is no installation, and no backup is made of it."""
    folder.mkdir()
    with sqlite3.connect(folder / "joulebox.db") as by_hand:
        by_hand.execute("CREATE TABLE something (number INTEGER)")
    by_hand.close()
    with pytest.raises(JouleboxError, match="No Joulebox server wrote the database"):
        archive.back_up(url_of(folder), file, WHEN, quiet)
    with postgres_server.database() as url, pytest.raises(JouleboxError, match="No Joulebox server wrote the database"):
        archive.back_up(url, file, WHEN, quiet)
    assert list(file.parent.iterdir()) == []
