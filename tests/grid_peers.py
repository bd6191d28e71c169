"""Live grid sources on a local port: real HTTP with the documented answers and errors; what was asked is noted."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]
TEN = datetime(2026, 11, 23, 10, tzinfo=UTC)
KEY = "k3y-nobody-may-see"
PLAN = ["carbon-intensity/latest", "carbon-intensity/past-range", "carbon-intensity/forecast"]
NOT_IN_PLAN = {"error": "Request unauthorized for zoneKey=DE, requestType=latest, dataType=carbon-intensity"}
BAD_KEY = {"error": "Invalid auth-token"}


@dataclass(frozen=True)
class Answer:
    """What the peer says to a path: JSON, or bytes as they are; it may wait first."""

    status: int = 200
    data: Any = None
    raw: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    wait_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Peer:
    """Answers by the last part of the path (longest ending first), and everything that was asked."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    leave: threading.Event = field(default_factory=threading.Event)

    def count(self, ending: str) -> int:
        """How often a path was asked."""
        return sum(one.path.endswith(ending) for one in self.asked)

    def answer(self, path: str) -> Answer:
        """What is said to a path."""
        ending = max((key for key in self.answers if key in path), key=len, default=None)
        return self.answers[ending] if ending is not None else Answer(404, {"status": "no-data"})


@contextmanager
def peer(**answers: Answer) -> Iterator[Peer]:
    """A peer on a free port; `_` in a name is `-` in the path."""
    told = Peer(url="", answers={name.replace("_", "-"): answer for name, answer in answers.items()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.asked.append(Asked(parts.path, dict(parse_qsl(parts.query)), headers))
            answer = told.answer(parts.path)
            told.leave.wait(answer.wait_s)
            body = answer.raw if answer.raw is not None else json.dumps(answer.data).encode()
            try:
                self.send_response(answer.status)
                for name, value in (*answer.headers, ("Content-Length", str(len(body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.leave.set()
        server.shutdown()
        server.server_close()


# --- the documented schemas -------------------------------------------------------------------------------------------


def zones(access: list[str] | None = None, zone: str = "DE") -> Answer:
    """`/v4/zones` with a key: what it may ask of each zone."""
    return Answer(data={zone: {"zoneName": zone, "access": PLAN if access is None else access}})


def row(hour: int, g_per_kwh: object, *, estimated: bool | None = None, zone: str | None = None) -> Json:
    """One hour of Electricity Maps, `hour` after ten; a forecast does not say whether it is estimated."""
    told: Json = {"carbonIntensity": g_per_kwh, "datetime": stamp(TEN + timedelta(hours=hour))}
    if zone is not None:
        told["zone"] = zone
    if estimated is not None:
        how = "TIME_SLICER_AVERAGE" if estimated else None
        told |= {"isEstimated": estimated, "estimationMethod": how, "emissionFactorType": "lifecycle"}
    return told


def latest(g_per_kwh: object = 300, *, estimated: bool = True, hour: int = 0, zone: str = "DE") -> Answer:
    """`/v4/carbon-intensity/latest`."""
    return Answer(data=row(hour, g_per_kwh, estimated=estimated, zone=zone) | {"updatedAt": stamp(TEN)})


def past(*rows: Json, zone: str = "DE", key: str = "data") -> Answer:
    """`/v4/carbon-intensity/past-range`; `history` under its own key."""
    return Answer(data={"zone": zone, key: list(rows), "temporalGranularity": "hourly"})


def stamp(at: datetime) -> str:
    """A moment as Electricity Maps writes it."""
    return f"{at:%Y-%m-%dT%H:%M:%S.000Z}"
