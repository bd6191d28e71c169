"""`feed:udp://HOST:PORT`: any other instrument, whose readings a script of the operator sends as text.

A datagram holds lines `NAME KIND VALUE`, such as `pdu power_w 231.5`, or JSON `{"name": "pdu", "power_w": 231.5}`. KIND
is `power_w`, `energy_j` (a running counter) or `temperature_c`. The newest value counts until the next one is due: a
meter that is read several times a tick shows the same until it ticks, and only then its ticks can be found.
"""

import ipaddress
import json
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final
from urllib.parse import urlsplit

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault
from joulebox.node.options import choice, number
from joulebox.units import nanoseconds

WHERE: Final = "udp://:PORT"
LOOKS_FOR: Final = "readings sent to a port"
OPTIONS: Final[Mapping[str, str]] = {
    "channels": "what will be sent, NAME:KIND joined by +; meter:power_w without it",
    "scope": "what energy and power cover: wall (without it), platform, cpu, dram, gpu0...",
    "sampling": "how the instrument makes a power reading: mean over its tick, or snapshot (without it)",
    "tick": "seconds between two readings of the instrument; 1 without it",
    "lag": "seconds from the power to the message that tells it; 0.1 without it",
    "accuracy": "the instrument's error limit in percent of the reading; 10 without it",
    "from": "the address that may send; this machine only without it, `any` for everybody",
}

_SCOPES: Final = ("wall", "platform", "cpu", "dram", *(f"gpu{index}" for index in range(16)))
_KINDS: Final = (ReadingKind.POWER_W, ReadingKind.ENERGY_J, ReadingKind.TEMPERATURE_C)
_STEP: Final = 1e-3
_DATAGRAM_BYTES_MAX: Final = 2_048
_DATAGRAMS_A_READ_MAX: Final = 1_000
_FRESH_TICKS: Final = 0.9
_VALUE_MAX: Final = 1e12
_ANYBODY: Final = "any"


class FeedMeter:
    """The channels an operator named, filled by what arrives."""

    missing: Sequence[str] = ()

    def __init__(self, address: str, options: Mapping[str, str], clock: Clock) -> None:
        """Listen. Raises `JouleboxError`: `bad_setting` for address or options, `meter_unreadable` for the port."""
        host, port = _host_and_port(address)
        self.address = f"feed:{address}"
        self._channels = tuple(_channels(self.address, options))
        self._clock = clock
        self._values: list[int | None] = [None] * len(self._channels)
        self._heard_ns = [0] * len(self._channels)
        self._slots = {channel.name: index for index, channel in enumerate(self._channels)}
        self._sender = _sender(options.get("from", "::1" if ":" in host else "127.0.0.1"))
        six = ":" in (host or self._sender or "")
        near = self._sender is not None and ipaddress.ip_address(self._sender).is_loopback
        wide = ("::1" if six else "127.0.0.1") if near else ("::" if six else "0.0.0.0")  # noqa: S104 - `from` sifts
        self._socket: socket.socket | None = socket.socket(
            socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM
        )
        self._socket.setblocking(False)
        try:
            self._socket.bind((host or wide, port))
        except OSError as error:
            self.close()
            raise JouleboxError(
                "meter_unreadable", f"{self.address} cannot listen ({error.strerror}): choose another port or address."
            ) from error

    def channels(self) -> Sequence[Channel]:
        """Those the operator named."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Thousandths of the unit, `None` where nothing came in time. Raises `MeterFault` where only nonsense came."""
        if self._socket is None:
            raise MeterFault("the meter is closed")
        now_ns, heard, wrong = self._clock.now_ns(), False, None
        for datagram in self._datagrams(self._socket):
            try:
                for name, kind, value in parse(datagram):
                    if (slot := self._slots.get(f"{name}/{kind}")) is None:
                        wrong = f"{name} {kind} was sent, which channels= does not name"
                    else:
                        self._values[slot], self._heard_ns[slot], heard = round(value / _STEP), now_ns, True
            except ValueError as error:
                wrong = str(error)
        if wrong is not None and not heard:
            raise MeterFault(wrong)
        return tuple(map(self._fresh, self._channels, self._values, self._heard_ns, repeat(now_ns)))

    def _fresh(self, channel: Channel, value: int | None, heard_ns: int, now_ns: int) -> int | None:
        return value if now_ns - heard_ns <= nanoseconds(_FRESH_TICKS * channel.tick_s) else None

    def close(self) -> None:
        """Close the port."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _datagrams(self, port: socket.socket) -> Iterator[bytes]:
        """What has arrived from who may send, oldest first; bounded, so that a flood cannot hold the reader."""
        for _ in range(_DATAGRAMS_A_READ_MAX):
            try:
                datagram, sender = port.recvfrom(_DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError as error:
                raise MeterFault(f"the port broke ({error.strerror})") from error
            if self._sender is None or sender[0] == self._sender:
                yield datagram


def open(address: str, options: Mapping[str, str]) -> FeedMeter:  # noqa: A001 - the name every driver offers
    """Listen on `udp://[HOST]:PORT`. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    return FeedMeter(address, options, SystemClock())


def parse(datagram: bytes) -> list[tuple[str, str, float]]:
    """Name, kind and value of each line, in order. Raises `ValueError` saying which is wrong."""
    if len(datagram) > _DATAGRAM_BYTES_MAX:
        raise ValueError(f"a message of more than {_DATAGRAM_BYTES_MAX} bytes was sent")
    try:
        lines = datagram.decode().splitlines()
    except UnicodeDecodeError:
        raise ValueError("a message that is no text was sent") from None
    return [reading for line in lines if line.strip() for reading in _line(line.strip())]


def _line(line: str) -> Iterator[tuple[str, str, float]]:
    if line.startswith("{"):
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{line[:60]!r} was sent, which is no JSON") from None
        pairs = [(kind.value, data[kind.value]) for kind in _KINDS if kind.value in data]
        if not isinstance(data.get("name"), str) or not pairs:
            raise ValueError(f"{line[:60]!r} was sent: name, or power_w, energy_j or temperature_c is missing")
        for kind, value in pairs:
            yield data["name"], kind, _number(value, line)
        return
    words = line.split()
    if len(words) != 3 or words[1] not in _KINDS:
        raise ValueError(f"{line[:60]!r} was sent: write NAME power_w|energy_j|temperature_c VALUE")
    yield words[0], words[1], _number(words[2], line)


def _number(value: Any, line: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < _VALUE_MAX:
        raise ValueError(f"{line[:60]!r} was sent, whose value is no number")
    return number


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
        if host:
            ipaddress.ip_address(host)
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme != "udp" or port is None or parts.path or parts.query or parts.username:
        raise JouleboxError("bad_setting", f"Meter feed:{address} cannot be used: write feed:udp://:PORT.")
    return host, port


def _sender(text: str) -> str | None:
    """The address that may send, `None` for everybody."""
    if text == _ANYBODY:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise JouleboxError(
            "bad_setting", f"Meter option from={text} cannot be used: give an IP address such as 192.0.2.7, or any."
        ) from None


def _channels(address: str, options: Mapping[str, str]) -> Iterator[Channel]:
    scope = choice(options, "scope", "wall", _SCOPES)
    power = Sampling(choice(options, "sampling", "snapshot", ("mean", "snapshot")))
    percent = number(options, "accuracy", 10.0, most=100.0)
    stated = "as the operator states" if "accuracy" in options else "assumed"
    seen: set[str] = set()
    for text in options.get("channels", "meter:power_w").split("+"):
        name, _, kind = text.partition(":")
        if not name or name.split() != [name] or kind not in _KINDS or text in seen:
            reason = "is named twice" if text in seen else "is not of the form NAME:power_w|energy_j|temperature_c"
            raise JouleboxError("bad_setting", f"Meter option channels cannot be used: {text!r} {reason}.")
        seen.add(text)
        heat = kind == ReadingKind.TEMPERATURE_C
        counter = kind == ReadingKind.ENERGY_J
        yield Channel(
            name=f"{name}/{kind}",
            meter=address,
            kind=ReadingKind(kind),
            sampling=Sampling.SNAPSHOT if heat else Sampling.COUNTER if counter else power,
            scope=scope,
            step=_STEP,
            tick_s=number(options, "tick", 1.0),
            lag_s=number(options, "lag", 0.1),
            gain_u_ratio=0.0 if heat else percent / 100,
            accuracy="sensor behind a feed, not calibrated" if heat else f"fed by the operator: {percent:g} % {stated}",
        )
