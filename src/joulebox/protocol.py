"""What server and node say to each other. HTTP and JSON; one version number; dataclasses both sides read.

A node asks `POST /node/v1/lease` (held open until there is work), holds `GET /node/v1/attempts/{token}/hold` while it
works (one JSON line per word of the server: `{"say": "hello"}`, `{"say": "cancel"}`, and, where the energy budget is
spent and the answer so far is to be kept, `{"say": "enough", "judged_j": ..., "judged_s": ...}`), sends `Batch`es to
`POST .../events`, and `Finish` to `POST .../finish`. The token fences: whatever comes with a stale one is answered 409
`stale_attempt`.
"""

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from joulebox.conversation import ToolCall
from joulebox.model import (
    Channel,
    EngineInfo,
    IdlePolicy,
    IdleStretch,
    MachineParts,
    ModelFile,
    NodeControl,
    Problem,
    Prompt,
    Purpose,
)
from joulebox.plain import plain

VERSION: Final = 1
LEASE_WAIT_S: Final = 25.0
"""How long the server holds an empty lease request before it answers 204."""
SENDS_PER_S: Final = 4.0
"""At most so many batches a second leave the node while it answers."""
EVENTS_MAX: Final = 100_000
"""More events than this in one attempt are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureBand:
    """In which degrees Celsius an answer begins, for sensors whose scope begins with `scope`; `None`: any."""

    scope: str
    min_c: float | None
    max_c: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A node asks for work. `instance` is new with every start of the node process. `lost` says that whatever this node
    was doing under an earlier instance is gone, so the server need not wait for it. `unfit` are the models that it has
    and whose memory need is above `memory_bytes`."""

    version: int
    node: str
    instance: str
    zone: str | None
    memory_bytes: int
    engine: EngineInfo
    models: tuple[ModelFile, ...]
    channels: tuple[Channel, ...]
    missing: tuple[str, ...] = ()
    loaded: str | None = None
    temperature_c: float | None = None
    wait_s: float = LEASE_WAIT_S
    parts: MachineParts | None = None
    idle: tuple[IdleStretch, ...] = ()
    """What it drew between its jobs, as far as no answer to an earlier request said that it was heard."""
    cores: int | None = None
    host: str | None = None
    """The same for all programs on one running machine, and for no other (`host.running_host`)."""
    unfit: tuple[ModelFile, ...] = ()
    policy: IdlePolicy | None = None
    """What it does while nobody asks."""
    bands: tuple[TemperatureBand, ...] = ()
    """How warm it may be when an answer begins."""
    suspends: bool = False
    """It wants leave to suspend, and does where there is no job: the server wakes it for the next one."""
    unloaded_at: datetime | None = None
    """Since when, by that policy, it has had no model in memory."""
    tools: bool = False
    """Its engine takes functions that a model may call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The server's answer: one job for this node alone. `token` is the fence."""

    token: str
    job_id: str
    attempt: int
    prompt: Prompt
    queued_s: float
    placement_reason: str
    purpose: Purpose = "prompt"
    control: NodeControl | None = None


EventKind = Literal["settling", "loading", "started", "token", "power", "measuring", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvent:
    """One thing a watching person may see. `seq` counts from 0 within the attempt, without gaps, and stays the same
    when the event is sent again. `data` is what the public event of the same name carries."""

    seq: int
    kind: EventKind
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events in order. A server that restarted answers with an earlier `next_seq`; the node then sends from there."""

    events: tuple[NodeEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReply:
    """`next_seq` is the first event the server has not got; `cancel` asks the node to stop."""

    next_seq: int
    cancel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How an attempt ended. `done`: answer and trace are there. `failed`: `problem` says why; `retry` whether another
    attempt may help. `cancelled`: as asked. What these two drew is in their trace if they have one. `chunks` are the
    pieces of text as they were sent, `(seq, text)`. `tool_calls`: what the model called, beside the text."""

    outcome: Literal["done", "failed", "cancelled"]
    answer: str | None = None
    finish_reason: str | None = None
    chunks: tuple[tuple[int, str], ...] = ()
    trace_b64: str | None = None
    problem: Problem | None = None
    retry: bool = False
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishReply:
    """The receipt made of the evidence; `None` where there was none to make."""

    receipt_id: str | None


def to_json(message: object) -> bytes:
    """A message as JSON bytes; enums as their values, times in ISO 8601."""
    return json.dumps(plain(message), separators=(",", ":"), ensure_ascii=False, default=datetime.isoformat).encode()


def pack_trace(blob: bytes) -> str:
    """Trace bytes as they travel in JSON."""
    return base64.b64encode(blob).decode()


def unpack_trace(text: str) -> bytes:
    """The reverse of `pack_trace`. Raises `ValueError` on anything else."""
    return base64.b64decode(text, validate=True)
