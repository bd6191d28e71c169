"""Backlogs and old receipts for `make scale`, loaded past the server as quickly as Postgres takes them."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from joulebox.model import Message, Prompt
from joulebox.server.jobs import new_id

ASKERS = 200
"""Of them a tenth ask nine tenths of everything."""
NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
LAST = NOW
LAST_HOUR = "2026-11-23T06:00Z"
COLUMNS = (
    "id",
    "state",
    "model",
    "placement",
    "prompt",
    "created",
    "available",
    "attempt",
    "cancel",
    "rank",
    "turn",
    "asker",
)

RECEIPTS = (
    """INSERT INTO jobs (id, state, model, placement, prompt, created, available, attempt, node, cancel, finalized,
        answer, finish_reason, chunks, receipt_id)
    SELECT 'b' || n, 'completed', 'm', 'fastest', '{prompt}', at, at, 1, 'n' || n % 1000, false, at, 'Hello',
        'stop', '[]', 'r' || n
    FROM generate_series(1, {count}) AS n, LATERAL (SELECT '{start}'::timestamptz + n * interval '1 s' AS at) AS t""",
    """INSERT INTO attempts (token, job_id, number, node, instance, state, reason, leased, finished)
    SELECT 't' || n, 'b' || n, 1, 'n' || n % 1000, 'a', 'done', '', at, at
    FROM generate_series(1, {count}) AS n, LATERAL (SELECT '{start}'::timestamptz + n * interval '1 s' AS at) AS t""",
    "INSERT INTO traces (token, sha256, blob) SELECT 't' || n, '', '' FROM generate_series(1, {count}) AS n",
    """INSERT INTO receipts (id, revision, job_id, trace_token, factors, body, created)
    SELECT 'r' || n, 1, 'b' || n, 't' || n, '{{}}', '{{}}', at
    FROM generate_series(1, {count}) AS n, LATERAL (SELECT '{start}'::timestamptz + n * interval '1 s' AS at) AS t""",
)


def waiting(count: int, seed: int = 1) -> Iterator[tuple[Any, ...]]:
    """Rows of waiting prompts: two of three interactive, the rest for benchmarks, half of them for a rarer model."""
    rng = random.Random(seed)
    turns: Counter[str] = Counter()
    prompts = {
        model: json.dumps(asdict(Prompt(model=model, messages=(Message(role="user", content="hello " * 20),))))
        for model in ("m", "m2", "m3", "m4")
    }
    for _ in range(count):
        asker = f"a{rng.randrange(ASKERS // 10) if rng.random() < 0.9 else rng.randrange(ASKERS)}"
        model = rng.choice(("m", "m", "m", "m2", "m3", "m4"))
        rank = rng.choice((0, 0, 1))
        yield (new_id(), "available", model, "fastest", prompts[model], NOW, NOW, 0, False, rank, turns[asker], asker)
        turns[asker] += 1


async def load_waiting(url: str, count: int) -> None:
    """A backlog of so many, by COPY."""
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        await connection.copy_records_to_table("jobs", records=waiting(count), columns=COLUMNS)
        await connection.execute("VACUUM ANALYZE jobs")
    finally:
        await connection.close()


async def load_receipts(url: str, count: int) -> None:
    """So many answered prompts with their receipts, one a second; traces are empty and bodies short.

    Rows are made inside Postgres: what is measured is looking them up.
    """
    import asyncpg

    connection = await asyncpg.connect(url, command_timeout=None)
    start = LAST - timedelta(seconds=count)
    prompt = json.dumps(asdict(Prompt(model="m", messages=(Message(role="user", content="hello " * 20),))))
    try:
        for statement in RECEIPTS:
            await connection.execute(statement.format(prompt=prompt, start=start.isoformat(), count=count))
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
