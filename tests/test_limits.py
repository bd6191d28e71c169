"""What one person may take of a server, and what a table may do in a spreadsheet: bounds that hold."""

import asyncio
import csv
import io
import time
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from joulebox.columns import safe
from joulebox.errors import JouleboxError
from joulebox.server import campaigns_api, problems
from joulebox.server.campaigns import CampaignCell
from joulebox.server.store import archive
from server_stage import stage

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 23, tzinfo=UTC)
CELL = CampaignCell(
    campaign="c", node="-n", model="=1+1", digest="d", category="@x", asked=1, n=1, judged=1, right=1.0, figures={}
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_who_falls_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose body stops in the middle is answered after a while, for people and for nodes, and lets go."""
    monkeypatch.setattr(problems, "SILENT_S", 0.3)
    async with stage(tmp_path) as on:
        host, port = on.url.removeprefix("http://").split(":")
        for path in ("/api/v1/prompts", "/node/v1/lease", "/v1/chat/completions"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 90\r\n\r\n{{".encode())
            await writer.drain()
            async with asyncio.timeout(10):
                assert (await reader.readline()).split()[1] in (b"400", b"408", b"422"), path
            writer.close()
        await on.join()
        assert (await on.ask())["state"] == "available"


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_headers_that_never_end_are_given_up(tmp_path: Path) -> None:
    """Connections that send their headers sign by sign are closed after half a minute; others are served meanwhile."""
    async with stage(tmp_path) as on:
        host, port = on.url.removeprefix("http://").split(":")
        slow = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
        began_s = time.monotonic()
        for _, writer in slow:
            writer.write(b"GET / HTTP/1.1\r\nX: ")
        while any(not reader.at_eof() for reader, _ in slow) and time.monotonic() - began_s < 60:
            assert (await on.http.get("/healthz")).status_code == 200
            for reader, writer in slow:
                if not reader.at_eof() and not writer.is_closing():
                    writer.write(b"a")
            for reader, _ in slow:
                try:
                    async with asyncio.timeout(0.001):
                        await reader.read(100)
                except (TimeoutError, ConnectionError):
                    continue
            await asyncio.sleep(1)
        assert all(reader.at_eof() for reader, _ in slow)


async def test_headers_have_an_end(tmp_path: Path) -> None:
    """Headers of megabytes are refused, and the server goes on."""
    async with stage(tmp_path) as on:
        try:
            reply = await on.http.get("/api/v1/nodes", headers={"X-Long": "x" * 2_000_000})
            assert reply.status_code in (400, 413, 431)
        except httpx2.HTTPError:
            pass
        assert (await on.http.get("/api/v1/nodes")).status_code == 200


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1", "a;=1", "a;\t@x", "m\n=cmd|' /C calc'!A0"]
)
def test_no_cell_is_a_formula(cell: str) -> None:
    """Whatever parts cells where a table is opened, no text in it begins as a formula does."""
    for between in (",", ";", "\t", "\n", "\r"):
        for part in str(safe(cell)).split(between):
            assert not part.lstrip(" ").startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")), (between, part)
    assert safe("plain; text -5") == "plain; text -5"
    assert safe(-5.0) == -5.0


def test_a_published_table_holds_no_formula() -> None:
    """Names of models and categories that are formulas stay names in the table's CSV."""
    rows = list(csv.reader(io.StringIO(campaigns_api.as_csv([CELL]))))
    assert not any(value.startswith(("=", "@", "-n")) for value in rows[1])


def _packed(change: Callable[[zipfile.ZipFile], None], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        change(file)
    return path


BACKUPS: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "a way out": lambda file: file.writestr("../../manifest.json", "{}"),
    "a manifest without end": lambda file: file.writestr("manifest.json", b"[" * 50_000_000),
    "a manifest too deep": lambda file: file.writestr("manifest.json", b"[" * 200_000),
    "another packing": lambda file: file.writestr("manifest.json", "{}", compress_type=zipfile.ZIP_LZMA),
    "nothing": lambda file: None,
}


@pytest.mark.parametrize("kind", BACKUPS)
def test_a_backup_that_means_harm_is_none(kind: str, tmp_path: Path) -> None:
    """A way out of the folder, a bomb, a document too deep: one sentence, and nothing is written anywhere."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    path = _packed(BACKUPS[kind], inner / "backup.zip")
    with pytest.raises(JouleboxError, match="is no backup"):
        archive.restore(path, f"sqlite+aiosqlite:///{inner / 'new.db'}", inner, NOW, lambda *_: None)
    assert {one.name for one in tmp_path.rglob("*")} <= {"a", "b", "backup.zip"}


def test_a_packing_that_is_damaged(tmp_path: Path) -> None:
    """A stream of another packing that is damaged is no failure of ours."""
    packing = zipfile.ZIP_BZIP2
    path = _packed(lambda file: file.writestr("manifest.json", "x" * 5_000, compress_type=packing), tmp_path / "b")
    body = bytearray(path.read_bytes())
    body[60:90] = bytes(30)
    path.write_bytes(body)
    with pytest.raises(JouleboxError, match="is no backup"):
        archive.manifest_of(path)
