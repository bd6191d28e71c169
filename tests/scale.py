"""`make scale`: the real server and a real Postgres behind growing backlogs; writes the numbers of `docs/scale.md`.

    python tests/scale.py [--sizes 10000 100000 1000000] [--prompts 20000] [--nodes 1000] [--limit-s 140]

Backlogs are loaded by COPY; simulated nodes in a process of their own then take, answer and deliver over real HTTP, and
one new prompt is asked for each answer. `--limit-s` ends a size after so long, and the page says how far it came.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import claims
import postgres_server
import scale_load
from accuracy_page import with_part
from joulebox.clock import SystemClock
from joulebox.protocol import to_json
from joulebox.server.store import Store
from joulebox.units import nanoseconds, seconds
from scale_fair import Asked, fairness, of_asking, of_the_line, served
from scale_nodes import Seen, Wire, centiles, work
from server_stage import offer

CLOCK = SystemClock()
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
IDLE_NODES = 300
SERVERS = 2
LOOKS = 9
Json = dict[str, Any]


# --- the machine ------------------------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def postgres_cpu_s(pid: int) -> float:
    """Processor time of Postgres: its first process and those that it started."""
    total = cpu_s(pid)
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                total += cpu_s(int(path.name))
    return total


@dataclass(frozen=True, slots=True)
class Fleet:
    """Running servers on a database of their own."""

    urls: tuple[str, ...]
    database_url: str
    pids: tuple[int, ...]

    @property
    def url(self) -> str:
        """The first of them."""
        return self.urls[0]

    @property
    def _name(self) -> str:
        return self.database_url.partition("@/")[2].partition("?")[0]

    def number(self, statement: str) -> int:
        """What a statement answers."""
        return int(postgres_server.server().execute(statement, self._name)[0][0])

    def transactions(self, rest_s: float = 1.2) -> int:
        """How many Postgres has kept in this database, once it has counted them: those of a connection that does
        nothing more take it ten seconds."""
        CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(rest_s))
        return self.number("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")

    def cost(self) -> tuple[float, float, int, int, int]:
        """Processor seconds of the servers and of Postgres, transactions, bytes of the database and of its traces."""
        kept = self.transactions()
        size = self.number("SELECT pg_database_size(current_database())")
        traces = self.number("SELECT pg_total_relation_size('traces')")
        return sum(map(cpu_s, self.pids)), postgres_cpu_s(postgres_server.server().pid), kept, size, traces


@contextmanager
def fleet(servers: int = 1) -> Iterator[Fleet]:
    """Server processes on a new database."""
    with postgres_server.database() as url, ExitStack() as running:
        started = [running.enter_context(_server(url)) for _ in range(servers)]
        yield Fleet(tuple(address for address, _ in started), url, tuple(pid for _, pid in started))


@contextmanager
def _server(database_url: str) -> Iterator[tuple[str, int]]:
    """The address and number of a server process."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"JOULEBOX_DATABASE_URL": database_url, "JOULEBOX_PORT": "0", "JOULEBOX_DATA_DIR": folder}
        command = (sys.executable, "-m", "joulebox", "serve")
        server = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            words = server.stdout.readline().split()
            yield next(word for word in words if word.startswith("http")), server.pid
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rush:
    """A backlog under a thousand nodes: what they saw, and what one prompt cost."""

    size: int
    load_s: float
    claim_ms: Json
    seen: Json
    server_ms: float
    postgres_ms: float
    transactions: float
    row_bytes: float
    trace_bytes: float


def rush(size: int, nodes: int, prompts: int, limit_s: float) -> Rush:
    """Load a backlog, then let the nodes work on it."""
    with fleet(SERVERS) as there:
        start_ns = CLOCK.now_ns()
        asyncio.run(scale_load.load_waiting(there.database_url, size))
        load_s = seconds(CLOCK.now_ns() - start_ns)
        claim_ms = asyncio.run(claim_times(there.database_url))
        before = there.cost()
        command = [sys.executable, str(ROOT / "tests" / "scale_nodes.py"), "--ask"]
        command += [word for url in there.urls for word in ("--url", url)]
        command += ["--nodes", str(nodes), "--prompts", str(prompts), "--limit-s", str(limit_s)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        seen: Json = json.loads(told.splitlines()[-1])
        spent = [now - then for now, then in zip(there.cost(), before, strict=True)]
        done = max(seen["done"], 1)
        server_s, postgres_s, kept, grown, traces = spent
        return Rush(
            size=size,
            load_s=load_s,
            claim_ms=claim_ms,
            seen=seen,
            server_ms=server_s / done * 1e3,
            postgres_ms=postgres_s / done * 1e3,
            transactions=kept / done,
            row_bytes=(grown - traces) / done,
            trace_bytes=traces / done,
        )


async def claim_times(url: str) -> Json:
    """Milliseconds of claims that find a job, with nobody else about; each is given back."""
    store = Store(url)
    await store.open()
    took = []
    for number in range(100):
        claim, took_ms = await claims.timed(store.claim(offer(node=f"c{number}"), lambda _: "", claims.NOW))
        assert claim is not None
        took.append(took_ms)
        await store.close_attempt(claim.attempt.token, claims.END, 3, claims.NOW)
    await store.close()
    return centiles(took)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Many idle nodes and one prompt at a time."""

    nodes: int
    jobs: int
    start_ms: Json
    transactions: float


async def idle(there: Fleet, nodes: int, jobs: int) -> Idle:
    """How long a prompt takes from the moment of asking until a node has it, and how many transactions it costs."""
    leased: asyncio.Queue[int] = asyncio.Queue()
    running = [asyncio.create_task(_idle_node(there.url, f"i{number}", leased)) for number in range(nodes)]
    wire, body, took = Wire(there.url), json.dumps({"model": "quiet", "prompt": "hello"}).encode(), []
    while len(json.loads((await _got(wire, "/api/v1/nodes"))[0])["nodes"]) < nodes:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    before = await asyncio.to_thread(there.transactions, 11.0)
    for _ in range(jobs):
        start_ns = CLOCK.now_ns()
        status, reply = await wire.post("/api/v1/prompts", body)
        assert status == 202, reply
        took.append(seconds(await leased.get() - start_ns) * 1e3)
        await asyncio.sleep(0.05)
    kept = await asyncio.to_thread(there.transactions, 11.0) - before
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    return Idle(nodes=nodes, jobs=jobs, start_ms=centiles(took), transactions=kept / jobs)


async def _idle_node(url: str, name: str, leased: "asyncio.Queue[int]") -> None:
    wire, hold, seen = Wire(url), Wire(url), Seen()
    wanted = to_json(offer(node=name, models=("quiet",), wait_s=25.0))
    while True:
        status, body = await wire.post("/node/v1/lease", wanted)
        if status == 200:
            leased.put_nowait(CLOCK.now_ns())
            await work(json.loads(body), name, wire, hold, seen)


async def _got(wire: Wire, path: str) -> tuple[bytes, float]:
    start_ns = CLOCK.now_ns()
    status = await wire.request("GET", path)
    body = await wire.body()
    assert status == 200, body
    return body, seconds(CLOCK.now_ns() - start_ns) * 1e3


async def looks(there: Fleet, receipts: int) -> dict[str, float]:
    """Median milliseconds of what people and programs look up, over HTTP, behind so many receipts."""
    await scale_load.load_receipts(there.database_url, receipts)
    middle = receipts // 2
    some = f"r{middle}"
    paths = {
        "newest prompts, 20": "/api/v1/prompts",
        "prompts from the middle, 100": f"/api/v1/prompts?limit=100&cursor={middle}",
        "oldest receipts, 100": "/api/v1/receipts?limit=100",
        "receipts from the middle, 100": f"/api/v1/receipts?limit=100&cursor={middle}",
        "receipts since the last hour, 100": f"/api/v1/receipts?limit=100&since={scale_load.LAST_HOUR}",
        "one receipt": f"/api/v1/receipts/{some}",
        "one prompt": f"/api/v1/prompts/b{middle}",
        "nodes": "/api/v1/nodes",
    }
    wire, found = Wire(there.url), {}
    for name, path in paths.items():
        found[name] = statistics.median([(await _got(wire, path))[1] for _ in range(LOOKS)])
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def machine() -> str:
    """Where and how busy."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores ({platform.machine()}), load averages {load} when this was written."


def rush_part(sizes: Sequence[int], nodes: int, prompts: int, limit_s: float) -> str:
    """Backlogs under a thousand nodes."""
    head = "| Backlog | Answered | Prompts/s | CPU a prompt: server | Postgres | nodes | Transactions |"
    lines = [f"{head} Claim p50 / p95, quiet |", "|--:|--:|--:|--:|--:|--:|--:|--:|"]
    more = ["| Backlog | COPY | Wait for a lease p50 / p95 | Asking | Delivery | Bytes a prompt | of its trace |"]
    more += ["|--:|--:|--:|--:|--:|--:|--:|"]
    troubles: list[str] = []
    for size in sizes:
        one = rush(size, nodes, prompts, limit_s)
        print(one, flush=True)
        seen, done = one.seen, one.seen["done"]
        rate = f"{done / seen['wall_s']:.0f}"
        nodes_ms = seen["cpu_s"] / max(done, 1) * 1e3
        costs = f"{one.server_ms:.1f} ms | {one.postgres_ms:.1f} ms | {nodes_ms:.1f} ms | {one.transactions:.1f}"
        claim = f"{one.claim_ms['p50']:.1f} / {one.claim_ms['p95']:.1f} ms"
        lines.append(f"| {size:,} | {done:,} of {prompts:,} | {rate} | {costs} | {claim} |")
        names = ("leased_s", "asked_s", "finished_s")
        waits = " | ".join(f"{seen[name]['p50']:.2f} / {seen[name]['p95']:.2f} s" for name in names)
        more.append(f"| {size:,} | {one.load_s:.0f} s | {waits} | {one.row_bytes:,.0f} | {one.trace_bytes:,.0f} |")
        troubles += [f"{size:,}: {what} ({count} times)" for what, count in seen["troubles"].items()]
    trouble = f"Refused or failed: {'; '.join(troubles)}." if troubles else "No request was refused or failed."
    return "\n".join([f"{nodes:,} nodes, {SERVERS} servers. {machine()}", "", *lines, "", *more, "", trouble])


def idle_part() -> str:
    """One prompt at a time for idle nodes; claims behind what waits for later."""
    with fleet() as there:
        one = asyncio.run(idle(there, 1, 60))
    with fleet() as there:
        many = asyncio.run(idle(there, IDLE_NODES, 60))
    lines = ["| Idle nodes | Asked until a node has it, p50 / p95 | Transactions a prompt, answered |", "|--:|--:|--:|"]
    for found in (one, many):
        times = f"{found.start_ms['p50']:.1f} / {found.start_ms['p95']:.1f} ms"
        lines.append(f"| {found.nodes} | {times} | {found.transactions:.1f} |")
    costs = {}
    for name, size in (("empty", 0), ("deferred, same model", 100_000)):
        with postgres_server.database() as url:
            costs[name] = asyncio.run(claims.ours(url, claims.BACKLOGS[name], size))[0]
    ratio = costs["deferred, same model"] / costs["empty"]
    claim = f"{costs['empty']:.2f} ms with an empty queue, {costs['deferred, same model']:.2f} ms"
    return "\n".join([*lines, "", f"A claim, p50: {claim} behind 100,000 deferred prompts ({ratio:.2f} times)."])


def looks_part(receipts: int) -> str:
    """What is looked up, behind many receipts."""
    with fleet() as there:
        found = asyncio.run(looks(there, receipts))
    lines = [
        f"{receipts:,} receipts without traces; median of {LOOKS} requests over HTTP.",
        "",
        "| Looked up | ms |",
        "|---|--:|",
    ]
    return "\n".join([*lines, *(f"| {name} | {took_ms:.1f} |" for name, took_ms in found.items())])


def fair_part(size: int, claims_: int) -> str:
    """The order of the line by itself."""
    rows = scale_load.waiting(size)
    line = [Asked(number, row[9], row[10], row[11]) for number, row in enumerate(rows)]
    lines = [
        "| Order | Jain's index of what askers got | Their first answer after, median | at worst |",
        "|---|--:|--:|--:|",
    ]
    orders: dict[str, tuple[Callable[[Asked], tuple[int, ...]], bool]] = {
        "as asked": (of_asking, False),
        "class and turn": (of_the_line, False),
        "class and turn, one in eight the longest waiting (what Joulebox does)": (of_the_line, True),
    }
    for name, (key, longest) in orders.items():
        found = fairness(line, served(line, claims_, key, longest=longest))
        lines.append(f"| {name} | {found.jain:.3f} | {found.first_claim:,.0f} claims | {found.worst_first_claim:,} |")
    who = f"{size:,} prompts of {scale_load.ASKERS} askers wait; a tenth of them asked nine tenths. {claims_:,} claims."
    return "\n".join([who, "", *lines])


def main() -> None:
    """Run everything and write each part into the page as soon as it is done."""
    parser = argparse.ArgumentParser(description="The service behind large backlogs.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--limit-s", type=float, default=140.0)
    parser.add_argument("--receipts", type=int, default=1_000_000)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    parts: dict[str, Callable[[], str]] = {
        "rush": lambda: rush_part(given.sizes, given.nodes, given.prompts, given.limit_s),
        "idle": idle_part,
        "looks": lambda: looks_part(given.receipts),
        "fair": lambda: fair_part(max(given.sizes), given.prompts),
    }
    try:
        for name, part in parts.items():
            start_ns = CLOCK.now_ns()
            text = part()
            print(f"--- {name}, {seconds(CLOCK.now_ns() - start_ns):.0f} s\n{text}", flush=True)
            page = given.page.read_text(encoding="utf-8") if given.page.exists() else "# Scale\n"
            given.page.write_text(with_part(page, name, text, "tests/scale.py"), encoding="utf-8")
    finally:
        postgres_server.end()


if __name__ == "__main__":
    main()
