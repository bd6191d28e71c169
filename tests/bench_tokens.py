"""What the whole path (API, queue, node, engine) adds to the first token, and what each further token costs
(`make bench PART=tokens`)."""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from bench_gateways import CLOCK, DIRECT, OURS, PROXY, Gateway, Streamed, floor, litellm, stream, upstream
from bench_page import Part, Row, spread, table
from joulebox.client import Client
from joulebox.supervisor import Supervisor
from stage import wait

TOKENS, GAP_MS = 200, 5.0
FIRSTS = 24
STREAMS = 16
ADDED_MAX_MS = 10.0
CPU_MAX = 0.1
Streams = dict[tuple[str, int], list[Streamed]]


@contextmanager
def whole_path(engine: Gateway, nodes: int = 1) -> Iterator[Gateway]:
    """Server and real nodes before that engine, without a meter and so without guards."""
    with tempfile.TemporaryDirectory() as folder:
        supervisor = Supervisor(CLOCK)
        common = {"JOULEBOX_DATA_DIR": folder, "JOULEBOX_CONTROL_EVERY_S": "0", "JOULEBOX_ZONE": "DE"}
        try:
            url = supervisor.start("server", ["serve", "--port", "0"], common)
            for number in range(nodes):
                own = {"JOULEBOX_SERVER": url, "JOULEBOX_NODE": f"bench{number}", "JOULEBOX_METERS": "none:"}
                own |= {
                    "JOULEBOX_DATA_DIR": f"{folder}/{number}",
                    "JOULEBOX_ENGINE": f"openai:{engine.url}",
                }
                supervisor.start(f"node{number}", ["node"], common | own)
            client = Client(url)
            while sum(len(model["nodes"]) for model in client.models()) < nodes:
                wait(0.1)
            client.close()
            names = ["server", *(f"node{number}" for number in range(nodes))]
            pids = tuple(pid for name in names if (pid := supervisor.pid(name)) is not None)
            yield Gateway(name=OURS, port=int(url.rpartition(":")[2]), pids=pids)
        finally:
            supervisor.stop()


def part(rounds: int) -> Part:
    """One stream at a time and many at once, all gateways in turns, in drawn order."""
    firsts: dict[str, list[list[float]]] = {}
    found: Streams = {}
    with ExitStack() as running:
        engine = running.enter_context(upstream(TOKENS, GAP_MS))
        path = running.enter_context(whole_path(engine))
        fleet = running.enter_context(whole_path(engine, STREAMS))
        others = [running.enter_context(one(engine)) for one in (floor, litellm)]
        named = [one for one in (engine, *others, path) if one is not None]
        chance, number = random.Random(2), 0
        for one in (*named, fleet):
            asyncio.run(stream(one, STREAMS if one is fleet else 2))
        for turn in range(rounds):
            for one in named:
                firsts.setdefault(one.name, []).append([])
            for _ in range(FIRSTS // rounds):
                for one in chance.sample(named, len(named)):
                    number += 1
                    seen = asyncio.run(stream(one, 1, number))
                    firsts[one.name][-1] += seen.first_s
                    found.setdefault((one.name, 1), []).append(seen)
            for one in chance.sample([fleet if other is path else other for other in named], len(named)):
                number += 1
                found.setdefault((one.name, STREAMS), []).append(asyncio.run(stream(one, STREAMS, number)))
            print(
                f"{turn + 1}: " + ", ".join(f"{n} {median(t[-1]) * 1e3:.1f} ms" for n, t in firsts.items()), flush=True
            )
    base = [median(each) for each in firsts[DIRECT]]
    added = {
        name: [(median(each) - own) * 1e3 for each, own in zip(times, base, strict=True)]
        for name, times in firsts.items()
    }
    lines = [
        (
            name,
            spread([median(each) * 1e3 for each in times], "{:.1f}"),
            "-" if name == DIRECT else spread(added[name], "{:+.1f}"),
            *(spread(_cpu_us(found, name, streams), "{:.0f}") for streams in (1, STREAMS)),
            spread([median(one.whole_s) for one in found[name, STREAMS]]),
        )
        for name, times in firsts.items()
    ]
    head = ("Gateway", "First token after, p50, ms", "Added, ms", "CPU a token, 1 stream, µs", f"{STREAMS} streams, µs")
    raw = {
        "first_s": firsts,
        "cpu_us": {f"{name}, {streams} streams": [o.cpu_us for o in f] for (name, streams), f in found.items()},
        "whole_s": {
            f"{name}, {streams} streams": [median(o.whole_s) for o in f] for (name, streams), f in found.items()
        },
    }
    text = f"{TEXT}\n{table((*head, f'{STREAMS} streams: all of an answer, s'), lines)}"
    return Part(rows=_overview(added, found), text=text, raw=raw)


TEXT = f"""## First token, and each token

An engine that gives {TOKENS} tokens, one every {GAP_MS:g} ms, is asked directly, through each proxy, and through the
whole of Joulebox: API, queue in SQLite, a real node process, and back. Added is beside the engine asked directly in the
same round. CPU a token is that of the gateway with everything a request costs in it, divided by its tokens; for
Joulebox it is that of server and node together. One node answers one prompt at a time, so {STREAMS} streams are
{STREAMS} nodes. A node sends what it has at most four times a second, because every send wakes the machine that is
measured: the tokens come in pieces, the first one at once.
"""


def _cpu_us(found: Streams, name: str, streams: int) -> list[float]:
    """Of a token. One stream at a time costs less than a step of the kernel's clock: all of them are told as one."""
    each = found.get((name, streams), [])
    if streams > 1:
        return [one.cpu_us for one in each]
    return [sum(one.cpu_s for one in each) / max(sum(one.tokens for one in each), 1) * 1e6] if each else []


def _overview(added: dict[str, list[float]], found: Streams) -> list[Row]:
    ours, theirs = _cpu_us(found, OURS, STREAMS), _cpu_us(found, PROXY, STREAMS)
    proxied = (
        f"LiteLLM {spread(added[PROXY], '{:+.1f}')} ms" if PROXY in added else "LiteLLM could not be installed here"
    )
    first = Row(
        what="added time to first token of the whole path, p50",
        figure=f"{spread(added[OURS], '{:+.1f}')} ms",
        beside=proxied,
        target=f"<= {ADDED_MAX_MS:g} ms",
        reached=median(added[OURS]) <= ADDED_MAX_MS,
    )
    each = Row(
        what=f"CPU a streamed token, server and node, {STREAMS} streams",
        figure=f"{spread(ours, '{:.0f}')} µs",
        beside=f"LiteLLM {spread(theirs, '{:.0f}')} µs" if theirs else proxied,
        target="<= 0.1 of LiteLLM's",
        reached=median(ours) <= CPU_MAX * median(theirs) if theirs else None,
    )
    return [first, each]
