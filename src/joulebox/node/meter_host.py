"""Meters read on one machine for a node on another: `joulebox meters serve`, and the node's `remote:http://HOST:PORT`.

A small host beside the measured machine reads; on the measured machine nothing runs but the model and the node. JSON
over HTTP, by polling: `GET /meters` says what there is, `GET /meters/0/reading` reads meter 0 now. Each answer carries
the host's clock before and after the reading, so that the node can tell by how much its own stamp may be off.
"""

import json
import platform
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.meter import Meter, MeterFault

VERSION: Final = 1
PORT: Final = 8_090
_BUSY_WAIT_S: Final = 1.0
_POLL_S: Final = 0.1
_IDLE_S: Final = 120.0
"""A connection over which nothing was asked for so long is closed."""


class MeterHost:
    """Serves `meters` over HTTP from threads of its own, until `close()`."""

    def __init__(self, meters: Sequence[Meter], clock: Clock, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen on `host`; `port` 0 takes a free one. Raises `JouleboxError("port_in_use")`."""
        self._desks = [_Desk(meter, clock) for meter in meters]
        try:
            self._server = _Server((host, port), _handler(self._answer))
        except OSError as error:
            raise JouleboxError(
                "port_in_use", f"Meters cannot be served on {host}:{port} ({error.strerror}). Choose another --port."
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="meter host", daemon=True
        )
        self._thread.start()

    def addresses(self, host: str) -> str:
        """What a node is given to read these meters, separated by spaces; `host` is where this was asked to listen."""
        name = platform.node() if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host  # noqa: S104
        return " ".join(f"remote:http://{name}:{self.port},meter={index}" for index in range(len(self._desks)))

    def close(self) -> None:
        """Stop answering. The meters stay open: they belong to who opened them."""
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._thread.join()

    def _answer(self, path: str) -> dict[str, Any] | None:
        """The JSON for `path`, `None` where there is nothing."""
        if path == "/meters":
            return {"version": VERSION, "meters": [desk.description for desk in self._desks]}
        match path.split("/"):
            case ["", "meters", index, "reading"] if index.isdecimal() and int(index[:4]) < len(self._desks):
                return self._desks[int(index[:4])].reading()
        return None


def serve(addresses: Sequence[str], host: str, port: int, ready: Callable[[MeterHost], None]) -> None:
    """`joulebox meters serve`: open the meters, serve them until Ctrl-C. `ready` is called once they can be read.

    Raises `JouleboxError`: those of `open_meters`, `port_in_use`.
    """
    from joulebox.node.meters import open_meters

    meters = open_meters(addresses)
    try:
        served = MeterHost(meters, SystemClock(), host, port)
        try:
            ready(served)
            threading.Event().wait()
        except KeyboardInterrupt:
            return
        finally:
            served.close()
    finally:
        for meter in meters:
            meter.close()


class _Server(ThreadingHTTPServer):
    """Knows its connections, so that a kept one ends with the rest."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Desk:
    """One meter, read by one request at a time."""

    def __init__(self, meter: Meter, clock: Clock) -> None:
        self._meter = meter
        self._clock = clock
        self._lock = threading.Lock()
        channels = [asdict(channel) for channel in meter.channels()]
        self._mark = sha256(json.dumps(channels, sort_keys=True).encode()).hexdigest()[:16]
        self.description: dict[str, Any] = {
            "address": meter.address,
            "missing": list(meter.missing),
            "channels": channels,
            "mark": self._mark,
        }

    def reading(self) -> dict[str, Any]:
        """Raw values or a fault, and the clock around them."""
        if not self._lock.acquire(timeout=_BUSY_WAIT_S):
            return {"mark": self._mark, "fault": f"{self._meter.address} has not answered an earlier question yet"}
        try:
            before_ns = self._clock.now_ns()
            outcome: dict[str, Any] = {}
            try:
                outcome["raw"] = list(self._meter.read())
            except MeterFault as fault:
                outcome["fault"] = str(fault)
            return {"mark": self._mark, "before_ns": before_ns, "after_ns": self._clock.now_ns(), **outcome}
        finally:
            self._lock.release()


def _handler(answer: Callable[[str], dict[str, Any] | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _IDLE_S
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            found = answer(self.path)
            status = "404 Not Found" if found is None else "200 OK"
            body = json.dumps({"error": "there is no such address"} if found is None else found)
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            # one write: a second one would wait for the other side's acknowledgement
            self.wfile.write((head + body).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
            """Say nothing: this is asked ten times a second."""

    return Handler
