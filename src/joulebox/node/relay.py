"""Sends a run's events to the server from a thread of its own.

Tokens go at most `SENDS_PER_S` times a second; the first of them, and the end of the answer, go at once. Nothing waits
for it: while the server is away events are kept, and sent again from where the server says it stands. A `live` run
sends tokens as they come, with the power reading riding on them; a `quiet` run sends nothing between request and the
end of the post-guard. While the prompt is read nothing is sent at all: the power of that time goes with the first
token.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from joulebox.client import Client
from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import Mode
from joulebox.node.measurement import Machine
from joulebox.node.recorder import Recorder
from joulebox.node.running import Running
from joulebox.protocol import SENDS_PER_S, Batch, BatchReply, EventKind, NodeEvent, to_json
from joulebox.units import nanoseconds, seconds

FLUSH_WAIT_S: Final = 10.0
READING_MAX: Final = 40
"""So many moments of the time in which the prompt was read are told at most."""


class Relay:
    """The events of one attempt. Call it like `measurement.Sink`; `chunks` are the pieces of text as they were sent.
    With `counts` each power reading comes with what was drawn so far."""

    def __init__(
        self,
        client: Client,
        token: str,
        mode: Mode,
        machine: Machine,
        recorder: Recorder,
        clock: Clock,
        on_cancel: Callable[[], None],
        *,
        counts: bool = False,
    ) -> None:
        self._client = client
        self._path = f"/node/v1/attempts/{token}/events"
        self._quiet = mode == "quiet"
        self._machine = {"cores": machine.cores, "memory_bytes": machine.memory_bytes}
        self._recorder = recorder
        self._clock = clock
        self._on_cancel = on_cancel
        self._start_ns = clock.now_ns()
        self._counts = counts
        self._running: Running | None = None
        self._events: list[NodeEvent] = []
        self._pending = ""
        self._pending_n = 0
        self._first_ns: int | None = None
        self._answering = False
        self._sent = 0
        self._silent = False
        self._closed = False
        self._wake = threading.Condition()
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def __call__(self, kind: EventKind, **data: Any) -> None:
        """Take one event; returns at once."""
        with self._wake:
            if kind == "started":
                self._start_ns = self._clock.now_ns()
                self._running = Running(self._recorder, self._start_ns) if self._counts else None
                self._silent = self._quiet
            if kind == "token":
                if not self._answering:
                    self._answering, self._first_ns = True, self._clock.now_ns()
                    self._hurry()
                self._pending += data["text"]
                self._pending_n += data["n"]
            else:
                self._gather()
                self._events.append(NodeEvent(seq=len(self._events), kind=kind, data=data))
            if kind == "answer":
                self._hurry()
            if kind == "measuring":
                self._silent = self._quiet
            self._wake.notify()

    def close(self) -> None:
        """Send what is left, waiting for it at most `FLUSH_WAIT_S`; what stays behind is in `Finish` anyway."""
        with self._wake:
            self._gather()
            self._closed = True
            self._silent = False
            self._urgent.set()
            self._wake.notify()
        self._thread.join(timeout=FLUSH_WAIT_S)

    @property
    def chunks(self) -> tuple[tuple[int, str], ...]:
        """The pieces of text with the number of the event that carried each."""
        return tuple((event.seq, event.data["text"]) for event in self._events if event.kind == "token")

    def _hurry(self) -> None:
        """Have what there is sent at once."""
        if not self._quiet:
            self._urgent.set()

    def _gather(self) -> None:
        """Make the text that has come in since the last send one event, with the power reading behind it."""
        if not self._pending_n:
            return
        self._tell_reading()
        data = {"text": self._pending, "n": self._pending_n}
        self._events.append(NodeEvent(seq=len(self._events), kind="token", data=data))
        self._pending, self._pending_n = "", 0
        latest = self._recorder.latest_power()
        if latest is not None:
            more = self._running.so_far(self._clock.now_ns()) if self._running is not None else {}
            self._tell_power(*latest, more)

    def _tell_reading(self) -> None:
        """The power while the prompt was read, once, before the first token."""
        until_ns, self._first_ns = self._first_ns, None
        if until_ns is not None and not self._quiet:
            apart_ns = nanoseconds(1 / SENDS_PER_S)
            for power in self._recorder.power_within(self._start_ns, until_ns, READING_MAX, apart_ns):
                self._tell_power(*power)

    def _tell_power(self, t_ns: int, rate: float, scope: str, more: Mapping[str, float] | None = None) -> None:
        data: dict[str, Any] = {"t_s": max(round(seconds(t_ns - self._start_ns), 3), 0.0), "scope": scope}
        data |= {"busy_cores": rate, **self._machine} if scope == "modelled" else {"w": round(rate, 3)}
        data |= more or {}
        self._events.append(NodeEvent(seq=len(self._events), kind="power", data=data))

    def _run(self) -> None:
        next_send_ns = 0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or (not self._silent and self._news()))
                last = self._closed
            if not last:
                self._clock.wait_until(next_send_ns, self._urgent)
                if self._running is not None and not self._silent:
                    self._recorder.read_now()
            with self._wake:
                self._urgent.clear()
                batch: tuple[NodeEvent, ...] = ()
                if not self._silent:  # a quiet answer may have begun during the sleep
                    self._gather()
                    batch = tuple(self._events[self._sent :])
            if batch:
                self._send(batch)
            if last:
                return
            next_send_ns = self._clock.now_ns() + nanoseconds(1 / SENDS_PER_S)

    def _news(self) -> bool:
        return self._pending_n > 0 or len(self._events) > self._sent

    def _send(self, events: tuple[NodeEvent, ...]) -> None:
        try:
            answer = self._client.call("POST", self._path, to_json(Batch(events=events)))
            reply = BatchReply(next_seq=max(0, int(answer["next_seq"])), cancel=bool(answer.get("cancel")))
        except (JouleboxError, KeyError, TypeError, ValueError, OverflowError):
            # the server is away or has given the job to another: the hold and the delivery deal with that
            with self._wake:
                self._sent = len(self._events)
            return
        with self._wake:
            self._sent = min(reply.next_seq, len(self._events))
        if self._closed and reply.next_seq < events[0].seq:  # the last turn; any other leaves it to the next
            self._send(tuple(self._events[reply.next_seq :]))
        if reply.cancel and not self._closed:  # closed: what is answered now is another prompt
            self._on_cancel()
