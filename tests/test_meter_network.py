"""Meters that come over the network: readings fed by UDP, and meters that another machine reads."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import conforms, no_descriptors_left, refused
from joulebox.clock import SimulatedClock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.json_http import JsonHttp
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meter_host import MeterHost
from joulebox.node.meters import feed, open_meters, remote
from joulebox.node.meters.remote import Exchange, Offset, RemoteMeter
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine
from joulebox.rig.powercap_tree import RigPowercap
from joulebox.units import NS_PER_S, nanoseconds

CONFORMS = ("feed", "remote")


# --- feed -------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        number: int = port.getsockname()[1]
        return number


@contextmanager
def fed(options: str = "", host: str = "") -> Iterator[tuple[Meter, Callable[..., None]]]:
    """A feed, and a function that sends it a datagram."""
    port = free_port()
    (meter,) = open_meters([f"feed:udp://{host}:{port}{options}"])

    def send(message: str | bytes, sender: str = "127.0.0.1", to: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as writer:
            if family == socket.AF_INET:
                writer.bind((sender, 0))
            writer.sendto(message.encode() if isinstance(message, str) else message, (to, port))

    yield meter, send
    meter.close()


def test_feed_shows_the_newest_value_until_the_next_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several values the newest counts, for less than a tick; without one there is none; then it goes on."""
    clock = SimulatedClock()
    monkeypatch.setattr(feed, "SystemClock", lambda: clock)
    with no_descriptors_left(), fed(",tick=2") as (meter, send):
        assert meter.read() == (None,)
        send("meter power_w 231.5\n")
        send("meter power_w 240.0004\nmeter power_w 241.25")
        assert meter.read() == (241_250,)
        clock.sleep_until(nanoseconds(1.7))
        assert meter.read() == (241_250,)
        clock.sleep_until(nanoseconds(1.9))
        assert meter.read() == (None,)
        send('{"name": "meter", "power_w": 7, "unit": "W"}')
        assert meter.read() == (7_000,)
        meter.close()
        meter.close()
        with pytest.raises(MeterFault, match="closed"):
            meter.read()


def test_feed_declares_what_the_operator_says() -> None:
    """Channels, scope, sampling, tick, lag and accuracy are the operator's; without accuracy one is assumed."""
    options = (
        ",channels=pdu:power_w+pdu:energy_j+room:temperature_c,scope=gpu0,sampling=mean,tick=0.5,lag=0.2,accuracy=1"
    )
    with fed(options) as (meter, send):
        power, energy, warmth = meter.channels()
        assert [one.name for one in meter.channels()] == ["pdu/power_w", "pdu/energy_j", "room/temperature_c"]
        assert [one.sampling for one in meter.channels()] == [Sampling.MEAN, Sampling.COUNTER, Sampling.SNAPSHOT]
        assert (power.scope, power.tick_s, power.lag_s, power.gain_u_ratio) == ("gpu0", 0.5, 0.2, 0.01)
        assert (energy.kind, warmth.gain_u_ratio) == (ReadingKind.ENERGY_J, 0.0)
        assert power.accuracy == "fed by the operator: 1 % as the operator states"
        send('{"name": "pdu", "power_w": 12.5, "energy_j": 3.6e6}\nroom temperature_c -4.5')
        assert meter.read() == (12_500, 3_600_000_000, -4_500)
    with fed() as (meter, _):
        (channel,) = meter.channels()
        assert (channel.scope, channel.sampling, channel.gain_u_ratio) == ("wall", Sampling.SNAPSHOT, 0.1)
        assert channel.accuracy.endswith("assumed")


def test_feed_listens_to_the_named_sender_only() -> None:
    """Without `from` only this machine may send, with it only that address, with `any` everybody."""
    with fed() as (meter, send), suppress(OSError):
        send("meter power_w 1", sender="127.0.0.2")
        assert meter.read() == (None,)
    with fed(",from=127.0.0.2") as (meter, send):
        send("meter power_w 1")
        assert meter.read() == (None,)
        send("meter power_w 2", sender="127.0.0.2")
        assert meter.read() == (2_000,)
    for options, host in ((",from=any", ""), (",from=any", "127.0.0.1")):
        with fed(options, host) as (meter, send):
            send("meter power_w 3", sender="127.0.0.3")
            assert meter.read() == (3_000,)


def test_feed_hears_ipv6() -> None:
    """A feed on an IPv6 address works alike."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with fed(host="[::1]") as (meter, send):
        send("meter power_w 4", to="::1")
        assert meter.read() == (4_000,)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("meter power_w", "NAME power_w"),
        ("meter watts 5", "NAME power_w"),
        ("meter power_w many", "no number"),
        ("meter power_w nan", "no number"),
        ("meter power_w 1e300", "no number"),
        ("meter power_w inf", "no number"),
        ("other power_w 5", "channels= does not name"),
        ("meter energy_j 5", "channels= does not name"),
        ('{"name": "meter"}', "is missing"),
        ('{"power_w": 5}', "is missing"),
        ('{"name": "meter", "power_w": true}', "no number"),
        ('{"name": "meter", "power_w": [1]}', "no number"),
        ('{"name": "meter", "power_w": 5', "no JSON"),
        (b"\xff\xfe\x00", "no text"),
        ("meter power_w 5\n" * 400, "more than 2048 bytes"),
    ],
)
def test_feed_refuses_nonsense(message: str | bytes, says: str) -> None:
    """What cannot be read is a fault that shows it, never a number; a good value beside it counts."""
    with fed() as (meter, send):
        send(message)
        with pytest.raises(MeterFault, match=says):
            meter.read()
        assert meter.read() == (None,)
        send(message)
        send("meter power_w 6")
        assert meter.read() == (6_000,)


def test_feed_is_not_held_by_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reading takes a bounded number of messages; the next goes on from there."""
    monkeypatch.setattr(feed, "_DATAGRAMS_A_READ_MAX", 10)
    with fed() as (meter, send):
        for number in range(25):
            send(f"meter power_w {number}")
        assert [meter.read() for _ in range(4)] == [(9_000,), (19_000,), (24_000,), (24_000,)]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("feed:", "udp://:PORT"),
        ("feed:9000", "udp://:PORT"),
        ("feed:tcp://:9000", "udp://:PORT"),
        ("feed:udp://:0x", "udp://:PORT"),
        ("feed:udp://:99999", "udp://:PORT"),
        ("feed:udp://localhost:9000", "udp://:PORT"),
        ("feed:udp://:9000/x", "udp://:PORT"),
        ("feed:udp://:9000,channels=meter", "NAME:power_w"),
        ("feed:udp://:9000,channels=meter:watts", "NAME:power_w"),
        ("feed:udp://:9000,channels=a:power_w+a:power_w", "named twice"),
        ("feed:udp://:9000,scope=moon", "wall, platform"),
        ("feed:udp://:9000,sampling=counter", "mean, snapshot"),
        ("feed:udp://:9000,tick=0", "above 0"),
        ("feed:udp://:9000,accuracy=500", "at most 100"),
        ("feed:udp://:9000,from=nobody", "IP address"),
        ("feed:udp://:9000,flavour=vanilla", "leave out flavour"),
    ],
)
def test_feed_that_cannot_be_meant_is_refused(address: str, says: str) -> None:
    """Address and options that cannot be used are refused with what to write."""
    error = refused(address)
    assert (error.code, says in error.detail) == ("bad_setting", True)


def test_feed_needs_a_port_of_its_own() -> None:
    """A port that is taken is refused, and the same feed twice too."""
    with fed() as (meter, _):
        assert refused(meter.address).code == "meter_unreadable"
    assert refused(meter.address, meter.address).code == "bad_setting"


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=2_100), st.text(max_size=300).map(str.encode)))
def test_feed_parser_takes_any_bytes(datagram: bytes) -> None:
    """Whatever is sent is read or refused with a sentence."""
    try:
        readings = feed.parse(datagram)
    except ValueError as error:
        assert "sent" in str(error)
        return
    assert all(kind in ("power_w", "energy_j", "temperature_c") and abs(value) < 1e12 for _, kind, value in readings)


LINES = st.builds(
    "{} {} {}".format,
    st.sampled_from(["meter", "x", '{"name":', "é"]),
    st.sampled_from(["power_w", "energy_j", "temperature_c", "watts"]),
    st.one_of(st.floats().map(repr), st.integers().map(str), st.sampled_from(["1_0", "٣", "0x1", "1e999", "-0"])),
)


@settings(max_examples=200)
@given(st.lists(LINES, max_size=5))
def test_feed_parser_takes_lines_that_are_nearly_right(lines: list[str]) -> None:
    """Lines with odd names, kinds and numbers are read in order, or refused as a whole."""
    try:
        readings = feed.parse("\n".join(lines).encode())
    except ValueError as error:
        assert "sent" in str(error)
        return
    assert [(name, kind) for name, kind, _ in readings] == [tuple(line.split()[:2]) for line in lines]


# --- remote -----------------------------------------------------------------------------------------------------------


class Scripted:
    """A meter that answers what the test puts in."""

    def __init__(self, address: str = "scripted:", *values: int | None) -> None:
        self.address = address
        self.missing: Sequence[str] = ("dram",)
        self.values = values or (5,)
        self.fault: str | None = None
        self.gate: threading.Event | None = None
        self.begun = threading.Event()

    def channels(self) -> Sequence[Channel]:
        """One power channel a value."""
        return [
            Channel(
                name=f"p{index}",
                meter=self.address,
                kind=ReadingKind.POWER_W,
                sampling=Sampling.MEAN,
                scope="wall",
                step=1e-3,
                tick_s=0.5,
                lag_s=0.3,
                gain_u_ratio=0.01,
                accuracy="as the test says",
            )
            for index, _ in enumerate(self.values)
        ]

    def read(self) -> Sequence[int | None]:
        """The values, or the fault."""
        self.begun.set()
        if self.gate is not None:
            self.gate.wait(10)
        if self.fault is not None:
            raise MeterFault(self.fault)
        return self.values

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def served(*meters: Meter, port: int = 0) -> Iterator[MeterHost]:
    host = MeterHost(meters, SystemClock(), port=port)
    try:
        yield host
    finally:
        host.close()


def url(host: MeterHost) -> str:
    return f"http://127.0.0.1:{host.port}"


def opened(host: MeterHost, options: str = "") -> RemoteMeter:
    """A remote meter whose readings may come late: this machine may be busy."""
    (meter,) = open_meters([f"remote:{url(host)},lag=2{options}"])
    assert isinstance(meter, RemoteMeter)
    return meter


def not_opened(address: str) -> JouleboxError:
    """As `refused`; descriptors are not counted, for this process has the host's too."""
    with pytest.raises(JouleboxError) as caught:
        open_meters([address])
    return caught.value


def test_remote_passes_values_on() -> None:
    """Numbers, none and huge counts arrive as they are."""
    with served(Scripted("scripted:", 5, None, 2**63)) as host:
        far = opened(host)
        assert far.read() == (5, None, 2**63)
        far.close()


def test_remote_shows_the_meter_as_it_is_there() -> None:
    """Channels arrive unchanged, but for the address and what the way adds to the lag."""
    meter = Scripted()
    with served(meter) as host:
        far = opened(host)
        (here,), (there,) = far.channels(), meter.channels()
        assert far.address == f"remote:{url(host)},meter=0"
        assert far.missing == ("dram",)
        assert here == replace(there, meter=far.address, lag_s=2.3)
        far.close()
        (found,) = open_meters([f"remote:{url(host)}"])
        assert 0.35 <= found.channels()[0].lag_s < 2.3
        found.close()


def test_remote_measures_the_rig_as_well_as_a_meter_beside_it(tmp_path: Path) -> None:
    """The rig's counters, read through a host by the recorder, give the energy that its physics drew."""
    clock = SimulatedClock()
    machine = Machine(7, start_ns=0)
    rig = RigPowercap(clock, machine, tmp_path)
    (beside,) = open_meters([rig.addresses[0]])
    with served(rig.following(beside)) as host:
        far = opened(host)
        recorder = Recorder([far], clock, reading_hz=10.0)
        recorder.start()
        clock.sleep_until(NS_PER_S)
        machine.activity(NS_PER_S, 0.8)
        clock.sleep_until(3 * NS_PER_S)
        machine.activity(3 * NS_PER_S, 0.0)
        clock.sleep_until(4 * NS_PER_S)
        series = recorder.series(0, 4 * NS_PER_S)[0]
        recorder.stop()
    assert series.channel.simulated
    assert series.channel.wrap_raw == beside.channels()[0].wrap_raw
    assert len(series.raw) >= 30
    first_ns, last_ns = series.t_ns[0], series.t_ns[-1]
    shown_j = (series.raw[-1] - series.raw[0]) % (series.channel.wrap_raw or 0) * series.channel.step
    truth_j = machine.energy_j("package-0", last_ns) - machine.energy_j("package-0", first_ns)
    assert truth_j > 10
    assert shown_j == pytest.approx(truth_j, abs=0.1)
    beside.close()
    rig.close()


def test_remote_chooses_among_several() -> None:
    """Several served meters are told apart by number; without it, or with one too high, the choices are named."""
    with served(Scripted("a:", 1), Scripted("b:", 2)) as host:
        error = not_opened(f"remote:{url(host)}")
        assert error.code == "bad_setting"
        assert "meter=0 (a:), meter=1 (b:)" in error.detail
        meters = open_meters([f"remote:{url(host)},meter={index}" for index in (0, 1)])
        assert [meter.read() for meter in meters] == [(1,), (2,)]
        for meter in meters:
            meter.close()
        assert not_opened(f"remote:{url(host)},meter=2").code == "bad_setting"
        assert not_opened(f"remote:{url(host)},meter=x").code == "bad_setting"
    with served() as host:
        assert "It serves none" in not_opened(f"remote:{url(host)}").detail


def test_remote_passes_faults_on() -> None:
    """A fault there is the same fault here, and the next good reading counts."""
    meter = Scripted()
    with served(meter) as host:
        far = opened(host)
        meter.fault = "the plug is out"
        with pytest.raises(MeterFault, match="the plug is out"):
            far.read()
        meter.fault = None
        assert far.read() == (5,)
        far.close()
        meter.fault = "gone for good"
        assert "gone for good" in not_opened(f"remote:{url(host)}").detail


def test_remote_survives_the_host_going_away() -> None:
    """A host that stops is a fault; back on its port the next reading counts; with other meters it is refused."""
    with served(Scripted()) as host:
        far, port = opened(host), host.port
    for _ in range(2):
        with pytest.raises(MeterFault, match=r"cannot be reached|broke off"):
            far.read()
    with served(Scripted(), port=port):
        assert far.read() == (5,)
    with served(Scripted("other:", 1, 2), port=port), pytest.raises(MeterFault, match="restart the node"):
        read_twice(far)
    far.close()


def read_twice(meter: Meter) -> None:
    """The first question may find that the kept connection is gone."""
    with suppress(MeterFault):
        meter.read()
    meter.read()


def test_remote_waits_no_longer_than_told() -> None:
    """A meter there that does not answer is a fault within the time-out, and so is a question while it still thinks."""
    meter = Scripted()
    with served(meter) as host:
        far = opened(host, ",timeout=0.3")
        meter.gate = threading.Event()
        with pytest.raises(MeterFault, match=r"within 0\.3 s"):
            far.read()
        meter.gate.set()
        far.close()


def test_host_answers_one_question_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a reading is under way a second question is told so, and what is not there is a 404."""
    monkeypatch.setattr("joulebox.node.meter_host._BUSY_WAIT_S", 0.05)
    meter = Scripted()
    with served(meter) as host:
        far = opened(host, ",timeout=5")
        meter.gate, meter.begun = threading.Event(), threading.Event()
        gate = meter.gate
        thread = threading.Thread(target=lambda: fetch(host, "/meters/0/reading"))
        thread.start()
        assert meter.begun.wait(5)
        with pytest.raises(MeterFault, match="has not answered an earlier question yet"):
            far.read()
        gate.set()
        thread.join()
        far.close()
        for path in (
            "/",
            "/meters/1/reading",
            "/meters/x/reading",
            "/meters/0/reading/",
            f"/meters/{'9' * 5_000}/reading",
        ):
            assert fetch(host, path)[0] == 404


def fetch(host: MeterHost, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_host_names_a_taken_port() -> None:
    """A port in use is refused by name."""
    with served() as host, pytest.raises(JouleboxError) as caught:
        MeterHost([], SystemClock(), port=host.port)
    assert caught.value.code == "port_in_use"


def test_offset_finds_the_difference_of_two_clocks() -> None:
    """As NTP: an even exchange gives the offset exactly, and the best one shows how wrong an uneven one's stamp is."""
    ahead = 1_000_000_000
    even = Exchange(asked_ns=0, before_ns=ahead + 1_000, after_ns=ahead + 1_500, answered_ns=2_500)
    assert (even.offset_ns, even.offset_u_ns) == (ahead, 1_000)
    offset = Offset()
    assert offset.stamp_u_s(even) == pytest.approx(1.25e-6)
    late = Exchange(
        asked_ns=10_000_000, before_ns=ahead + 10_001_000, after_ns=ahead + 10_001_500, answered_ns=60_001_500
    )
    # the reading was at 10.001 ms, the stamp says 35.001 ms
    assert offset.stamp_u_s(late) == pytest.approx(25e-3, rel=1e-3)


def test_offset_believes_a_good_exchange_when_the_other_clock_began_anew() -> None:
    """A quick exchange proves itself, whatever older ones say."""
    offset = Offset()
    for start_ns in range(0, 10**9, 10**8):
        offset.stamp_u_s(
            Exchange(asked_ns=start_ns, before_ns=start_ns + 50, after_ns=start_ns + 60, answered_ns=start_ns + 110)
        )
    again = Exchange(asked_ns=2 * 10**9, before_ns=7, after_ns=8, answered_ns=2 * 10**9 + 400)
    assert offset.stamp_u_s(again) <= 200e-9


@settings(max_examples=200)
@given(
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(*[st.integers(0, 10**8)] * 3), min_size=1, max_size=30),
)
def test_offset_never_promises_too_much(ahead_ns: int, exchanges: list[tuple[int, int, int]]) -> None:
    """However a way delays questions and answers, the reading lies within what is said of its stamp."""
    offset, now_ns = Offset(), 0
    for there_ns, reads_ns, back_ns in exchanges:
        begun_ns = now_ns + there_ns
        ended_ns = begun_ns + reads_ns
        exchange = Exchange(
            asked_ns=now_ns, before_ns=begun_ns + ahead_ns, after_ns=ended_ns + ahead_ns, answered_ns=ended_ns + back_ns
        )
        stamp_ns = (now_ns + exchange.answered_ns) / 2
        told_ns = offset.stamp_u_s(exchange) * NS_PER_S
        assert max(abs(stamp_ns - begun_ns), abs(stamp_ns - ended_ns)) <= told_ns + 3
        now_ns = exchange.answered_ns + 10**8


class Way:
    """In the place of the network: answers whatever the test says, on a clock that it moves."""

    url = "http://way"

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.there_s, self.back_s = 0.0005, 0.0005
        self.ahead_ns = 10**12
        self.instead: dict[str, Any] = {}

    def get(self, path: str, says: str) -> Any:
        self.clock.sleep_until(self.clock.now_ns() + round(self.there_s * NS_PER_S))
        t_ns = self.clock.now_ns() + self.ahead_ns
        self.clock.sleep_until(self.clock.now_ns() + round(self.back_s * NS_PER_S))
        return {"mark": "m", "raw": [5], "before_ns": t_ns, "after_ns": t_ns, **self.instead}

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Way, RemoteMeter]]:
    """A remote meter, opened over a real host, then asked over a way that the test bends."""
    with served(Scripted()) as host:
        meter = RemoteMeter(url(host), None, 2.0, 0.002, SystemClock())
        meter.close()
        found = Way(SimulatedClock())
        monkeypatch.setattr(meter, "_clock", found.clock)
        monkeypatch.setattr(meter, "_http", found)
        monkeypatch.setattr(meter, "_mark", "m")
        monkeypatch.setattr(meter, "_offset", Offset())
        yield found, meter


def test_remote_leaves_out_what_is_stamped_too_far_off(way: tuple[Way, RemoteMeter]) -> None:
    """An answer that dawdled on its way is a fault that says by how much; a slow but even one is stamped right."""
    bent, meter = way
    assert meter.read() == (5,)
    bent.back_s = 0.1
    with pytest.raises(MeterFault, match=r"uncertain by 50\.\d ms, more than 2\.0 ms"):
        meter.read()
    bent.there_s = 0.1
    assert meter.read() == (5,)
    bent.there_s = bent.back_s = 0.0005
    bent.ahead_ns = -(10**13)
    assert meter.read() == (5,)


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ({"raw": [5, 6]}, "no reading"),
        ({"raw": ["5"]}, "no reading"),
        ({"raw": [True]}, "no reading"),
        ({"raw": [5.5]}, "no reading"),
        ({"raw": [2**80]}, "no reading"),
        ({"raw": None}, "no reading"),
        ({"before_ns": "soon"}, "no reading"),
        ({"after_ns": 0}, "clock there"),
        ({"after_ns": 2**62}, "clock there"),
        ({"mark": "other"}, "restart the node"),
        ({"fault": {"odd": 1}}, "odd"),
    ],
)
def test_remote_refuses_answers_that_are_no_reading(
    way: tuple[Way, RemoteMeter], instead: dict[str, Any], says: str
) -> None:
    """Wrong counts, kinds and clocks are faults, never numbers."""
    bent, meter = way
    bent.instead = instead
    with pytest.raises(MeterFault, match=says):
        meter.read()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["mark", "raw", "before_ns", "after_ns", "fault"])


@settings(max_examples=200)
@given(st.dictionaries(KEYS, JSON, max_size=3))
def test_remote_takes_any_json_for_a_reading(instead: dict[str, Any]) -> None:
    """Whatever a host answers is a reading of the right length or a fault."""
    clock = SimulatedClock()
    meter = RemoteMeter.__new__(RemoteMeter)
    bent = Way(clock)
    bent.instead = instead
    vars(meter).update(
        _clock=clock,
        _http=bent,
        _path="/",
        _mark="m",
        _channels=tuple(Scripted().channels()),
        _lag_s=1.0,
        _offset=Offset(),
    )
    try:
        (value,) = meter.read()
    except MeterFault as fault:
        assert str(fault)
        return
    assert value is None or isinstance(value, int)


CHANNEL = st.fixed_dictionaries(
    {"name": JSON, "meter": JSON, "kind": st.just("power_w") | JSON, "sampling": st.just("mean") | JSON, "scope": JSON},
    optional=dict.fromkeys(("step", "tick_s", "lag_s", "gain_u_ratio", "part_of", "wrap_raw", "simulated"), JSON),
)


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {
            "version": st.just(1),
            "meters": st.lists(
                st.fixed_dictionaries({"channels": st.lists(CHANNEL | JSON, max_size=2) | JSON}) | JSON, max_size=2
            ),
        }
    )
    | JSON
)
def test_remote_takes_any_json_for_a_list_of_meters(answer: Any) -> None:
    """Whatever a host says that it serves is a meter with sound channels, or a refusal in one sentence."""

    class Lying(JsonHttp):
        def get(self, path: str, says: str) -> Any:
            return answer if path == "/meters" else {"mark": None, "fault": "never"}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(remote, "JsonHttp", Lying)
        with pytest.raises(JouleboxError) as caught:
            RemoteMeter("http://127.0.0.1:9", 0, 1.0, None, SimulatedClock())
    assert caught.value.code in ("meter_unreadable", "bad_setting")


def test_remote_refuses_what_is_no_host() -> None:
    """No web address, nobody there, and somebody who speaks otherwise are refused, each in a sentence."""
    assert refused("remote:nowhere").code == "bad_setting"
    nobody = not_opened(f"remote:http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in nobody.detail
    assert "joulebox meters serve" in nobody.detail
    with served(Scripted()) as host, pytest.MonkeyPatch.context() as patched:
        patched.setattr("joulebox.node.meter_host.VERSION", 2)
        assert "does not speak like" in not_opened(f"remote:{url(host)}").detail


def test_meters_are_served_by_a_process(tmp_path: Path) -> None:
    """What `joulebox meters serve` runs: opens the meters, says where, serves until Ctrl-C, and ends well."""
    (tmp_path / "stat").write_text("cpu  400 10 100 90000 7 1 2 33 4 0\n")
    code = (
        "import sys\nfrom joulebox.node.meter_host import serve\n"
        f"serve(['model:{tmp_path}'], '127.0.0.1', 0, lambda host: print(host.port, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    port = int(process.stdout.readline())
    address = f"remote:http://127.0.0.1:{port},lag=2"
    (channel,) = conforms(address, [513])
    assert (channel.scope, channel.kind, channel.name) == ("machine", ReadingKind.BUSY_RATIO, "busy")
    assert refused(f"{address},meter=1").code == "bad_setting"
    (meter,) = open_meters([address])
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    process.stdout.close()
    with pytest.raises(MeterFault):
        meter.read()
    meter.close()
