"""What people take away: receipts as JSON Lines, CSV, Parquet and codecarbon's columns, and the readings behind."""

import asyncio
import csv
import io
import json
import re
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import traces
from joulebox import codecarbon, tabular
from joulebox.accounting import account, receipt_bytes
from joulebox.cli import app as command_line
from joulebox.columns import READING, RECEIPT, receipt_row, safe
from joulebox.errors import JouleboxError
from joulebox.evidence import encode_trace
from joulebox.model import Receipt
from joulebox.server.export import trace_parquet
from joulebox.tabular import csv_chunks, whole_file, write_parquet
from server_stage import COUNTER, MODEL, Stage, done, stage

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "export.md"
ANSWERS = 5
Json = dict[str, Any]


async def answers(scene: Stage, count: int) -> list[str]:
    """Have so many prompts answered; the ids of their receipts."""
    await scene.join()
    receipts = []
    for _ in range(count):
        await scene.ask()
        lease = await scene.lease()
        receipts.append((await scene.finish(lease, done(lease, "Hel", "lo"))).json()["receipt_id"])
    return receipts


@contextmanager
def served(folder: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """A server with so many answers, in a thread of its own; its address and the receipts."""
    ready, end = threading.Event(), threading.Event()
    told: list[tuple[str, list[str]]] = []

    async def run() -> None:
        async with stage(folder) as scene:
            told.append((scene.url, await answers(scene, count)))
            ready.set()
            await asyncio.to_thread(end.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield told[0]
    finally:
        end.set()
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """One server with answers for all tests that only read."""
    with served(tmp_path_factory.mktemp("site"), ANSWERS) as found:
        yield found


def export(url: str, *words: str) -> bytes:
    """What `joulebox receipts export` prints."""
    done_ = CliRunner().invoke(command_line, ["receipts", "export", "--server", url, *words], catch_exceptions=True)
    if done_.exception is not None:
        raise done_.exception
    return done_.stdout_bytes


def asked(query: str) -> list[Any]:
    """What DuckDB answers."""
    found = duckdb.sql(query)
    assert found is not None
    return found.fetchall()


def made(**changes: Any) -> Receipt:
    """A receipt of a machine with processor and memory counters."""
    memory = traces.channel("dram", scope="dram")
    both = [
        traces.series(COUNTER, traces.work(10.0, 30.0, 30.0, 32.0), 34.0),
        traces.series(memory, traces.work(1.0, 3.0, 30.0, 32.0), 34.0),
    ]
    return account(traces.trace(*both, **changes), traces.factors(), receipt_id="r1", placement=traces.PLACEMENT)


def plain(receipt: Receipt) -> Json:
    """A receipt as people get it."""
    found: Json = json.loads(receipt_bytes(receipt))
    return found


def test_json_lines_are_the_receipts_themselves(site: tuple[str, list[str]]) -> None:
    """Without a format receipts come byte for byte as the server keeps them, one a line, in the order of asking."""
    url, receipts = site
    lines = export(url, "--all").splitlines()
    assert [json.loads(line)["id"] for line in lines] == receipts
    assert export(url, receipts[1]).rstrip(b"\n") == lines[1]


def test_pages_follow_one_another(tmp_path: Path) -> None:
    """A page names the next one in its `Link` header, the last names none, and none is told twice."""

    async def run() -> None:
        async with stage(tmp_path) as scene:
            ids = await answers(scene, 3)
            path: str | None = "/api/v1/receipts.jsonl?limit=2"
            found = []
            while path is not None:
                reply = await scene.http.get(path)
                assert reply.headers["content-type"] == "application/x-ndjson"
                found.append([json.loads(line)["id"] for line in reply.text.splitlines()])
                path = reply.links.get("next", {}).get("url")
            assert found == [ids[:2], ids[2:]]
            wrong = await scene.http.get("/api/v1/receipts.jsonl?cursor=x")
            assert (wrong.status_code, wrong.json()["code"]) == (422, "bad_request")

    asyncio.run(run())


def test_every_revision_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    """A receipt made again is told in its newest form, and with `--revisions` in every form, the first one first."""

    async def run() -> tuple[bytes, bytes]:
        async with stage(tmp_path) as scene:
            (receipt_id,) = await answers(scene, 1)
            kept = await scene.store.kept(receipt_id)
            assert kept is not None
            newer = replace(kept.receipt, revision=2, body=kept.receipt.body.replace(b'"revision":1', b'"revision":2'))
            assert await scene.store.add_revision(newer, scene.grid.clock.utc())
            newest = (await scene.http.get("/api/v1/receipts.jsonl")).content
            return newest, (await scene.http.get("/api/v1/receipts.jsonl?revisions=true")).content

    newest, every = asyncio.run(run())
    assert [json.loads(line)["revision"] for line in newest.splitlines()] == [2]
    assert [json.loads(line)["revision"] for line in every.splitlines()] == [1, 2]


def test_csv_has_a_row_for_each_receipt(site: tuple[str, list[str]]) -> None:
    """CSV has the documented columns, numbers that are those of the receipt, and empty cells where it has null."""
    url, receipts = site
    rows = list(csv.DictReader(io.StringIO(export(url, "--all", "--format", "csv").decode(), newline="")))
    assert [row["receipt_id"] for row in rows] == receipts
    assert list(rows[0]) == [one.name for one in RECEIPT]
    body = json.loads(export(url, receipts[0]))
    assert float(rows[0]["answer_j"]) == body["energy"]["answer"]["j"]
    assert float(rows[0]["intensity_g_per_kwh"]) == body["carbon"]["intensity"]["g_per_kwh"]
    assert rows[0]["missing"] == " ".join(body["energy"]["missing"])
    assert (rows[0]["saved_g"], rows[0]["water_l"]) == ("", "")


def test_every_column_leads_somewhere() -> None:
    """Each column's path is there in a receipt, so that no column is empty for a slip of the pen."""
    receipt = plain(made())

    def leads(found: Any, path: list[str]) -> bool:
        if not path or found is None:
            return True
        part = path[0].removesuffix("[]")
        if part not in found:
            return found is receipt["energy"]["phases"]  # a run has only some phases
        inner = found[part]
        if path[0].endswith("[]"):
            return all(leads(one, path[1:]) for one in inner)
        return leads(inner, path[1:])

    assert [one.name for one in RECEIPT if not leads(receipt, one.path.split("."))] == []
    kinds = {"text": str, "int": int, "float": float, "bool": bool, "time": str}
    row = receipt_row(receipt)
    pairs = zip(RECEIPT, row, strict=True)
    wrong = [one.name for one, cell in pairs if cell is not None and type(cell) is not kinds[one.kind]]
    assert wrong == []


def test_names_say_their_units() -> None:
    """Numbers have a unit at the end of their name, or are counts, ratios or a revision."""
    bare = {"revision", "seed", "pue"}
    ends = ("_j", "_s", "_w", "_g", "_l", "_ns", "_per_kwh", "_tokens")
    numbers = [one.name for one in RECEIPT if one.kind in {"int", "float"}]
    assert [name for name in numbers if name not in bare and not name.endswith(ends)] == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")'])
def test_no_text_is_a_formula(text: str) -> None:
    """A model or node may be called anything: in CSV its name never begins as a formula does, and numbers stay."""
    receipt = plain(made(model=replace(MODEL, id=text)))
    chunk = b"".join(csv_chunks([one.name for one in RECEIPT], [receipt_row(receipt)])).decode()
    (row,) = csv.DictReader(io.StringIO(chunk, newline=""))
    assert row["model"].startswith("'")
    assert row["model"].replace("'", "") == text
    assert safe(-1.5) == -1.5


def test_parquet_is_read_by_duckdb(site: tuple[str, list[str]], tmp_path: Path) -> None:
    """Exported Parquet has the receipts' numbers with their types, and says which schema and methods are in it."""
    url, receipts = site
    path = tmp_path / "receipts.parquet"
    assert export(url, "--all", "--format", "parquet", "--output", str(path)) == b""
    found = asked(f"SELECT receipt_id, answer_j, output_tokens, created, saved_g FROM '{path}'")
    bodies = [json.loads(line) for line in export(url, "--all").splitlines()]
    assert [row[0] for row in found] == receipts
    assert [row[1] for row in found] == [body["energy"]["answer"]["j"] for body in bodies]
    assert [(type(row[2]), row[4]) for row in found] == [(int, None)] * ANSWERS
    assert [row[3].isoformat(timespec="seconds") for row in found] == [body["created"][:19] for body in bodies]
    told = pq.read_metadata(path).metadata
    assert told[b"joulebox.method_version"].decode() == bodies[0]["method_version"]
    assert told[b"joulebox.schema"].decode() == bodies[0]["schema"]
    assert pq.read_schema(path).field("answer_j").metadata[b"meaning"].decode().endswith("joules.")


def test_the_queries_of_the_page_run(
    site: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every DuckDB query of the page answers on what its commands exported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evidence").mkdir()
    words = ["--all", "--format", "parquet", "--output", "receipts.parquet", "--traces", "evidence"]
    export(site[0], *words)
    queries = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(queries) >= 6
    results = [asked(query) for query in queries]
    bodies = [json.loads(line) for line in export(site[0], "--all").splitlines()]
    valid = [body for body in bodies if body["verdict"] == "valid"]
    assert [row[:4] for row in results[0]] == [("m", "n1", "cpu", len(valid))] * bool(valid)
    assert sum(row[3] for row in results[2]) == sum(len(body["reasons"]) for body in bodies if body not in valid)
    assert sum(row[1] for row in results[3]) == ANSWERS
    assert len(results[4]) == ANSWERS
    assert {name for name, _ in results[5]} == {"joulebox.schema", "joulebox.method_version", "joulebox.version"}


def test_readings_are_the_same_in_every_form(site: tuple[str, list[str]], tmp_path: Path) -> None:
    """JSON, CSV and Parquet of a trace hold the same readings, and Parquet the rest of the trace in its metadata."""
    url, receipts = site
    for form in ("json", "csv", "parquet"):
        export(url, receipts[0], "--format", form, "--output", str(tmp_path / "x"), "--traces", str(tmp_path))
    trace = json.loads((tmp_path / f"{receipts[0]}.trace.json").read_text())
    with (tmp_path / f"{receipts[0]}.trace.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / f"{receipts[0]}.trace.parquet")
    assert table.column_names == list(rows[0]) == [one.name for one in READING]
    (series,) = trace["series"]
    assert [int(row["raw"]) for row in rows] == table["raw"].to_pylist() == series["raw"]
    assert [float(row["value"]) for row in rows] == table["value"].to_pylist()
    path = tmp_path / f"{receipts[0]}.trace.parquet"
    told = json.loads(pq.read_metadata(path).metadata[b"joulebox.trace"])
    assert (told["spans"], told["node"], told["origin"]) == (trace["spans"], "n1", trace["origin"])


def test_codecarbon_columns_hold_what_fits(site: tuple[str, list[str]]) -> None:
    """The file has codecarbon's columns in its units, and is empty where a receipt does not tell."""
    url, receipts = site
    rows = list(csv.DictReader(io.StringIO(export(url, "--all", "--format", "codecarbon").decode(), newline="")))
    body = json.loads(export(url, receipts[0]))
    assert [row["run_id"] for row in rows] == receipts
    assert list(rows[0]) == list(codecarbon.COLUMNS)
    kwh = body["energy"]["answer"]["j"] / 3.6e6
    assert float(rows[0]["energy_consumed"]) == pytest.approx(kwh * body["carbon"]["pue"])
    assert float(rows[0]["emissions"]) == pytest.approx(body["carbon"]["operational"]["g"] / 1000)
    assert float(rows[0]["emissions_rate"]) == pytest.approx(float(rows[0]["emissions"]) / float(rows[0]["duration"]))
    assert (rows[0]["country_name"], rows[0]["os"], rows[0]["gpu_energy"]) == ("", "", "")


def test_codecarbon_has_parts_and_leaves_out_what_is_invalid() -> None:
    """Processor and memory stand in their columns with PUE, and an invalid receipt has no row."""
    receipt = plain(made())
    row = dict(zip(codecarbon.COLUMNS, codecarbon.codecarbon_row(receipt) or (), strict=True))
    scopes = receipt["energy"]["scopes"]
    assert row["cpu_energy"] == pytest.approx(scopes["cpu"]["j"] / 3.6e6)
    assert row["ram_power"] == pytest.approx(scopes["dram"]["j"] / receipt["times"]["duration_s"])
    assert row["cpu_energy"] + row["ram_energy"] == pytest.approx(row["energy_consumed"])
    assert codecarbon.codecarbon_row(receipt | {"verdict": "invalid"}) is None


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    """An export that breaks in the middle leaves neither a new file nor a part of one, and the old one as it was."""
    path = tmp_path / "receipts.csv"
    path.write_text("old")

    def rows() -> Iterator[tuple[int]]:
        yield from ((number,) for number in range(100_000))
        raise JouleboxError("no_server", "gone")

    with pytest.raises(JouleboxError, match="gone"), whole_file(path) as file:
        file.writelines(csv_chunks(["n"], rows()))
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("receipts.csv", "old")]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_export(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many more rows are written in the same memory."""
    monkeypatch.setattr(tabular, "ROWS_AT_ONCE", 50)
    row = receipt_row(plain(made()))

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        with (tmp_path / "out").open("wb") as file:
            rows = (row for _ in range(count))
            if form == "csv":
                file.writelines(csv_chunks([one.name for one in RECEIPT], rows))
            else:
                write_parquet(file, RECEIPT, rows, dict)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = (400, 2_000) if form == "csv" else (60, 600)
    peak_bytes(few)
    assert peak_bytes(many) < 1.5 * peak_bytes(few) + 100_000


def test_without_the_extra_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where pyarrow is not installed, Parquet is refused with what to install, by the server too."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(JouleboxError, match=re.escape("pip install 'joulebox[parquet]'")) as refused:
        write_parquet(io.BytesIO(), RECEIPT, [], dict)
    assert (refused.value.code, refused.value.failure.status) == ("missing_extra", 501)
    blob = traces_blob()
    with pytest.raises(JouleboxError, match="parquet"):
        trace_parquet(blob)


def traces_blob() -> bytes:
    """A trace as it is kept."""
    return encode_trace(traces.trace(traces.series(COUNTER, traces.work(10.0, 30.0, 30.0, 32.0), 34.0)))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--all", "--format", "parquet"], "name it with --output FILE"),
        ([], "Say which receipts"),
        (["--all", "--since", "2026-01-01"], "Say which receipts"),
        (["--all", "--traces", "nowhere"], "There is no folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], sentence: str) -> None:
    """A wish that contradicts itself is refused in one sentence before a server is asked."""
    with pytest.raises(JouleboxError, match=sentence):
        export("http://127.0.0.1:9", *words)
