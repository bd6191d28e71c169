"""What a claim costs on Postgres, beside PgQueuer's where that is installed, with nothing and with much behind it.

    python tests/claims.py [--backlog 100000]

PgQueuer is no dependency: `uv run --with pgqueuer` brings it for once.
`docs/decisions` holds what it printed.
"""

import argparse
import asyncio
import importlib.util
import statistics
import uuid
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import postgres_server
from joulebox.clock import SystemClock
from joulebox.model import AttemptState, Message, Problem, Prompt
from joulebox.server.jobs import Ending
from joulebox.server.store import Store
from joulebox.units import seconds
from server_stage import offer

CLOCK = SystemClock()
CLAIMS = 200
T = TypeVar("T")
NOW = datetime(2026, 11, 23, tzinfo=UTC)
PROMPT = Prompt(model="m", messages=(Message(role="user", content="hi"),))
END = Ending(AttemptState.CANCELLED, Problem(code="cancelled", detail="measured"))
COLUMNS = "id, state, model, placement, prompt, created, available, attempt, cancel"
BACKLOGS = {
    "empty": "",
    "deferred, same model": "'deferred', 'm', 'fastest'",
    "ready, other models": "'available', 'k', 'fastest'",
    "ready, other node": "'available', 'm', 'node:n9'",
}


async def timed(what: Awaitable[T]) -> tuple[T, float]:
    """What comes of it, and after how many milliseconds."""
    start_ns = CLOCK.now_ns()
    result = await what
    return result, seconds(CLOCK.now_ns() - start_ns) * 1e3


async def ours(url: str, backlog: str, size: int) -> tuple[float, float]:
    """Median milliseconds of a claim that finds a job, and of one that finds nothing, behind a backlog."""
    store = Store(url)
    await store.open()
    postgres = postgres_server.server()
    name = url.partition("@/")[2].partition("?")[0]
    if backlog:
        postgres.execute(
            f"INSERT INTO jobs ({COLUMNS}) SELECT 'b' || n, {backlog}, '{{}}', now(), now() + interval '1 day', 0,"
            f" false FROM generate_series(1, {size}) AS n",
            name,
        )
    postgres.execute("VACUUM ANALYZE jobs", name)
    nothing, found = [], []
    for number in range(CLAIMS):
        request = offer(node=f"n{number}a")
        nothing.append((await timed(store.claim(request, lambda _: "", NOW)))[1])
        await store.enqueue(PROMPT, "fastest", None, NOW)
        claim, took_ms = await timed(store.claim(request, lambda _: "", NOW))
        assert claim is not None
        found.append(took_ms)
        await store.close_attempt(claim.attempt.token, END, 3, NOW)
    await store.close()
    return statistics.median(found), statistics.median(nothing)


async def pgqueuers(url: str, backlog: str, size: int) -> tuple[float, float]:
    """The same of PgQueuer: one dequeue of a batch of one. It keeps neither attempts nor receipts."""
    import asyncpg
    from pgqueuer.ports.repository import EntrypointExecutionParameter
    from pgqueuer.queries import Queries

    connection = await asyncpg.connect(url)
    queue = Queries.from_asyncpg_connection(connection)
    await queue.install()
    if backlog:
        later = timedelta(days=1) if "deferred" in backlog else timedelta(0)
        names = ["m/fastest" if "deferred" in backlog else "k/fastest" if "'k'" in backlog else "m/node:n9"] * 10_000
        for _ in range(size // len(names)):
            await queue.enqueue(names, [None] * len(names), [0] * len(names), [later] * len(names))
    await connection.execute("VACUUM ANALYZE")
    manager, wait = uuid.uuid4(), timedelta(seconds=30)
    nothing, found = [], []
    for number in range(CLAIMS):
        lines = {line: EntrypointExecutionParameter(concurrency_limit=0) for line in ("m/fastest", f"m/node:n{number}")}
        nothing.append((await timed(queue.dequeue(1, lines, manager, None, wait)))[1])
        await queue.enqueue("m/fastest", None)
        jobs, took_ms = await timed(queue.dequeue(1, lines, manager, None, wait))
        found.append(took_ms)
        await queue.log_jobs([(jobs[0], "successful", None)])
    await connection.close()
    return statistics.median(found), statistics.median(nothing)


async def main(size: int) -> None:
    """Print one line for each backlog."""
    kinds: dict[str, Any] = {"Joulebox": ours}
    if importlib.util.find_spec("pgqueuer"):
        kinds["PgQueuer"] = pgqueuers
    for name, backlog in BACKLOGS.items():
        for kind, measure in kinds.items():
            with postgres_server.database() as url:
                found, nothing = await measure(url, backlog, size)
            print(f"{kind:9s} {size if backlog else 0:7d} {name:22s} claim {found:6.2f} ms, nothing {nothing:6.2f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--backlog", type=int, default=100_000)
    try:
        asyncio.run(main(parser.parse_args().backlog))
    finally:
        postgres_server.end()
