"""JSON that a device on the network answers with: one question, one answer, one deadline for the whole of both.

A plug that sends a byte now and then would outlive time-outs that are counted from byte to byte. So every wait of a
question ends at the same moment: the connection is given what is left of it.
"""

import json
import math
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore2

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.node.meter import MeterFault
from joulebox.units import nanoseconds, seconds

BODY_BYTES_MAX: Final = 65_536
RAW_MAX: Final = 2**53
_WAIT_MIN_S: Final = 0.001


class JsonHttp:
    """A device at `http://HOST[:PORT]`. Each question has a connection of its own: a small device may close one that
    waits just when the next question comes, which would be a gap in the readings."""

    def __init__(self, kind: str, address: str, timeout_s: float, clock: Clock) -> None:
        """Nothing is sent yet. Raises `JouleboxError("bad_setting")` for what is no such address."""
        self.url = _checked(kind, address)
        self._timeout_s = timeout_s
        self._patience = _Patience(clock)
        self._pool: httpcore2.ConnectionPool | None = httpcore2.ConnectionPool(
            max_connections=1, max_keepalive_connections=0, network_backend=self._patience
        )

    def get(self, path: str, says: str) -> Any:
        """The JSON at `path`, which the faults call `says` (no password in it). Raises `MeterFault`."""
        if self._pool is None:
            raise MeterFault("the meter is closed")
        self._patience.begin(self._timeout_s)
        try:
            status, body = self._ask(path)
        except (httpcore2.ConnectTimeout, httpcore2.ReadTimeout, httpcore2.WriteTimeout) as error:
            raise MeterFault(f"{self.url} did not answer {says} within {self._timeout_s:g} s") from error
        except (httpcore2.ConnectError, OSError) as error:
            raise MeterFault(f"{self.url} cannot be reached ({why(error)})") from error
        except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
            raise MeterFault(f"{self.url} broke off its answer to {says} ({why(error)})") from error
        if status == 401:
            raise MeterFault(f"{self.url} asks for a password (401 to {says})")
        if status != 200:
            raise MeterFault(f"{self.url} answers {says} with status {status}")
        try:
            return json.loads(body, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise MeterFault(f"{self.url} answers {says} with something that is not JSON") from error

    def _ask(self, path: str) -> tuple[int, bytes]:
        assert self._pool is not None
        body = b""
        headers: dict[bytes | str, bytes | str] = {"Host": urlsplit(self.url).netloc, "Connection": "close"}
        with self._pool.stream("GET", f"{self.url}{path}", headers=headers) as reply:
            for piece in reply.iter_stream():
                body += piece
                if len(body) > BODY_BYTES_MAX:
                    raise MeterFault(f"{self.url} answers with more than {BODY_BYTES_MAX} bytes")
            return reply.status, body

    def close(self) -> None:
        """Ask nothing more; a second call does nothing."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None


class _Patience(httpcore2.NetworkBackend):
    """Connections whose every wait ends at the deadline of the question in hand."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadline_ns = 0
        self._backend = httpcore2.SyncBackend()

    def begin(self, timeout_s: float) -> None:
        self._deadline_ns = self._clock.now_ns() + nanoseconds(timeout_s)

    def left_s(self) -> float:
        return max(_WAIT_MIN_S, seconds(self._deadline_ns - self._clock.now_ns()))

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self, self._backend.connect_tcp(host, port, self.left_s(), local_address, socket_options))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, patience: _Patience, stream: httpcore2.NetworkStream) -> None:
        self._patience = patience
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._patience.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._patience.left_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._patience, self._stream.start_tls(ssl_context, server_hostname, self._patience.left_s()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def field(data: Any, *keys: str | int) -> Any:
    """What lies at `keys` in decoded JSON, or `None` where it does not go that deep."""
    for key in keys:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int):
            data = data[key] if 0 <= key < len(data) else None
        else:
            return None
    return data


def raw_of(value: Any, step: float, name: str) -> int:
    """A JSON number as whole steps. Raises `MeterFault` for anything else, saying `name`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MeterFault(f"the answer holds no number {name}")
    if abs(value) >= RAW_MAX * step:
        raise MeterFault(f"the answer's {name} is {value:g}, which cannot be")
    return round(value / step)


def _checked(kind: str, address: str) -> str:
    remedy = f"Write {kind}:http://HOST"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise JouleboxError("bad_setting", f"Meter {kind}:{address} cannot be used ({error}). {remedy}.") from error
    if parts.username or parts.password:
        raise JouleboxError("bad_setting", f"Meter {kind} cannot be used with a password in its address. {remedy}.")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or parts.path.strip("/"):
        raise JouleboxError("bad_setting", f"Meter {kind}:{address} cannot be used: it is no web address. {remedy}.")
    if not all(character.isascii() and character.isprintable() and character != " " for character in address):
        raise JouleboxError("bad_setting", f"Meter {kind}:{address} cannot be used: it is no web address. {remedy}.")
    return address.rstrip("/")


def why(error: BaseException, silent: str = "the connection ended") -> str:
    """Why a connection failed, in the system's words; `silent` where it says nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "there is no host of that name"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or silent


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
