"""What machines did between jobs, as the books keep it: rows of an hour at most, none of them twice.

Nodes tell what their meters counted; the server notes its own processor time at the same occasions, so that an idle
server needs no timer for it.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import fsum, hypot
from typing import Final, Protocol

from joulebox.accounting.fleet import idle_energy
from joulebox.clock import Clock
from joulebox.host import own_cpu_s, running_host
from joulebox.model import Counted, IdleStretch
from joulebox.protocol import LeaseRequest

STRETCH_MAX: Final = timedelta(hours=1)
"""Nothing longer is believed: a node keeps its readings for minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdle:
    """A node between jobs. `host` is the same where a server runs on the same machine; `loaded` is whether it kept a
    model in memory."""

    node: str
    start: datetime
    until: datetime
    zone: str | None
    cores: int
    memory_bytes: int
    host: str | None
    counted: tuple[Counted, ...]
    loaded: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTime:
    """Processor seconds that one run of the server program used."""

    instance: str
    start: datetime
    until: datetime
    host: str | None
    cpu_s: float


class OwnTime:
    """The processor time of this run of the server, by what was noted last."""

    def __init__(self, start: datetime, cpu_s: float) -> None:
        self._instance = secrets.token_hex(8)
        self._host = running_host()
        self._start = start
        self._cpu_s = cpu_s

    def until(self, now: datetime, cpu_s: float) -> ServerTime:
        """What was used since the last time; `cpu_s` is the process's whole."""
        start, used_s = self._start, cpu_s - self._cpu_s
        self._start, self._cpu_s = max(start, now), cpu_s
        return ServerTime(instance=self._instance, start=start, until=self._start, host=self._host, cpu_s=used_s)


class Shelf(Protocol):
    """What this needs of the queue."""

    async def keep_idle(self, stretches: Sequence[NodeIdle], server: ServerTime) -> None:
        """Note what nodes drew between jobs, each stretch once however often it is told, and what this server used."""


class IdleBooks:
    """What requests for work tell of the time before them."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock
        self._own = OwnTime(clock.utc(), own_cpu_s())

    async def keep(self, request: LeaseRequest) -> None:
        """Note it. Raises `JouleboxError("database")`."""
        if stretches := told(request):
            await self._shelf.keep_idle(stretches, self._own.until(self._clock.utc(), own_cpu_s()))


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleShare:
    """What a node drew between jobs in one state, by meters of one scope: seconds, joules and their interval."""

    loaded: bool | None
    scope: str
    lasted_s: float
    j: float
    u: float
    mean_w: float


def shares(rows: Iterable[NodeIdle]) -> list[IdleShare]:
    """Rows of one node by whether a model was in memory, and by scope; the longest first. The intervals of rows add up:
    they come from the same meters."""
    found: dict[tuple[bool | None, str], list[tuple[float, float, float]]] = {}
    for row in rows:
        lasted_s = (row.until - row.start).total_seconds()
        drawn = idle_energy(row.counted, lasted_s, row.cores, row.memory_bytes)
        found.setdefault((row.loaded, drawn.scope), []).append((lasted_s, drawn.j, drawn.u))
    summed = {key: [fsum(column) for column in zip(*figures, strict=True)] for key, figures in found.items()}
    made = [
        IdleShare(loaded=loaded, scope=scope, lasted_s=lasted_s, j=j, u=u, mean_w=j / lasted_s)
        for (loaded, scope), (lasted_s, j, u) in summed.items()
    ]
    return sorted(made, key=lambda share: -share.lasted_s)


def told(request: LeaseRequest) -> list[NodeIdle]:
    """The stretches of a request, those that cannot be left out."""
    return [
        NodeIdle(
            node=request.node,
            start=stretch.start,
            until=stretch.until,
            zone=request.zone,
            cores=request.cores or 1,
            memory_bytes=request.memory_bytes,
            host=request.host,
            counted=stretch.counted,
            loaded=stretch.loaded,
        )
        for stretch in request.idle
        if _possible(stretch)
    ]


def _possible(stretch: IdleStretch) -> bool:
    aware = stretch.start.tzinfo is not None and stretch.until.tzinfo is not None
    return aware and stretch.start < stretch.until <= stretch.start + STRETCH_MAX and bool(stretch.counted)


def entered(last: NodeIdle | None, stretches: Iterable[NodeIdle]) -> list[NodeIdle]:
    """The rows to write after `last`, the node's newest: its own successor where a stretch continues it. A stretch that
    begins before what is written ends has been told before."""
    rows: list[NodeIdle] = []
    for stretch in sorted(stretches, key=lambda one: one.start):
        if last is not None and stretch.start < last.until:
            continue
        if last is not None and _continues(last, stretch):
            last = replace(last, until=stretch.until, counted=_added(last.counted, stretch.counted))
            rows = [row for row in rows if row.start != last.start]
        else:
            last = stretch
        rows.append(last)
    return rows


def continued(last: ServerTime | None, now: ServerTime) -> ServerTime:
    """The row for what the server used: `last` and what came after, where both are of one hour."""
    if last is None or last.instance != now.instance or last.until != now.start or not _one_hour(last.start, now.until):
        return now
    return replace(last, until=now.until, cpu_s=last.cpu_s + now.cpu_s)


def _continues(last: NodeIdle, following: NodeIdle) -> bool:
    """Rows end with the hour, since the grid's intensity changes with it."""
    same = replace(last, start=following.start, until=following.until, counted=following.counted) == following
    channels = [one.channel for one in last.counted] == [one.channel for one in following.counted]
    return same and channels and last.until == following.start and _one_hour(last.start, following.until)


def _one_hour(start: datetime, until: datetime) -> bool:
    return until <= start.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def _added(before: Sequence[Counted], after: Sequence[Counted]) -> tuple[Counted, ...]:
    """What ticks leave open differs from stretch to stretch."""
    return tuple(
        replace(one, amount=one.amount + other.amount, edge=hypot(one.edge, other.edge))
        for one, other in zip(before, after, strict=True)
    )
