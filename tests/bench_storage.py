"""What a run leaves behind, and looking things up behind more and more receipts (`make bench PART=storage`)."""

import asyncio
import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from statistics import median

import scale
from bench_gateways import joulebox, rush
from bench_page import Json, Part, Row, table
from bench_requests import slots
from joulebox.evidence import encode_trace
from joulebox.model import Trace
from traces import channel, series, trace, work

SIZES = (10_000, 100_000, 1_000_000)
GROWTH_MAX = 2.0
"""Flat or logarithmic: behind a hundred times as many receipts a look takes at most so many times as long."""
FLOOR_MS = 1.0
"""A look that takes less is taken for so long: its growth would be noise."""
RUSH_S = 4.0
BAR = 40
NOISE_J = 0.002
"""Of each reading, as a counter's own tick makes it: what is regular would be kept in nearly no room."""


def noisy() -> Trace:
    """The evidence of a minute: four counters, a hundred readings a second."""
    chance = random.Random(3)
    drawn = work(10.0, 50.0, 1.0, 59.0)
    four = [
        series(channel(name), lambda t_s: drawn(t_s) + chance.gauss(0.0, NOISE_J), 60.0, 0.01)
        for name in ("package-0", "core", "dram", "psys")
    ]
    return trace(*four, start_s=1.0, end_s=59.0)


def as_rows(evidence: Trace) -> int:
    """Bytes of the same as one row a reading."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.sqlite"
        with closing(sqlite3.connect(path)) as rows, rows:
            rows.execute("CREATE TABLE reading (run TEXT, channel TEXT, t_ns INTEGER, raw INTEGER)")
            rows.executemany(
                "INSERT INTO reading VALUES ('run-1', ?, ?, ?)",
                ((s.channel.name, t, r) for s in evidence.series for t, r in zip(s.t_ns, s.raw, strict=True)),
            )
        return path.stat().st_size


def bytes_a_run() -> tuple[float, float]:
    """How much the database grows by one prompt with its receipt and short trace, and how much of it is the trace."""
    with joulebox() as ours, slots(ours.url):
        asyncio.run(rush(ours, 16, RUSH_S))
        assert ours.folder is not None
        with closing(sqlite3.connect(f"file:{ours.folder / 'joulebox.db'}?mode=ro", uri=True)) as rows:
            (prompts,) = rows.execute("SELECT count(*) FROM receipts").fetchone()
            (traces,) = rows.execute("SELECT sum(length(blob)) FROM traces").fetchone()
            (pages,) = rows.execute("PRAGMA page_count").fetchone()
            (size,) = rows.execute("PRAGMA page_size").fetchone()
    return pages * size / prompts, traces / prompts


def part(_: int) -> Part:
    """A run, then three sizes, each on a database of its own."""
    evidence = noisy()
    packed, plain = len(encode_trace(evidence)), as_rows(evidence)
    readings = sum(len(one.t_ns) for one in evidence.series)
    run_bytes, trace_bytes = bytes_a_run()
    found: dict[int, dict[str, float]] = {}
    for size in SIZES:
        with scale.fleet() as there:
            found[size] = asyncio.run(scale.looks(there, size))
        print(size, found[size], flush=True)
    growth = {
        name: max(found[SIZES[-1]][name], FLOOR_MS) / max(first_ms, FLOOR_MS)
        for name, first_ms in found[SIZES[0]].items()
    }
    worst = max(growth, key=lambda name: growth[name])
    rows = [
        Row(
            what=f"a minute of four counters at 100 Hz ({readings:,} readings)",
            figure=f"{packed / 1e3:.0f} kB",
            beside=f"one row a reading in SQLite: {plain / 1e3:,.0f} kB, {plain / packed:.0f} times",
        ),
        Row(
            what="a prompt with answer, receipt and a short trace, in SQLite",
            figure=f"{run_bytes / 1e3:.1f} kB, of which {trace_bytes / 1e3:.1f} kB are the trace",
        ),
        Row(
            what=f"looking things up behind {SIZES[-1]:,} receipts instead of {SIZES[0]:,}",
            figure=f"{median(growth.values()):.2f} times as long, at worst {growth[worst]:.2f} ({worst})",
            target=f"flat or logarithmic: <= {GROWTH_MAX:g} times",
            reached=growth[worst] <= GROWTH_MAX,
        ),
    ]
    raw: Json = {"trace_bytes": packed, "rows_bytes": plain, "run_bytes": run_bytes, "run_trace_bytes": trace_bytes}
    text = TEXT.format(readings=readings, packed=packed, plain=plain, times=plain / packed, run=run_bytes)
    return Part(rows=rows, text=f"{text}\n{_table(found)}\n\n{_curves(found)}", raw=raw | {"looks_ms": found})


TEXT = """## What is kept, and finding it again

The readings of a minute, four counters at 100 Hz ({readings:,} of them), are {packed:,} bytes as Joulebox keeps them
and {plain:,} as one row a reading in SQLite, {times:.0f} times as much. A prompt with answer, receipt and a trace of a
second takes {run:,.0f} bytes.

Looked up over HTTP on Postgres, the median of nine requests each, behind so many answered prompts with their receipts
(without traces; rows made inside the database).
"""


def _table(found: dict[int, dict[str, float]]) -> str:
    head = ("Looked up, ms", *(f"{size:,} receipts" for size in SIZES))
    lines = [(name, *(f"{found[size][name]:.1f}" for size in SIZES)) for name in found[SIZES[0]]]
    return table(head, lines)


def _curves(found: dict[int, dict[str, float]]) -> str:
    """The same drawn: a bar for each size; a curve that grew with the receipts would be a hundred times as long."""
    longest = max(ms for one in found.values() for ms in one.values())
    lines = []
    for name in found[SIZES[0]]:
        for size in SIZES:
            bar = "#" * max(1, round(found[size][name] / longest * BAR))
            lines.append(f"{name if size == SIZES[0] else '':<34} {size:>9,}  {bar} {found[size][name]:.1f} ms")
    return "\n".join(["```text", *lines, "```"])
