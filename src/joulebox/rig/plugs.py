"""Smart plugs that show the machine's wall power: Shelly of both generations and Tasmota, by HTTP and by MQTT.

What a plug shows is that of its last tick on the clock handed in, so that on a simulated clock the same seed gives the
same answers. The JSON is the makers' own, whole enough for other programs to read it too.
"""

import contextlib
import json
import random
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import parse_qs, urlsplit

from joulebox.clock import Clock
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_KWH, J_PER_WH, nanoseconds

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

MODEL: Final = "joulebox-rig"
"""A driver knows by this name that the readings are simulated."""
_MAC: Final = "A8032AB636EC"
_WATT_MINUTE_J: Final = 60.0

Answer = tuple[int, bytes]
"""Status and body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugParameters:
    """What kind of plug. `averaging_s` 0: power is of one moment. Gain error 0.01: it shows 1 % more than the truth."""

    tick_s: float = 1.0
    averaging_s: float = 0.0
    gain_error: float = 0.0
    offset_w: float = 0.0


class PlugMeter:
    """The meter inside: watts and joules as of its last tick."""

    def __init__(self, clock: Clock, wall: Wall, parameters: PlugParameters | None = None) -> None:
        self._clock = clock
        self._wall = wall
        self.parameters = parameters or PlugParameters()
        source = random.Random(f"plug {wall.machine.seed}")
        self._tick_ns = nanoseconds(self.parameters.tick_s)
        self._phase_ns = source.randrange(self._tick_ns)
        self._first_j = source.uniform(0.0, 50.0) * J_PER_KWH

    def watts(self) -> float:
        """With endless digits; never below zero."""
        own, tick_ns = self.parameters, self._last_tick_ns()
        if own.averaging_s:
            shown_w = self._wall.mean_w(tick_ns - nanoseconds(own.averaging_s), tick_ns)
        else:
            shown_w = self._wall.power_w(tick_ns)
        return max(0.0, shown_w * (1.0 + own.gain_error) + own.offset_w)

    def joules(self) -> float:
        """Of its life, with endless digits."""
        return self._first_j + self._wall.energy_j(self._last_tick_ns()) * (1.0 + self.parameters.gain_error)

    def _last_tick_ns(self) -> int:
        start_ns = self._wall.machine.start_ns
        ticks = (self._clock.now_ns() - start_ns - self._phase_ns) // self._tick_ns
        return max(start_ns, ticks * self._tick_ns + self._phase_ns + start_ns)


class Device(Protocol):
    """Something with a web page of JSON."""

    def answer(self, path: str) -> Answer:
        """Status and body for a path with its query."""


class ShellyGen2:
    """A Shelly of the second or a later generation with one outlet."""

    def __init__(self, meter: PlugMeter, model: str = MODEL) -> None:
        self._meter = meter
        self._model = model

    def answer(self, path: str) -> Answer:
        """`/shelly`, `/rpc/Switch.GetStatus?id=0` and `/rpc/PM1.GetStatus?id=0`."""
        parts = urlsplit(path)
        if parts.path == "/shelly":
            return _json({"id": "shellyplusplugs-a8032ab636ec", "mac": _MAC, "model": self._model, "gen": 2,
                          "ver": "1.4.4", "app": "PlusPlugS", "auth_en": False, "auth_domain": None})  # fmt: skip
        if parts.path not in ("/rpc/Switch.GetStatus", "/rpc/PM1.GetStatus"):
            return _json({"code": 404, "message": f"No handler for {parts.path.rpartition('/')[2]}"}, 404)
        number = parse_qs(parts.query).get("id", [""])[0]
        if number != "0":
            return _json({"code": -105, "message": f"Argument 'id', value {number} not found!"}, 500)
        total_wh = int(self._meter.joules() / J_PER_WH * 1_000) / 1_000
        power_w = round(self._meter.watts(), 1)
        return _json({"id": 0, "source": "init", "output": True, "apower": power_w, "voltage": 230.1,
                      "current": round(power_w / 230.1, 3),
                      "aenergy": {"total": total_wh, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1_767_225_600},
                      "temperature": {"tC": 41.2, "tF": 106.2}})  # fmt: skip


class ShellyGen1:
    """A Shelly of the first generation with one outlet. Its counter moves in watt-minutes."""

    def __init__(self, meter: PlugMeter, model: str = MODEL) -> None:
        self._meter = meter
        self._model = model

    def answer(self, path: str) -> Answer:
        """`/shelly` and `/status`."""
        if path == "/shelly":
            return _json({"type": self._model, "mac": _MAC, "auth": False, "fw": "20230913-113421/v1.14.0-gcb84623",
                          "num_outputs": 1, "num_meters": 1})  # fmt: skip
        if path != "/status":
            return 404, b"Not Found"
        meter = {"power": round(self._meter.watts(), 2), "overpower": 0.0, "is_valid": True, "timestamp": 1_767_225_600,
                 "counters": [0.0, 0.0, 0.0], "total": int(self._meter.joules() / _WATT_MINUTE_J)}  # fmt: skip
        return _json({"wifi_sta": {"connected": True, "ssid": "lab", "ip": "192.0.2.7", "rssi": -53}, "mac": _MAC,
                      "relays": [{"ison": True, "has_timer": False, "overpower": False}], "meters": [meter],
                      "uptime": 18_961_214})  # fmt: skip


class Tasmota:
    """A plug with Tasmota: its commands, whichever way they come. `password` guards its web page (user `admin`)."""

    def __init__(
        self,
        meter: PlugMeter,
        watt_digits: int = 0,
        kwh_digits: int = 3,
        password: str | None = None,
        build: str = MODEL,
    ) -> None:
        self._meter = meter
        self._build = build
        self.digits = {"WattRes": watt_digits, "EnergyRes": kwh_digits, "TelePeriod": 300}
        self._password = password

    def answer(self, path: str) -> Answer:
        """`/cm?cmnd=COMMAND`."""
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != "/cm":
            return 404, b"File Not Found"
        if self._password is not None and (query.get("user"), query.get("password")) != ("admin", self._password):
            return _json({"WARNING": "Need user=<username>&password=<password>"}, 401)
        command, _, argument = query.get("cmnd", "").partition(" ")
        return _json(self.command(command, argument)[1])

    def command(self, command: str, argument: str) -> tuple[str, dict[str, Any]]:
        """Where under `stat/TOPIC` the answer goes, and the answer."""
        if command in self.digits:
            return "RESULT", {command: self.digits[command]}
        if (command, argument) == ("Status", "2"):
            return "STATUS2", {
                "StatusFWR": {"Version": f"14.4.1({self._build})", "Core": "2_7_8", "Hardware": "ESP8266EX"}
            }
        if (command, argument) == ("Status", "8"):
            return "STATUS8", {"StatusSNS": self.sensor()}
        return "RESULT", {"Command": "Unknown", "Input": f"{command} {argument}".strip()}

    def sensor(self) -> dict[str, Any]:
        """What it also tells by itself."""
        power_w = _shown(self._meter.watts(), self.digits["WattRes"])
        total = _shown(self._meter.joules() / J_PER_KWH, self.digits["EnergyRes"])
        return {"Time": "2026-01-01T00:00:00",
                "ENERGY": {"TotalStartTime": "2025-01-01T00:00:00", "Total": total, "Yesterday": 0.412, "Today": 0.105,
                           "Power": power_w, "ApparentPower": power_w, "ReactivePower": 0, "Factor": 1.0,
                           "Voltage": 230, "Current": round(power_w / 230, 3)}}  # fmt: skip


Fault = Literal["silence", "error", "half", "garbage", "drip", "huge", "password"]


class WebPlug:
    """A device's web page on a port of this machine, and what goes wrong with it."""

    def __init__(self, device: Device, port: int = 0) -> None:
        """Listen at once, at `url`. Raises `OSError` where the port is taken."""
        self.fault: Fault | None = None
        self.asked: list[str] = []
        self.connections: set[socket.socket] = set()
        self._released = threading.Event()
        web = self

        class Page(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                web.connections.add(self.connection)

            def finish(self) -> None:
                web.connections.discard(self.connection)
                super().finish()

            def do_GET(self) -> None:
                web.asked.append(self.path)
                web.serve(device, self)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Page)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="rig plug", daemon=True)
        self._thread.start()

    def serve(self, device: Device, page: BaseHTTPRequestHandler) -> None:
        """Answer one question, or spoil it."""
        status, body = device.answer(page.path)
        if self.fault == "silence":
            self._released.wait()
            page.close_connection = True
            return
        status = {"error": 500, "password": 401}.get(self.fault or "", status)
        body = {"garbage": b"<html>busy</html>", "huge": b" " * 200_000}.get(self.fault or "", body)
        page.send_response(status)
        page.send_header("Content-Type", "application/json")
        page.send_header("Content-Length", str(len(body)))
        if self.fault == "drip":
            self._drip(page)
            return
        page.end_headers()
        page.wfile.write(body[: len(body) // 2] if self.fault == "half" else body)
        page.close_connection = page.close_connection or self.fault is not None

    def _drip(self, page: BaseHTTPRequestHandler) -> None:
        """A header without end, a letter now and then."""
        page.flush_headers()
        page.wfile.write(b"X-Slow: ")
        try:
            while not self._released.wait(0.02):
                page.wfile.write(b"x")
        except OSError:
            page.close_connection = True

    def close(self) -> None:
        """Unplug."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in tuple(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


class MqttPlug:
    """A Tasmota plug at a broker. Needs paho-mqtt; its own thread answers."""

    def __init__(self, plug: Tasmota, host: str, port: int, topic: str) -> None:
        """Connect. Raises `OSError` where there is no broker."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._plug = plug
        self._topic = topic
        self.silent = False
        self.spoil: Callable[[bytes], bytes] = lambda payload: payload
        """Changes what it sends."""
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(f"cmnd/{topic}/+")
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._command
        self._client.connect(host, port)
        self._client.loop_start()
        if not self._ready.wait(10.0):
            raise OSError(f"the broker at {host}:{port} does not answer")

    def _command(self, client: "Client", _: object, message: "MQTTMessage") -> None:
        if self.silent:
            return
        tail, answer = self._plug.command(message.topic.rpartition("/")[2], message.payload.decode(errors="replace"))
        client.publish(f"stat/{self._topic}/{tail}", self.spoil(json.dumps(answer).encode()))

    def tell(self, *, retain: bool = False) -> None:
        """Tell its readings by itself, as every TelePeriod; returns when they are at the broker."""
        payload = self.spoil(json.dumps(self._plug.sensor()).encode())
        self._client.publish(f"tele/{self._topic}/SENSOR", payload, qos=1, retain=retain).wait_for_publish(10.0)

    def close(self) -> None:
        """Unplug."""
        self._client.disconnect()
        self._client.loop_stop()


def _shown(value: float, digits: int) -> float:
    """With so many digits behind the point; without any, a whole number as Tasmota writes it."""
    return round(value, digits) if digits else round(value)


def _json(data: Mapping[str, Any], status: int = 200) -> Answer:
    return status, json.dumps(data).encode()
