"""Requests a second and the CPU of each, before an engine that takes no time (`make bench PART=requests`)."""

import asyncio
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

from bench_gateways import (
    DIRECT,
    FLOOR,
    OURS,
    PROXY,
    TESTS,
    Gateway,
    Rushed,
    floor,
    joulebox,
    litellm,
    process,
    rush,
    upstream,
)
from bench_page import Part, Row, spread, table
from joulebox.client import Client
from stage import wait

CLIENTS = (1, 16, 64)
RUSH_S = 2.0
SLOTS = 64
GUARD_S = 1.0
GUARDED = f"{OURS}, guards on"
CPU_MAX = 0.5
Rushes = dict[tuple[str, int], list[Rushed]]


@contextmanager
def slots(url: str, guard_s: float = 0.0) -> Iterator[Gateway]:
    """So many node slots, each a simulated node over the real protocol whose model takes no time; all in a process."""
    command = [sys.executable, str(TESTS / "scale_nodes.py"), "--url", url, "--nodes", str(SLOTS)]
    with process([*command, "--prompts", "100000000", "--guard-s", str(guard_s)]) as started:
        client = Client(url)
        while len(client.nodes()) < SLOTS:
            wait(0.2)
        client.close()
        yield Gateway(name="the nodes", port=0, pids=(started.pid,))


def part(rounds: int) -> Part:
    """All gateways in turns, in drawn order."""
    rows: Rushes = {}
    nodes_ms: list[float] = []
    with ExitStack() as running:
        engine = running.enter_context(upstream(8, 0.0))
        ours, guarded = running.enter_context(joulebox()), running.enter_context(joulebox())
        nodes = running.enter_context(slots(ours.url))
        running.enter_context(slots(guarded.url, GUARD_S))
        others = [running.enter_context(one(engine)) for one in (floor, litellm)]
        named = {one.name: one for one in (engine, *others, ours) if one is not None} | {GUARDED: guarded}
        for one in named.values():
            asyncio.run(rush(one, 16, 1.0))
        chance = random.Random(1)
        for turn in range(rounds):
            for clients in CLIENTS:
                for name in chance.sample(list(named), len(named)):
                    before_s = nodes.cpu_s()
                    found = asyncio.run(rush(named[name], clients, RUSH_S))
                    rows.setdefault((name, clients), []).append(found)
                    if name == OURS:
                        nodes_ms.append((nodes.cpu_s() - before_s) / max(found.requests, 1) * 1e3)
                    print(f"{turn + 1}: {name}, {clients}: {found.rate:.0f}/s, {found.cpu_ms:.2f} ms", flush=True)
    raw = {f"{name}, {clients} clients": [
        {"rate": one.rate, "cpu_ms": one.cpu_ms, "failed": one.failed, "p50_s": median(one.took_s or (0.0,))}
        for one in found] for (name, clients), found in rows.items()}  # fmt: skip
    text = TEXT.format(slots=SLOTS, guard_s=GUARD_S, rush_s=RUSH_S, nodes=spread(nodes_ms))
    return Part(rows=list(overview(rows)), text=f"{text}\n{_table(rows, list(named))}", raw=raw)


TEXT = """## Requests a second

Clients ask as fast as they are answered, for {rush_s} s at a time. Behind every gateway stands an engine that takes no
time. LiteLLM is a bare proxy here (one process, a master key, no database, logs of errors alone); the bare ASGI proxy
(uvicorn, aiohttp) hands bytes on and is the least that Python can do. Joulebox does more for each request, and nothing
is left out: the prompt is kept in SQLite before it is taken up, leased to one of {slots} nodes, held, told, delivered
with readings, accounted, and its receipt kept before the answer is complete. The nodes have no meter to wait for. With
guards on each rests {guard_s:g} s after an answer, as one with a meter does: {slots} slots then give no more than
{slots} a second. CPU is the gateway's own, with all processes that it started; the {slots} simulated nodes take
{nodes} ms a request more, on machines of their own in real life.
"""


def _table(rows: Rushes, names: Sequence[str]) -> str:
    head = ("Gateway", "Clients", "Requests/s", "CPU a request, ms", "Answer after, p50, ms", "Failed")
    lines = [
        (
            name,
            str(clients),
            spread([one.rate for one in rows[name, clients]], "{:.0f}"),
            spread([one.cpu_ms for one in rows[name, clients]]),
            spread([median(one.took_s) * 1e3 for one in rows[name, clients] if one.took_s], "{:.1f}"),
            str(sum(one.failed for one in rows[name, clients])),
        )
        for clients in CLIENTS
        for name in sorted(names, key=order)
    ]
    return table(head, lines)


def order(name: str) -> int:
    """Where a gateway stands in a table."""
    return (DIRECT, FLOOR, PROXY, OURS, GUARDED).index(name)


def overview(rows: Mapping[tuple[str, int], Sequence[Rushed]]) -> Iterator[Row]:
    """Beside LiteLLM: more requests a second at no more than half the processor time."""
    for clients in CLIENTS:
        ours, theirs = (rows.get((name, clients), ()) for name in (OURS, PROXY))
        rate, cpu = spread([one.rate for one in ours], "{:.0f}"), spread([one.cpu_ms for one in ours])
        row = Row(
            what=f"requests/s and CPU a request, {clients} client{'s' * (clients > 1)}",
            figure=f"{rate}/s, {cpu} ms",
            target="more requests/s than LiteLLM at <= 0.5 of its CPU",
        )
        if theirs:
            faster = [one.rate / other.rate for one, other in zip(ours, theirs, strict=True)]
            less = [one.cpu_ms / other.cpu_ms for one, other in zip(ours, theirs, strict=True)]
            told = f"LiteLLM {median(o.rate for o in theirs):.0f}/s, {median(o.cpu_ms for o in theirs):.2f} ms"
            row = Row(
                what=row.what,
                figure=f"{row.figure}: {spread(faster)} times LiteLLM's rate at {spread(less)} of its CPU",
                beside=told,
                target=row.target,
                reached=median(faster) > 1 and median(less) <= CPU_MAX,
                why="Every request is queued durably, accounted and its receipt stored." if clients > 1 else ONE,
            )
        else:
            row = Row(what=row.what, figure=row.figure, target=row.target, beside="LiteLLM could not be installed here")
        yield row
    found = rows[GUARDED, CLIENTS[-1]]
    yield Row(
        what=f"the same with guards of {GUARD_S:g} s, {CLIENTS[-1]} clients on {SLOTS} slots",
        figure=f"{spread([one.rate for one in found], '{:.0f}')}/s, {spread([one.cpu_ms for one in found])} ms",
        beside=f"{SLOTS / GUARD_S:.0f}/s is all that the guards leave",
    )


ONE = "One client waits for each answer's receipt before it asks again: it sees the way there and back and no overlap."
