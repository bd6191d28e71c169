"""A real server on a free port, and a node that speaks the protocol over real HTTP from a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

import databases
import traces
from joulebox.clock import Clock, SystemClock
from joulebox.evidence import encode_trace
from joulebox.model import Channel, EngineInfo, ModelFile, ReadingKind, Sampling
from joulebox.protocol import VERSION, Batch, Finish, LeaseRequest, NodeEvent, pack_trace, to_json
from joulebox.server.app import build_app, listen, running, url_of
from joulebox.server.grid.live import Grid
from joulebox.server.lives import Listener
from joulebox.server.planner import Planner
from joulebox.server.store import Store
from joulebox.server.waker import Waker
from joulebox.settings import Settings

Json = dict[str, Any]
MODEL = ModelFile(id="m", digest="sha256:0", quantization="Q4_1", size_bytes=1, memory_bytes=2, context_tokens=512)
COUNTER = Channel(
    name="package-0",
    meter="powercap:test",
    kind=ReadingKind.ENERGY_J,
    sampling=Sampling.COUNTER,
    scope="cpu",
    step=1e-6,
    tick_s=0.001,
)
WAIT_S = 30.0
"""So long a node waits for work and a test for what must come: where much else is done it comes late."""
WOKEN_S = 15.0
"""Who is woken has it long before it would look again by itself."""


class Ahead(SystemClock):
    """The machine's clock, some hours ahead."""

    hours = 0.0

    def utc(self) -> datetime:
        return super().utc() + timedelta(hours=self.hours)

    @classmethod
    def at_the_hour(cls) -> "Ahead":
        """At the beginning of an hour."""
        clock, hour = cls(), timedelta(hours=1)
        now = clock.utc()
        clock.hours = (now.replace(minute=0, second=0, microsecond=0) + hour - now) / hour
        return clock


def offer(node: str = "n1", instance: str = "a", models: Sequence[str] = ("m",), **changes: Any) -> LeaseRequest:
    """What a node says when it asks for work."""
    fields: Json = {
        "version": VERSION,
        "node": node,
        "instance": instance,
        "zone": "DE",
        "memory_bytes": 8_000_000_000,
        "engine": EngineInfo(name="scripted", version="1"),
        "models": tuple(
            ModelFile(id=name, digest="sha256:0", quantization="Q4_1", size_bytes=1, memory_bytes=2, context_tokens=512)
            for name in models
        ),
        "channels": (COUNTER,),
        "wait_s": WAIT_S,
    }
    return LeaseRequest(**(fields | changes))


def evidence(lease: Json, node: str = "n1", **changes: Any) -> bytes:
    """A trace of this attempt: an idle machine at 10 W that draws 30 W while it answers."""
    readings = traces.series(COUNTER, traces.work(10.0, 30.0, 30.0, 32.0), 34.0)
    mine = {"job_id": lease["job_id"], "attempt": lease["attempt"], "node": node}
    made = traces.trace(readings, **(mine | changes))
    asked = lease.get("prompt", {}).get("model")
    if "model" not in changes and made.model is not None and asked is not None:
        made = replace(made, model=replace(made.model, id=asked))
    return encode_trace(made)


def story(*words: str) -> list[NodeEvent]:
    """An attempt as a node tells it."""
    told: list[tuple[str, Json]] = [("loading", {}), ("started", {})]
    told += [("token", {"text": word, "n": 1}) for word in words]
    told += [("power", {"t_s": 0.5, "w": 30.0, "scope": "cpu"}), ("answer", {"finish_reason": "stop"})]
    return [NodeEvent(seq=seq, kind=kind, data=data) for seq, (kind, data) in enumerate(told)]  # type: ignore[arg-type]


def done(lease: Json, *words: str, node: str = "n1", first_seq: int = 2, **changes: Any) -> Finish:
    """A finished attempt whose words were events `first_seq` and on."""
    return Finish(
        outcome="done",
        answer="".join(words),
        finish_reason="stop",
        chunks=tuple(enumerate(words, start=first_seq)),
        trace_b64=pack_trace(evidence(lease, node, **changes)),
    )


@dataclass
class SeenEvent:
    """One server-sent event."""

    name: str
    id: str | None
    data: Json


def parse_events(lines: Sequence[str]) -> Iterator[SeenEvent]:
    """The events of a stream's lines, comments skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield SeenEvent(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


@dataclass
class Stage:
    """A running server and a client of it."""

    url: str
    http: httpx2.AsyncClient
    settings: Settings
    store: Store
    grid: Grid
    planner: Planner
    waker: Waker
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def ask(self, prompt: str = "hi", **fields: Any) -> Json:
        """Queue a prompt; its status."""
        reply = await self.http.post("/api/v1/prompts", json={"model": "m", "prompt": prompt} | fields)
        assert reply.status_code == 202, reply.text
        status: Json = reply.json()
        return status

    async def status(self, prompt_id: str) -> Json:
        """Where a prompt stands."""
        status: Json = (await self.http.get(f"/api/v1/prompts/{prompt_id}")).json()
        return status

    async def until(self, prompt_id: str, state: str) -> Json:
        """Follow the events until the prompt is in this state."""
        async with asyncio.timeout(WAIT_S):
            while (status := await self.status(prompt_id))["state"] != state:  # noqa: ASYNC110 - asked as people ask
                await asyncio.sleep(0.005)
        return status

    async def join(self, **changes: Any) -> None:
        """Have a node make itself known, without taking work."""
        reply = await self.http.post("/node/v1/lease", content=to_json(offer(**({"wait_s": 0.0} | changes))))
        assert reply.status_code == 204, reply.text

    async def lease(self, **changes: Any) -> Json:
        """Ask for work until there is some."""
        reply = await self.http.post("/node/v1/lease", content=to_json(offer(**changes)))
        assert reply.status_code == 200, reply.text
        lease: Json = reply.json()
        return lease

    async def send(self, lease: Json, events: Sequence[NodeEvent]) -> httpx2.Response:
        """Events of an attempt."""
        content = to_json(Batch(events=tuple(events)))
        return await self.http.post(f"/node/v1/attempts/{lease['token']}/events", content=content)

    async def finish(self, lease: Json, finish: Finish) -> httpx2.Response:
        """The end of an attempt."""
        return await self.http.post(f"/node/v1/attempts/{lease['token']}/finish", content=to_json(finish))

    @asynccontextmanager
    async def hold(self, lease: Json) -> AsyncIterator[AsyncIterator[str]]:
        """The held connection, its first word heard; leaving the block cuts it."""
        async with self.http.stream("GET", f"/node/v1/attempts/{lease['token']}/hold") as reply:
            assert reply.status_code == 200
            words = (json.loads(line)["say"] async for line in reply.aiter_lines())
            assert await anext(words) == "hello"
            yield words

    @asynccontextmanager
    async def watch(self, prompt_id: str, last_id: str | None = None) -> AsyncIterator[AsyncIterator[SeenEvent]]:
        """The events of a prompt."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with self.http.stream("GET", f"/api/v1/prompts/{prompt_id}/events", headers=headers) as reply:
            assert reply.status_code == 200, await reply.aread()

            async def events() -> AsyncIterator[SeenEvent]:
                lines: list[str] = []
                async for line in reply.aiter_lines():
                    lines.append(line)
                    if not line:
                        for event in parse_events(lines):
                            yield event
                        lines.clear()

            yield events()

    async def all_events(self, prompt_id: str, last_id: str | None = None) -> list[SeenEvent]:
        """Every event until the stream ends."""
        async with asyncio.timeout(WAIT_S), self.watch(prompt_id, last_id) as events:
            return [event async for event in events]


@asynccontextmanager
async def stage(folder: Path, **settings: Any) -> AsyncIterator[Stage]:
    """A server on a free port with its database in `folder`; `clock` is its own, and `listener` told of prompts, where
    they are given."""
    clock: Clock | None = settings.pop("clock", None)
    listener: Listener | None = settings.pop("listener", None)
    chosen = Settings.model_validate({"data_dir": folder, "port": 0, "grace_s": 60.0} | settings)
    if chosen.database_url is None:
        databases.prepare(folder)
    with listen(chosen.host, chosen.port) as sock:
        url = url_of(chosen.host, sock)
        app = build_app(chosen, clock, listener)
        async with running(app, sock), httpx2.AsyncClient(base_url=url, timeout=2 * WAIT_S, verify=False) as http:
            state = app.state
            yield Stage(
                url=url,
                http=http,
                settings=chosen,
                store=state.desk._queue,
                grid=state.grid,
                planner=state.planner,
                waker=state.waker,
            )
