"""What the whole path (API, queue, node, engine) adds to the first token, and what each further token costs
(`make bench PART=tokens`)."""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from statistics import median

from bench_gateways import CLOCK, DIRECT, OURS, PROXY, Gateway, Streamed, floor, litellm, stream, upstream
from bench_page import Part, Row, spread, table
from joulebox.client import Client
from joulebox.supervisor import Supervisor
from stage import wait

SHORT, LONG, GAP_MS = 40, 400, 5.0
FIRSTS = 10
STREAMS = 16
ADDED_MAX_MS = 10.0
CPU_MAX = 0.1


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
    """One stream at a time, then many at once, short and long; all gateways in turns, in drawn order."""
    firsts: dict[str, list[list[float]]] = {}
    many: dict[str, list[tuple[Streamed, Streamed]]] = {}
    with ExitStack() as running:
        engine = running.enter_context(upstream(LONG, GAP_MS))
        path, fleet = (running.enter_context(whole_path(engine, nodes)) for nodes in (1, STREAMS))
        others = [running.enter_context(one(engine)) for one in (floor, litellm)]
        named = [one for one in (engine, *others, path) if one is not None]
        chance, numbers = random.Random(2), count()
        for one in (*named, fleet):
            asyncio.run(stream(one, 2, SHORT, next(numbers)))
        for turn in range(rounds):
            for one in named:
                firsts.setdefault(one.name, []).append([])
            for _ in range(FIRSTS):
                for one in chance.sample(named, len(named)):
                    firsts[one.name][-1] += asyncio.run(stream(one, 1, SHORT, next(numbers))).first_s
            for one in chance.sample([fleet if other is path else other for other in named], len(named)):
                short, long = (asyncio.run(stream(one, STREAMS, tokens, next(numbers))) for tokens in (SHORT, LONG))
                many.setdefault(one.name, []).append((short, long))
            said = ", ".join(f"{name} {median(times[-1]) * 1e3:.1f} ms" for name, times in firsts.items())
            print(f"{turn + 1}: {said}", flush=True)
    base = [median(each) for each in firsts[DIRECT]]
    added = {
        name: [(median(each) - own) * 1e3 for each, own in zip(times, base, strict=True)]
        for name, times in firsts.items()
    }
    each = {name: [further_us(*pair) for pair in pairs] for name, pairs in many.items()}
    lines = [
        (
            name,
            spread([median(each) * 1e3 for each in times], "{:.1f}"),
            "-" if name == DIRECT else spread(added[name], "{:+.1f}"),
            spread(each[name], "{:.0f}"),
            spread([short.cpu_s / STREAMS * 1e3 for short, _ in many[name]], "{:.1f}"),
            spread([median(long.whole_s) for _, long in many[name]]),
        )
        for name, times in firsts.items()
    ]
    raw = {"first_s": firsts, "further_token_us": each} | {
        "streams": {name: [[[o.tokens, o.cpu_s, *o.first_s] for o in pair] for pair in p] for name, p in many.items()}
    }
    return Part(rows=_overview(added, each), text=f"{TEXT}\n{table(HEAD, lines)}", raw=raw)


def further_us(short: Streamed, long: Streamed) -> float:
    """Microseconds of CPU that a token costs beyond those of a short answer: what a request costs falls out."""
    return (long.cpu_s - short.cpu_s) / (long.tokens - short.tokens) * 1e6


HEAD = (
    "Gateway",
    "First token after, p50, ms",
    "Added, ms",
    f"CPU of each further token, {STREAMS} streams, µs",
    f"CPU of an answer of {SHORT} tokens, ms",
    f"All of {LONG} tokens, s",
)
TEXT = f"""## First token, and each token

An engine that gives a token every {GAP_MS:g} ms is asked directly, through each proxy, and through the whole of
Joulebox: API, queue in SQLite, a real node process, and back. Added is beside the engine asked directly in the same
round. {STREAMS} streams at once are {STREAMS} nodes, since a node answers one prompt at a time; the CPU is that of the
server and of all these nodes. What a further token costs is the difference between answers of {LONG} and of {SHORT}
tokens. A node sends the first token and the end at once, and what comes between four times a second, because every send
wakes the machine that is measured; its tokens arrive in pieces.
"""


def _overview(added: dict[str, list[float]], each: dict[str, list[float]]) -> list[Row]:
    proxied = f"LiteLLM {spread(added[PROXY], '{:+.1f}')} ms" if PROXY in added else ABSENT
    first = Row(
        what="added time to first token of the whole path, p50",
        figure=f"{spread(added[OURS], '{:+.1f}')} ms",
        beside=proxied,
        target=f"<= {ADDED_MAX_MS:g} ms",
        reached=median(added[OURS]) <= ADDED_MAX_MS,
    )
    theirs = each.get(PROXY)
    further = Row(
        what=f"CPU of each further token, server and node, {STREAMS} streams",
        figure=f"{spread(each[OURS], '{:.0f}')} µs",
        beside=f"LiteLLM {spread(theirs, '{:.0f}')} µs" if theirs else ABSENT,
        target="<= 0.1 of LiteLLM's",
        reached=median(each[OURS]) <= CPU_MAX * median(theirs) if theirs else None,
        why=f"It is {median(each[OURS]) / median(theirs):.2f} of it." if theirs else "",
    )
    return [first, further]


ABSENT = "LiteLLM could not be installed here"
