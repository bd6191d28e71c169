"""Smart plugs over their real wires: Shelly and Tasmota by HTTP, Tasmota behind a real MQTT broker, and every fault."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from amqtt.broker import Broker
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import conforms, refused
from joulebox.clock import SimulatedClock
from joulebox.model import ReadingKind, Sampling
from joulebox.node.json_http import field, raw_of
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import open_meters
from joulebox.rig.physics import Machine
from joulebox.rig.plugs import (
    Answer,
    Device,
    Fault,
    MqttPlug,
    PlugMeter,
    PlugParameters,
    ShellyGen1,
    ShellyGen2,
    Tasmota,
    WebPlug,
)
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_KWH, J_PER_WH, NS_PER_S

CONFORMS = ("shelly", "tasmota")
WEB: dict[str, Callable[[PlugMeter], Device]] = {
    "shelly:": ShellyGen2,
    "shelly:gen1": ShellyGen1,
    "tasmota:": lambda meter: Tasmota(meter, watt_digits=1),
}
FAULTS: dict[Fault, str] = {
    "silence": "did not answer .* within 0.5 s",
    "drip": "did not answer .* within 0.5 s",
    "error": "with status 500",
    "half": "broke off its answer",
    "garbage": "not JSON",
    "huge": "more than 65536 bytes",
    "password": "asks for a password",
}


@dataclass
class Lab:
    """A machine at a plug whose time a test moves."""

    clock: SimulatedClock
    machine: Machine
    wall: Wall
    meter: PlugMeter

    def pass_time(self, s: float) -> None:
        self.clock.sleep_until(self.clock.now_ns() + round(s * NS_PER_S))


def new_lab(parameters: PlugParameters | None = None, seed: int = 7) -> Lab:
    clock, machine = SimulatedClock(), Machine(seed)
    wall = Wall(machine)
    lab = Lab(clock, machine, wall, PlugMeter(clock, wall, parameters))
    lab.pass_time(5.0)
    return lab


@contextmanager
def web(device: Device, port: int = 0) -> Iterator[WebPlug]:
    plug = WebPlug(device, port)
    try:
        yield plug
    finally:
        plug.close()


@contextmanager
def opened(address: str) -> Iterator[Meter]:
    (meter,) = open_meters([address])
    try:
        yield meter
    finally:
        meter.close()


def kind_of(name: str) -> str:
    return name.partition(":")[0]


def values(meter: Meter) -> list[float]:
    return [channel.step * raw for channel, raw in zip(meter.channels(), meter.read(), strict=True) if raw is not None]


# --- by HTTP ----------------------------------------------------------------------------------------------------------


def test_shelly_conforms() -> None:
    """A Shelly of either generation does what every meter must; of the first the counter only where asked for."""
    lab = new_lab()
    power_w, energy_j = lab.meter.watts(), lab.meter.joules()
    with web(ShellyGen2(lab.meter, model="SNPL-00112EU")) as plug:
        raw = [round(power_w / 0.1), int(energy_j / J_PER_WH * 1_000)]
        power, energy = conforms(f"shelly:{plug.url}", raw)
        assert (power.kind, power.sampling, power.scope, power.step) == ("power_w", "snapshot", "wall", 0.1)
        assert (energy.kind, energy.sampling, energy.step) == (ReadingKind.ENERGY_J, Sampling.COUNTER, 3.6)
        conforms(f"shelly:{plug.url},energy=off", raw[:1])
        conforms(f"shelly:{plug.url},component=pm1", raw)
    with web(ShellyGen1(lab.meter, model="SHPLG-S")) as plug:
        raw = [round(power_w / 0.01), int(energy_j / 60)]
        (power,) = conforms(f"shelly:{plug.url}", raw[:1])
        assert power.step == 0.01
        _, energy = conforms(f"shelly:{plug.url},energy=on", raw)
        assert (energy.step, energy.tick_s) == (60.0, 60.0)


def test_tasmota_conforms() -> None:
    """A Tasmota plug does what every meter must, with the digits that it is set to."""
    lab = new_lab()
    for watt_digits, kwh_digits in ((0, 3), (2, 5)):
        with web(Tasmota(lab.meter, watt_digits, kwh_digits, build="tasmota")) as plug:
            raw = [round(lab.meter.watts() * 10**watt_digits), round(lab.meter.joules() / J_PER_KWH * 10**kwh_digits)]
            power, energy = conforms(f"tasmota:{plug.url}", raw)
            assert power.step == pytest.approx(10.0**-watt_digits)
            assert energy.step == pytest.approx(J_PER_KWH / 10**kwh_digits)
            assert (power.sampling, energy.sampling) == (Sampling.SNAPSHOT, Sampling.COUNTER)


@pytest.mark.parametrize("name", WEB)
def test_plug_follows_the_machine(name: str) -> None:
    """Watts are those of the last tick, joules between two readings those of the wall, and the rig is marked."""
    lab = new_lab(PlugParameters(gain_error=0.01))
    with web(WEB[name](lab.meter)) as plug, opened(f"{kind_of(name)}:{plug.url}") as meter:
        assert all(channel.simulated for channel in meter.channels())
        idle_w = values(meter)[0]
        lab.machine.activity(lab.clock.now_ns(), 1.0)
        assert values(meter)[0] == idle_w
        lab.pass_time(3_600.0)
        busy_w = values(meter)[0]
        assert busy_w == pytest.approx(lab.wall.power_w(lab.clock.now_ns()) * 1.01, rel=0.02)
        assert busy_w > idle_w + 40
        if len(meter.channels()) == 2:
            first_j, start_ns = values(meter)[1], lab.clock.now_ns()
            lab.pass_time(7_200.0)
            truth_j = lab.wall.energy_j(lab.clock.now_ns()) - lab.wall.energy_j(start_ns)
            step_j = meter.channels()[1].step
            assert values(meter)[1] - first_j == pytest.approx(truth_j * 1.01, abs=1.5 * step_j)


def test_averaging_plug_shows_the_mean() -> None:
    """A plug that averages shows the mean power of its last second, whenever in that second the work was."""
    lab = new_lab(PlugParameters(averaging_s=1.0))
    lab.machine.activity(lab.clock.now_ns(), 1.0)
    lab.pass_time(0.5)
    lab.machine.activity(lab.clock.now_ns(), 0.0)
    shown_w = []
    for _ in range(4):
        lab.pass_time(1.0)
        shown_w.append(lab.meter.watts())
    assert lab.wall.power_w(lab.clock.now_ns()) + 3 < max(shown_w) < lab.wall.power_w(lab.clock.now_ns()) + 45


@pytest.mark.parametrize("name", WEB)
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told_in_time_and_the_next_reading_counts(name: str, fault: Fault) -> None:
    """Silence, dripping, errors, half and wrong answers each have a sentence, within the time-out, and pass."""
    lab = new_lab()
    timeout_s = 0.5 if fault in ("silence", "drip") else 4.0
    with web(WEB[name](lab.meter)) as plug, opened(f"{kind_of(name)}:{plug.url},timeout={timeout_s}") as meter:
        before = meter.read()
        plug.fault = fault
        asked_s = time.monotonic()
        with pytest.raises(MeterFault, match=FAULTS[fault]) as caught:
            meter.read()
        assert time.monotonic() - asked_s < 2.0
        assert plug.url in str(caught.value)
        plug.fault = None
        assert meter.read() == before


@pytest.mark.parametrize("name", WEB)
def test_unplugged_plug_comes_back(name: str) -> None:
    """A plug that is gone is a fault, and back at its address it is read again."""
    lab = new_lab()
    with web(WEB[name](lab.meter)) as plug:
        port = int(plug.url.rpartition(":")[2])
        (meter,) = open_meters([f"{kind_of(name)}:{plug.url},timeout=0.5"])
        before = meter.read()
    for _ in range(2):
        with pytest.raises(MeterFault, match=r"cannot be reached|broke off"):
            meter.read()
    with web(WEB[name](lab.meter), port):
        assert meter.read() == before
        meter.close()


@pytest.mark.parametrize("kind", ["shelly", "tasmota"])
def test_nobody_there_is_refused(kind: str) -> None:
    """An address where nobody listens, or without a host of that name, is refused with what to do."""
    port = free_port()
    error = refused(f"{kind}:http://127.0.0.1:{port}")
    assert error.code == "meter_unreadable"
    assert "Connection refused" in error.detail
    assert "leave this meter out" in error.detail
    assert "no host of that name" in refused(f"{kind}:http://no-such-host.invalid").detail


@pytest.mark.parametrize(
    "address",
    ["", "plug", "ftp://plug", "http://", "http://plug:port", "http://plug/x?y=1", "http://pl ug", "http://[::"],
)
@pytest.mark.parametrize("kind", ["shelly", "tasmota"])
def test_what_is_no_web_address_is_refused(kind: str, address: str) -> None:
    """An address that is none is refused with how to write it."""
    error = refused(f"{kind}:{address}")
    assert error.code == "bad_setting"
    assert f"{kind}:http://HOST" in error.detail


def test_passwords_are_never_told() -> None:
    """A password goes to the plug alone: neither address nor faults hold it, and in an address it is refused."""
    lab = new_lab()
    assert "s3cret" not in refused("shelly:http://admin:s3cret@plug").detail
    with web(Tasmota(lab.meter, password="s3cret&=%")) as plug:
        for options in ("", ",password=wr0ng"):
            error = refused(f"tasmota:{plug.url}{options}")
            assert "asks for a password" in error.detail
            assert "wr0ng" not in error.detail
        with opened(f"tasmota:{plug.url},password=s3cret&=%") as meter:
            assert "s3cret" not in meter.address
            plug.fault = "error"
            with pytest.raises(MeterFault) as caught:
                meter.read()
            assert "s3cret" not in str(caught.value)


class Fixed:
    """A device that answers what a test sets."""

    def __init__(self, pages: dict[str, Any]) -> None:
        self.pages = pages

    def answer(self, path: str) -> Answer:
        page = self.pages.get(path)
        return (404, b"no") if page is None else (200, page if isinstance(page, bytes) else json.dumps(page).encode())


GEN1 = {"type": "SHPLG-S", "mac": "A8032AB636EC"}


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"name": "kettle"}, "no Shelly's"),
        ([1, 2], "no Shelly's"),
        ({"gen": True}, "no Shelly's"),
        ({"gen": 2}, "status 404"),
        (GEN1, "status 404"),
    ],
)
def test_what_is_no_shelly_is_refused(about: object, says: str) -> None:
    """A device that says something else at /shelly, or has no meter, is refused."""
    with web(Fixed({"/shelly": about})) as plug:
        error = refused(f"shelly:{plug.url}")
        assert error.code == "meter_unreadable"
        assert says in error.detail


@pytest.mark.parametrize(
    ("meter", "says"),
    [
        ({"power": 1.0, "is_valid": False}, "not working"),
        ({"power": None, "is_valid": True}, "no number of watts"),
        ({"power": True}, "no number of watts"),
        ({"power": "12"}, "no number of watts"),
        ({"power": 1e300}, "cannot be"),
        ("off", "no number of watts"),
    ],
)
def test_wrong_content_is_no_reading(meter: object, says: str) -> None:
    """A meter that doubts itself, words, truth values and impossible sizes are refused."""
    with web(Fixed({"/shelly": GEN1, "/status": {"meters": [meter]}})) as plug:
        assert says in refused(f"shelly:{plug.url}").detail
        assert "no meter at outlet 3" in refused(f"shelly:{plug.url},switch=3").detail


@pytest.mark.parametrize(
    ("energy", "says"),
    [
        (None, "has no meter"),
        ({"Power": [1, 2], "Total": 3}, "several outlets"),
        ({"Power": 3}, "no number Total"),
        ({"Power": float("nan"), "Total": 1}, "not JSON"),
    ],
)
def test_tasmota_without_watts_is_refused(energy: object, says: str) -> None:
    """A Tasmota device without a meter, with several outlets or with half an answer is refused."""
    pages = {
        f"/cm?cmnd={name}": {"Command": "Unknown"} for name in ("WattRes", "EnergyRes", "TelePeriod", "Status%202")
    }
    with web(Fixed({**pages, "/cm?cmnd=Status%208": {"StatusSNS": {"ENERGY": energy}}})) as plug:
        assert says in refused(f"tasmota:{plug.url}").detail


def test_two_outlets_of_one_device_are_two_meters() -> None:
    """Outlets of one device stand side by side; a Tasmota web page that is not asked tells nothing and is refused."""
    status = {"apower": 12.3, "aenergy": {"total": 1.5}}
    pages = {"/shelly": {"gen": 3}, **{f"/rpc/Switch.GetStatus?id={number}": status for number in (0, 1)}}
    with web(Fixed(pages)) as plug:
        meters = open_meters([f"shelly:{plug.url}", f"shelly:{plug.url},switch=1"])
        assert [meter.read() for meter in meters] == [(123, 1_500), (123, 1_500)]
        for meter in meters:
            meter.close()
    assert refused("tasmota:http://plug,ask=off").code == "bad_setting"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["power", "apower", "aenergy", "total", "meters", "gen"]), inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(data=json_values)
def test_any_json_is_a_reading_or_a_fault(data: object) -> None:
    """Whatever JSON comes, each field is a whole number of steps that fits a trace, or a fault."""
    for keys in (("apower",), ("aenergy", "total"), ("meters", 0, "power"), (0,), ()):
        try:
            raw = raw_of(field(data, *keys), 0.001, "of watts")
        except MeterFault as fault:
            assert str(fault)
        else:
            assert type(raw) is int
            assert abs(raw) <= 2**53


@settings(max_examples=60)
@given(body=st.one_of(st.binary(max_size=80), json_values.map(lambda data: json.dumps(data).encode())))
def test_any_answer_over_the_wire_is_a_reading_or_a_fault(body: bytes) -> None:
    """Over real HTTP, any body is a reading or a fault, never a crash."""
    FUZZED.pages["/rpc/Switch.GetStatus?id=0"] = body
    try:
        raw = FUZZ_METER.read()
    except MeterFault:
        return
    assert all(type(one) is int for one in raw)


FUZZED = Fixed({"/shelly": {"gen": 2}})
FUZZ_METER: Meter


@pytest.fixture(scope="module", autouse=True)
def fuzzed() -> Iterator[None]:
    """One plug and one meter for all fuzzed answers."""
    global FUZZ_METER
    FUZZED.pages["/rpc/Switch.GetStatus?id=0"] = {"apower": 1.0, "aenergy": {"total": 1.0}}
    with web(FUZZED) as plug, opened(f"shelly:{plug.url}") as FUZZ_METER:
        yield


# --- by MQTT ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Steady(dict[Any, Any]):
    """Is looked through as it stands: amqtt changes its subscriptions while it goes through them."""

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.keys()))


class RealBroker:
    """amqtt in a thread of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._broker: Broker | None = None
        self.start()

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    async def _start(self) -> None:
        self._broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        self._broker._subscriptions = Steady()
        await self._broker.start()

    def stop(self) -> None:
        assert self._broker is not None
        asyncio.run_coroutine_threadsafe(self._broker.shutdown(), self._loop).result(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[RealBroker]:
    real = RealBroker()
    yield real
    real.stop()
    real.close()


@contextmanager
def at_broker(broker: RealBroker, plug: Tasmota, topic: str = "lab/plug1") -> Iterator[MqttPlug]:
    device = MqttPlug(plug, "127.0.0.1", broker.port, topic)
    try:
        yield device
    finally:
        device.close()


def mqtt(broker: RealBroker, topic: str = "lab/plug1", options: str = "") -> str:
    return f"tasmota:mqtt://127.0.0.1:{broker.port}/{topic}{options}"


def test_tasmota_by_mqtt_conforms(broker: RealBroker) -> None:
    """A plug behind a real broker does what every meter must."""
    lab = new_lab()
    with at_broker(broker, Tasmota(lab.meter, 1, 4, build="tasmota")):
        raw = [round(lab.meter.watts() * 10), round(lab.meter.joules() / J_PER_KWH * 10_000)]
        power, energy = conforms(mqtt(broker), raw)
        assert (power.step, power.tick_s) == (0.1, 1.0)
        assert energy.step == pytest.approx(360.0)


def test_mqtt_follows_the_machine(broker: RealBroker) -> None:
    """Each reading asks anew: what it brings is of now, and what was told before the question is dropped."""
    lab = new_lab()
    with at_broker(broker, Tasmota(lab.meter, 1)) as plug, opened(mqtt(broker)) as meter:
        assert all(channel.simulated for channel in meter.channels())
        idle_w = values(meter)[0]
        plug.tell()
        lab.machine.activity(lab.clock.now_ns(), 1.0)
        lab.pass_time(10.0)
        assert values(meter)[0] == pytest.approx(lab.meter.watts(), abs=0.05)
        assert values(meter)[0] > idle_w + 40


def test_a_told_value_is_read_once(broker: RealBroker) -> None:
    """A plug that is not asked gives what it told by itself, once, then nothing; kept messages count for nothing."""
    lab = new_lab()
    with at_broker(broker, Tasmota(lab.meter, 1), "lab/quiet") as plug:
        plug.tell(retain=True)
        with opened(mqtt(broker, "lab/quiet", ",ask=off")) as meter:
            assert meter.channels()[0].tick_s == 300.0
            assert meter.read() == (None, None)
            lab.machine.activity(lab.clock.now_ns(), 1.0)
            lab.pass_time(10.0)
            plug.tell()
            told = until_told(meter)
            assert told[0] == round(lab.meter.watts() * 10)
            assert meter.read() == (None, None)
            assert meter.read() == (None, None)


def test_plug_that_tells_nothing_is_refused(broker: RealBroker) -> None:
    """A plug whose own telling is switched off cannot be read without asking it."""
    plug = Tasmota(new_lab().meter)
    plug.digits["TelePeriod"] = 0
    with at_broker(broker, plug):
        assert "tells nothing by itself" in refused(mqtt(broker, options=",ask=off")).detail


def until_told(meter: Meter) -> list[int | None]:
    """The first reading with a value: the broker needs a moment to hand it on."""
    for _ in range(400):
        raw = list(meter.read())
        if raw != [None, None]:
            return raw
        time.sleep(0.005)
    raise AssertionError("nothing was told")


def test_silent_plug_is_a_fault_in_time(broker: RealBroker) -> None:
    """A plug that does not answer is a fault within the time-out; answering again it is read again."""
    lab = new_lab()
    with at_broker(broker, Tasmota(lab.meter)) as plug, opened(mqtt(broker, options=",timeout=0.5")) as meter:
        before = meter.read()
        plug.silent = True
        asked_s = time.monotonic()
        with pytest.raises(MeterFault, match=r"lab/plug1 did not answer Status 8 within 0.5 s"):
            meter.read()
        assert time.monotonic() - asked_s < 2.0
        plug.silent = False
        assert meter.read() == before


@pytest.mark.parametrize("spoilt", [b"", b"{", b"\xff\x00", b"[]", b'{"StatusSNS": {"ENERGY": {"Power": 1}}}'])
def test_spoilt_message_is_a_fault(broker: RealBroker, spoilt: bytes) -> None:
    """Messages that are no JSON, or hold no watts, are faults and pass."""
    lab = new_lab()
    with at_broker(broker, Tasmota(lab.meter)) as plug, opened(mqtt(broker)) as meter:
        before = meter.read()
        plug.spoil = lambda _: spoilt
        with pytest.raises(MeterFault, match=r"not JSON|no ENERGY|no number"):
            meter.read()
        plug.spoil = lambda payload: payload
        assert meter.read() == before


def test_nobody_behind_the_broker_is_refused(broker: RealBroker) -> None:
    """A topic where no plug answers, and a port without a broker, are refused with what is missing."""
    assert "lab/nobody did not answer WattRes" in refused(mqtt(broker, "lab/nobody", ",timeout=0.5")).detail
    error = refused(f"tasmota:mqtt://127.0.0.1:{free_port()}/plug")
    assert error.code == "meter_unreadable"
    assert "cannot be reached" in error.detail


@pytest.mark.parametrize("address", ["mqtt://", "mqtt://host", "mqtt://host/", "mqtt://host/a+b", "mqtt://host:x/plug"])
def test_what_is_no_broker_address_is_refused(address: str) -> None:
    """A broker's address without a plug's topic is refused with how to write it."""
    error = refused(f"tasmota:{address}")
    assert error.code == "bad_setting"
    assert "tasmota:mqtt://HOST" in error.detail


def test_broker_that_does_not_speak_is_refused_in_time() -> None:
    """A port that takes the connection and says nothing, or something else, is refused within the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        asked_s = time.monotonic()
        assert "did not answer within 0.2 s" in refused(f"tasmota:mqtt://127.0.0.1:{port}/plug,timeout=0.2").detail
        assert time.monotonic() - asked_s < 2.0
    lab = new_lab()
    with web(Tasmota(lab.meter)) as page:
        host = page.url.removeprefix("http://")
        assert refused(f"tasmota:mqtt://{host}/plug,timeout=0.5").code == "meter_unreadable"


def test_broker_that_restarts_is_a_fault_and_comes_back() -> None:
    """While the broker is away each reading is a fault; when it is back and the plug too, readings go on."""
    real = RealBroker()
    lab = new_lab()
    with at_broker(real, Tasmota(lab.meter)), opened(mqtt(real, options=",timeout=1")) as meter:
        before = meter.read()
        real.stop()
        for _ in range(2):
            with pytest.raises(MeterFault, match=r"closed the connection|cannot be reached|did not answer"):
                meter.read()
        real.start()
        with at_broker(real, Tasmota(lab.meter)):
            assert meter.read() == before
        real.stop()
    real.close()


def test_the_same_seed_shows_the_same() -> None:
    """Two labs of one seed show the same page, another seed another."""
    pages = [ShellyGen2(new_lab(seed=seed).meter).answer("/rpc/Switch.GetStatus?id=0") for seed in (1, 1, 2)]
    assert pages[0] == pages[1] != pages[2]
