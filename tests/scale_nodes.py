"""Simulated nodes for `make scale`: many in one process, each over real HTTP as the real ones speak it.

    python tests/scale_nodes.py --url URL --nodes 1000 --prompts 20000 --ask

A node asks for work, opens the hold, tells what happens, delivers answer and trace, and asks again. Its machine, meter
and model are simulated and take no time, so what is measured is the server and its database. One JSON line at the end.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from joulebox.clock import SystemClock
from joulebox.protocol import Batch, to_json
from joulebox.units import seconds
from server_stage import done, offer, story

CLOCK = SystemClock()
WORDS = ("A", " short", " answer", ".")
STORY = to_json(Batch(events=tuple(story(*WORDS))))
COME_S = 5.0
"""Nodes come within so long, not all at once."""
MODELS = ("m", "m2", "m3", "m4")
Json = dict[str, Any]


class Wire:
    """One kept-open HTTP/1.1 connection; as little work as can be, because it runs beside what it measures."""

    own = ""
    """Header lines of its own, each with its end."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: bytes = b"") -> int:
        """Send a request; the status of its answer. Its body follows. A connection that rested too long and was ended
        is made again."""
        if self._reader is not None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                return await self._send(method, path, body)
            self.close()
        return await self._send(method, path, body)

    async def _send(self, method: str, path: str, body: bytes) -> int:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n{self.own}"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = int((await self._reader.readuntil(b"\r\n"))[9:12])
        self._length: int | None = None
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                self._length = int(value)
        return status

    async def body(self) -> bytes:
        """The whole body of the answer."""
        assert self._reader is not None
        if self._length is not None:
            return await self._reader.readexactly(self._length)
        pieces = []
        while piece := await self.chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def chunk(self) -> bytes:
        """The next piece of a body that comes in pieces; none at its end."""
        assert self._reader is not None
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        piece = await self._reader.readexactly(size)
        await self._reader.readexactly(2)
        return piece

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of an answer."""
        status = await self.request("POST", path, body)
        return status, (await self.body() if status != 204 else b"")

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


@dataclass
class Seen:
    """What the nodes saw, in seconds."""

    done: int = 0
    enough: bool = False
    troubles: Counter[str] = field(default_factory=Counter)
    asked_s: list[float] = field(default_factory=list)
    leased_s: list[float] = field(default_factory=list)
    finished_s: list[float] = field(default_factory=list)

    def told(self, wall_s: float) -> Json:
        """As JSON: medians and 95 of 100."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        times = {name: centiles(values) for name, values in asdict(self).items() if name.endswith("_s")}
        cpu_s = usage.ru_utime + usage.ru_stime
        return {"done": self.done, "troubles": dict(self.troubles), "wall_s": wall_s, "cpu_s": cpu_s, **times}


def centiles(values: Sequence[float]) -> Json:
    """Median and the value that 95 of 100 are below."""
    if len(values) < 2:
        return {"p50": None, "p95": None}
    return {"p50": statistics.median(values), "p95": statistics.quantiles(values, n=20)[-1]}


async def node(number: int, url: str, prompts: int, seen: Seen, people: "People | None", guard_s: float = 0.0) -> None:
    """One node, until all together have answered enough."""
    wire, hold = Wire(url), Wire(url)
    name = f"n{number}"
    wanted = to_json(offer(node=name, models=(MODELS[0], MODELS[1 + number % 3]), wait_s=20.0))
    await asyncio.sleep(random.random() * COME_S)
    try:
        while seen.done < prompts and not seen.enough:
            try:
                await turn(name, wanted, wire, hold, seen, people, guard_s)
            except (OSError, asyncio.IncompleteReadError) as error:
                seen.troubles[f"connection: {type(error).__name__}"] += 1
                wire.close()
                hold.close()
    finally:
        wire.close()
        hold.close()


async def turn(
    name: str, wanted: bytes, wire: Wire, hold: Wire, seen: Seen, people: "People | None", guard_s: float
) -> None:
    """Ask for work once, and do it."""
    start_ns = CLOCK.now_ns()
    status, body = await wire.post("/node/v1/lease", wanted)
    if status == 204:
        return
    if status != 200:
        seen.troubles[f"lease {status} {body[:100]!r}"] += 1
        await asyncio.sleep(0.5)
        return
    seen.leased_s.append(seconds(CLOCK.now_ns() - start_ns))
    await work(json.loads(body), name, wire, hold, seen, guard_s)
    if people is not None:
        people.ask()


async def work(lease: Json, name: str, wire: Wire, hold: Wire, seen: Seen, guard_s: float = 0.0) -> None:
    """One attempt, as the node's agent does it: hold, events, delivery, end of the hold. It rests for `guard_s`
    before it delivers, as one that has guards to record."""
    path = f"/node/v1/attempts/{lease['token']}"
    status = await hold.request("GET", f"{path}/hold")
    if status != 200:
        seen.troubles[f"hold {status} {(await hold.body())[:100]!r}"] += 1
        return
    await hold.chunk()  # hello
    status, body = await wire.post(f"{path}/events", STORY)
    if status != 200:
        seen.troubles[f"events {status} {body[:100]!r}"] += 1
    if guard_s:
        await asyncio.sleep(guard_s)
    start_ns = CLOCK.now_ns()
    status, body = await wire.post(f"{path}/finish", to_json(done(lease, *WORDS, node=name)))
    if status == 200:
        seen.done += 1
        seen.finished_s.append(seconds(CLOCK.now_ns() - start_ns))
    else:
        seen.troubles[f"finish {status} {body[:100]!r}"] += 1
    await hold.body()


class People:
    """Who asks anew for each answer, so that as many wait as before."""

    def __init__(self, urls: Sequence[str], seen: Seen, at_once: int = 8) -> None:
        self._seen = seen
        self._wanted: asyncio.Queue[None] = asyncio.Queue()
        self.tasks = [asyncio.create_task(self._person(urls[number % len(urls)])) for number in range(at_once)]

    def ask(self) -> None:
        """One prompt more."""
        self._wanted.put_nowait(None)

    async def _person(self, url: str) -> None:
        wire, body = Wire(url), json.dumps({"model": "m", "prompt": "hello"}).encode()
        while True:
            await self._wanted.get()
            start_ns = CLOCK.now_ns()
            try:
                status, reply = await wire.post("/api/v1/prompts", body)
            except (OSError, asyncio.IncompleteReadError) as error:
                status, reply = 0, type(error).__name__.encode()
                wire.close()
            if status != 202:
                self._seen.troubles[f"ask {status} {reply[:100]!r}"] += 1
            self._seen.asked_s.append(seconds(CLOCK.now_ns() - start_ns))


async def main(
    urls: Sequence[str], nodes: int, prompts: int, limit_s: float, *, ask: bool, guard_s: float = 0.0
) -> None:
    """Run them all; each URL has its share of the nodes."""
    seen = Seen()
    people = People(urls, seen) if ask else None
    start_ns = CLOCK.now_ns()
    running = [
        asyncio.create_task(node(number, urls[number % len(urls)], prompts, seen, people, guard_s))
        for number in range(nodes)
    ]
    while seen.done < prompts and seconds(CLOCK.now_ns() - start_ns) < limit_s:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    wall_s = seconds(CLOCK.now_ns() - start_ns)
    seen.enough = True
    await asyncio.wait(running, timeout=2.0)  # what is under way is finished; who waits for work is not waited for
    tasks = [*running, *(people.tasks if people else ())]
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            await task
    print(json.dumps(seen.told(wall_s)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", action="append", required=True)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--limit-s", type=float, default=600.0)
    parser.add_argument("--ask", action="store_true", help="ask one prompt for each that is answered")
    parser.add_argument("--guard-s", type=float, default=0.0, help="rest so long before each delivery")
    given = parser.parse_args()
    asyncio.run(main(given.url, given.nodes, given.prompts, given.limit_s, ask=given.ask, guard_s=given.guard_s))
