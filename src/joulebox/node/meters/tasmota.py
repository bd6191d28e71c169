"""`tasmota:http://HOST` or `tasmota:mqtt://HOST[:PORT]/TOPIC`: a plug with the Tasmota firmware.

`Status 8` shows watts of about this second and kilowatt hours of its life, with as many digits as the plug is set to
(WattRes, EnergyRes), asked at the opening. By MQTT the question goes to `cmnd/TOPIC/Status`, the answer comes to
`stat/TOPIC/STATUS8`. With `ask=off` what the plug tells by itself is read, at `tele/TOPIC/SENSOR`, each once. What came
before the question, or was kept by the broker, is old and dropped.
"""

import json
import select
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.json_http import JsonHttp, field, raw_of
from joulebox.node.meter import MeterFault
from joulebox.node.options import TIMEOUT_OPTION, choice, host_and_port, timeout_s
from joulebox.units import J_PER_KWH, nanoseconds, seconds

if TYPE_CHECKING:
    from paho.mqtt.client import Client

WHERE: Final = ""
LOOKS_FOR: Final = "a plug with Tasmota; networks are never searched, name its address"
OPTIONS: Final[Mapping[str, str]] = {
    "user": "name at the plug's web page (admin) or at the broker",
    "password": "password at the plug's web page or at the broker; keep it in the file that JOULEBOX_METERS_FILE names",
    "ask": "off reads only what the plug tells by itself, every TelePeriod; by MQTT alone (on)",
    "timeout": TIMEOUT_OPTION,
}

_TICK_S: Final = 1.0
_GAIN_U: Final = 0.05
_OFFSET_U_W: Final = 0.5
_WATT_DIGITS, _KWH_DIGITS = 0, 3
"""What Tasmota shows where its setting cannot be asked."""
_DIGITS_MAX: Final = 5
_TELE_S, _TELE_MAX_S = 300, 10_000
_SIMULATED: Final = "joulebox-rig"
_PORT: Final = 1883
_PACKETS_MAX: Final = 1_000
"""So many old messages are dropped at most before a question; a broker that floods shall not hold a reading up."""


class _Link(Protocol):
    """A way to the plug."""

    name: str

    def ask(self, command: str, argument: str = "") -> Any:
        """The plug's answer to a command, decoded. Raises `MeterFault`."""

    def told(self) -> Any:
        """The newest of what the plug told by itself and was not taken yet; `None` without. Raises `MeterFault`."""

    def close(self) -> None:
        """Close the connection."""


class TasmotaMeter:
    """Power and the counter of kilowatt hours."""

    missing: Sequence[str] = ()

    def __init__(self, link: _Link, asks: bool) -> None:
        """Ask for digits and firmware, and read once. Raises `JouleboxError("meter_unreadable")`."""
        self._link = link
        self._asks = asks
        self.address = f"tasmota:{link.name}"
        try:
            watt_digits = self._setting("WattRes", _WATT_DIGITS, _DIGITS_MAX)
            kwh_digits = self._setting("EnergyRes", _KWH_DIGITS, _DIGITS_MAX)
            tick_s = _TICK_S if asks else self._tele_s()
            firmware = str(field(link.ask("Status", "2"), "StatusFWR", "Version"))
            self._steps = 10.0**-watt_digits, 10.0**-kwh_digits
            self._numbers(link.ask("Status", "8"))
        except MeterFault as fault:
            self.close()
            raise JouleboxError(
                "meter_unreadable",
                f"The Tasmota plug cannot be read: {fault}. Check address, user and password, or leave this meter out.",
            ) from fault
        self._channels = self._declared(tick_s, _SIMULATED in firmware)

    def channels(self) -> Sequence[Channel]:
        """Power and energy."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Power and energy in the plug's own digits; `None` where it is not asked and told nothing new."""
        data = self._link.ask("Status", "8") if self._asks else self._link.told()
        return (None, None) if data is None else self._numbers(data)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def _tele_s(self) -> float:
        period_s = self._setting("TelePeriod", _TELE_S, _TELE_MAX_S)
        if period_s == 0:
            raise MeterFault("its TelePeriod is 0, it tells nothing by itself")
        return float(period_s)

    def _setting(self, name: str, default: int, most: int) -> int:
        value = field(self._link.ask(name), name)
        return value if type(value) is int and 0 <= value <= most else default

    def _numbers(self, data: Any) -> tuple[int, int]:
        energy = field(data, "StatusSNS", "ENERGY") or field(data, "ENERGY")
        if not isinstance(energy, dict):
            raise MeterFault("its answer holds no ENERGY: this device has no meter")
        if isinstance(energy.get("Power"), list):
            raise MeterFault("it has several outlets, and their watts together are not read")
        power_step, energy_step = self._steps
        return raw_of(energy.get("Power"), power_step, "Power"), raw_of(energy.get("Total"), energy_step, "Total")

    def _declared(self, tick_s: float, simulated: bool) -> tuple[Channel, ...]:
        power = Channel(
            name="power",
            meter=self.address,
            kind=ReadingKind.POWER_W,
            sampling=Sampling.SNAPSHOT,
            scope="wall",
            step=self._steps[0],
            tick_s=tick_s,
            gain_u_ratio=_GAIN_U,
            offset_u=_OFFSET_U_W,
            accuracy="not calibrated: 5 % and 0.5 W taken, the firmware leaves calibration to its user",
            simulated=simulated,
        )
        energy = Channel(
            name="energy",
            meter=self.address,
            kind=ReadingKind.ENERGY_J,
            sampling=Sampling.COUNTER,
            scope="wall",
            step=J_PER_KWH * self._steps[1],
            tick_s=tick_s,
            gain_u_ratio=_GAIN_U,
            accuracy="not calibrated: 5 % taken, the firmware leaves calibration to its user",
            simulated=simulated,
        )
        return power, energy


class _Web:
    """The plug's own web page."""

    def __init__(self, address: str, options: Mapping[str, str], clock: Clock) -> None:
        self._http = JsonHttp("tasmota", address, timeout_s(options), clock)
        self.name = self._http.url
        self._login = ""
        if "password" in options:
            user = options.get("user", "admin")
            self._login = f"&user={quote(user, safe='')}&password={quote(options['password'], safe='')}"

    def ask(self, command: str, argument: str = "") -> Any:
        said = f"{command} {argument}".strip()
        data = self._http.get(f"/cm?cmnd={quote(said)}{self._login}", said)
        if field(data, "WARNING") is not None:
            raise MeterFault(f"{self.name} asks for user and password")
        return data

    def told(self) -> Any:
        return None

    def close(self) -> None:
        self._http.close()


class _Mqtt:
    """A broker between. Nothing runs beside `ask` and `told`: they alone send and take what came."""

    def __init__(self, address: str, options: Mapping[str, str], clock: Clock) -> None:
        """Connect. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
        plain, _, topic = address.removeprefix("mqtt://").partition("/")
        self._host, self._port = host_and_port(plain, "tasmota:mqtt://", _PORT)
        self._topic = topic.strip("/")
        if not self._topic or any(letter in "+#\0 " for letter in self._topic):
            raise JouleboxError(
                "bad_setting",
                f"Meter tasmota:{address} cannot be used: write tasmota:mqtt://HOST/TOPIC with the plug's own topic.",
            )
        self.name = f"mqtt://{self._host}:{self._port}/{self._topic}"
        self._options = options
        self._timeout_s = timeout_s(options)
        self._clock = clock
        self._closed = False
        self._session: Client | None = None
        self._heard: dict[str, Any] = {}

    def ask(self, command: str, argument: str = "") -> Any:
        deadline_ns = self._connect()
        self._drain()
        self._heard.clear()
        self._client.publish(f"cmnd/{self._topic}/{command}", argument)
        tail = f"STATUS{argument}" if argument else "RESULT"
        if not self._pump(deadline_ns, lambda: tail in self._heard):
            raise MeterFault(f"the plug {self._topic} did not answer {command} {argument}".rstrip() + self._within())
        return self._decoded(tail)

    def told(self) -> Any:
        self._connect()
        self._drain()
        data = self._decoded("SENSOR")
        self._heard.clear()
        return data

    def close(self) -> None:
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._session is not None:
            self._session.disconnect()
        self._session = None

    @property
    def _client(self) -> "Client":
        """The connection. No name is bound to it elsewhere, so that a fault that is kept does not keep it open."""
        assert self._session is not None
        return self._session

    def _connect(self) -> int:
        """Open the connection where it is not, and say when the question in hand must end. Raises `MeterFault`."""
        if self._closed:
            raise MeterFault("the meter is closed")
        deadline_ns = self._clock.now_ns() + nanoseconds(self._timeout_s)
        if self._session is None:
            try:
                self._begin(deadline_ns)
            except MeterFault:
                self._hang_up()
                raise
        return deadline_ns

    def _begin(self, deadline_ns: int) -> None:
        broker = f"the broker at {self._host}:{self._port}"
        answers: list[str] = []
        problem = ""
        self._session = _client(self._options, self._timeout_s)
        self._client.on_connect = lambda _client, _data, _flags, code, _: answers.append(
            str(code) if code.is_failure else ""
        )
        self._client.on_subscribe = lambda _client, _data, _id, _codes, _: answers.append("subscribed")
        self._client.on_message = lambda _client, _data, message: self._take(
            message.topic, bytes(message.payload), message.retain
        )
        try:
            self._client.connect(self._host, self._port)
        except (OSError, ValueError) as error:
            problem = str(error)
        if problem:
            raise MeterFault(f"{broker} cannot be reached ({problem})")
        if not self._pump(deadline_ns, lambda: bool(answers)):
            raise MeterFault(f"{broker} did not answer{self._within()}")
        if answers[0]:
            raise MeterFault(f"{broker} refuses the connection ({answers[0]})")
        self._client.subscribe([(f"stat/{self._topic}/+", 0), (f"tele/{self._topic}/SENSOR", 0)])
        if not self._pump(deadline_ns, lambda: len(answers) > 1):
            raise MeterFault(f"{broker} did not answer{self._within()}")

    def _take(self, topic: str, payload: bytes, retained: bool) -> None:
        if not retained:
            self._heard[topic.rpartition("/")[2]] = payload

    def _decoded(self, tail: str) -> Any:
        if tail not in self._heard:
            return None
        try:
            return json.loads(self._heard[tail])
        except (ValueError, RecursionError) as error:
            raise MeterFault(f"the plug {self._topic} says something at {tail} that is not JSON") from error

    def _drain(self) -> None:
        """Take in what has already come. Raises `MeterFault`."""
        for _ in range(_PACKETS_MAX):
            if not self._ready(0.0)[0]:
                return
            self._turn(bool(self._client.loop_read()))

    def _pump(self, deadline_ns: int, done: Callable[[], bool]) -> bool:
        """Send and take until `done` or the deadline; whether it is done. Raises `MeterFault`."""
        while not done():
            left_s = seconds(deadline_ns - self._clock.now_ns())
            if left_s <= 0:
                return False
            readable, writable = self._ready(left_s)
            if writable:
                self._turn(bool(self._client.loop_write()))
            if readable:
                self._turn(bool(self._client.loop_read()))
        return True

    def _ready(self, wait_s: float) -> tuple[bool, bool]:
        """Whether something can be taken, and whether something waits that can be sent. Raises `MeterFault`."""
        socket = self._client.socket()
        if socket is None:
            raise self._lost()
        writers = [socket] if self._client.want_write() else []
        readable, writable, _ = select.select([socket], writers, [], wait_s)
        return bool(readable), bool(writable)

    def _turn(self, lost: bool) -> None:
        """Keep the connection alive, or say that it is gone. Raises `MeterFault`."""
        if lost or self._client.loop_misc():
            raise self._lost()

    def _lost(self) -> MeterFault:
        self._session = None
        return MeterFault(f"the broker at {self._host}:{self._port} closed the connection")

    def _within(self) -> str:
        return f" within {self._timeout_s:g} s"


def open(address: str, options: Mapping[str, str]) -> TasmotaMeter:  # noqa: A001 - the name every driver offers
    """The plug at `http://HOST` or behind the broker `mqtt://HOST[:PORT]/TOPIC`.

    Raises `JouleboxError`: `bad_setting`, `meter_unreadable`.
    """
    asks = choice(options, "ask", "on", ("on", "off")) == "on"
    if address.startswith("mqtt:"):
        return TasmotaMeter(_Mqtt(address, options, SystemClock()), asks)
    if not asks:
        raise JouleboxError(
            "bad_setting", "Meter option ask=off cannot be used: by HTTP a plug tells nothing by itself."
        )
    return TasmotaMeter(_Web(address, options, SystemClock()), asks)


def _client(options: Mapping[str, str], wait_s: float) -> "Client":
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise JouleboxError(
            "meter_unreadable", "A plug behind an MQTT broker needs paho-mqtt: pip install 'joulebox[mqtt]'."
        ) from error
    client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
    client.connect_timeout = wait_s  # the broker's name is looked up before, which no time-out can bound
    if "user" in options:
        client.username_pw_set(options["user"], options.get("password"))
    return client
