"""Modbus meters: against pymodbus's own server on the rig's plug, and against a wire that breaks every rule."""

import math
import random
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import conforms, no_descriptors_left, refused
from joulebox.clock import SimulatedClock
from joulebox.model import ReadingKind, Sampling
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import modbus, open_meters
from joulebox.rig.lan_meters import EASTRON_UNIT, ModbusPlug, Plug, PlugParameters, sunspec_registers
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_KWH, J_PER_WH, NS_PER_S
from lan_peers import TcpPeer, free_port

CONFORMS = ("modbus",)


class Stage:
    """A machine that worked for a while, its plug, and the Modbus server on it."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.machine = Machine(7)
        self.wall = Wall(self.machine)
        self.plug = Plug(self.clock, self.wall, PlugParameters(gain_error=0.01))
        self.server = ModbusPlug(self.plug)
        self.machine.activity(2 * NS_PER_S, 0.8)
        self.clock.sleep_until(9 * NS_PER_S)

    def address(self, options: str) -> str:
        return f"modbus:tcp://127.0.0.1:{self.server.port},timeout=0.3,{options}"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with no_descriptors_left():
        made = Stage()
        yield made
        made.server.close()


def opened(address: str) -> Meter:
    return open_meters([address])[0]


# --- the real protocol on the rig's plug ------------------------------------------------------------------------------


def test_eastron_map_is_read(stage: Stage) -> None:
    """Preset sdm230 reads watts and imported energy, declares them as a snapshot and a counter of class 1."""
    raw = (round(stage.plug.power_w / 0.01), round(stage.plug.energy_j / J_PER_WH))
    power, energy = conforms(stage.address("preset=sdm230"), raw)
    assert (power.kind, power.sampling, power.scope) == (ReadingKind.POWER_W, Sampling.SNAPSHOT, "wall")
    assert (energy.kind, energy.sampling, energy.step) == (ReadingKind.ENERGY_J, Sampling.COUNTER, J_PER_WH)
    assert power.gain_u_ratio == 0.015
    assert "class 1" in power.accuracy


def test_sunspec_meter_says_itself_where_things_are(stage: Stage) -> None:
    """Preset sunspec finds the meter model, its scale factors and the maker: readings of the rig are simulated."""
    meter = opened(f"{stage.server.address},timeout=0.3")
    power, energy = meter.channels()
    assert list(meter.read()) == [round(stage.plug.power_w / 0.1), round(stage.plug.energy_j / J_PER_WH)]
    assert power.step == pytest.approx(0.1)
    assert (energy.step, energy.wrap_raw) == (J_PER_WH, 2**32)
    assert power.simulated
    assert energy.simulated
    meter.close()


def test_follows_the_machine_tick_by_tick() -> None:
    """Power is the mean of the last whole second times the gain error; energy advances by the truth of whole ticks."""
    stage = Stage()
    meter = opened(stage.address("preset=sdm230"))
    first_ns, (_, first) = stage.plug.tick_end_ns, meter.read()
    stage.clock.sleep_until(120 * NS_PER_S)
    last_ns, (power, last) = stage.plug.tick_end_ns, meter.read()
    assert first is not None
    assert last is not None
    assert power is not None
    assert power * 0.01 == pytest.approx(stage.wall.mean_w(last_ns - NS_PER_S, last_ns) * 1.01, abs=0.051)
    true_j = (stage.wall.energy_j(last_ns) - stage.wall.energy_j(first_ns)) * 1.01
    # a float32 of hundreds of kilowatt hours has steps of its own on top of the meter's
    steps_j = 2 * max(meter.channels()[1].step, math.ulp(stage.plug.energy_j / J_PER_KWH) * 2.0**29 * J_PER_KWH)
    assert (last - first) * meter.channels()[1].step == pytest.approx(true_j, abs=steps_j)
    meter.close()
    stage.server.close()


def test_own_map_with_types_scales_and_word_order(stage: Stage) -> None:
    """Registers of one's own are read as the options say: the SunSpec unit's integers by their plain addresses."""
    registers = sunspec_registers(stage.plug)
    where = registers.index(201) + 40_000
    options = f"unit=2,table=holding,power={where + 18},type=int16,scale=0.1,energy={hex(where + 46)}"
    power, energy = conforms(
        stage.address(f"{options},energy_type=uint32,energy_scale=0.001,accuracy=0.5"),
        (round(stage.plug.power_w / 0.1), round(stage.plug.energy_j / J_PER_WH)),
    )
    assert (power.step, energy.step) == (0.1, J_PER_WH)
    assert (power.gain_u_ratio, power.accuracy) == (0.005, "as the operator says: 0.5 %")
    swapped = opened(stage.address(f"unit=2,table=holding,energy={where + 46},type=uint32,order=little"))
    high, low = registers[where + 46 - 40_000 : where + 48 - 40_000]
    assert list(swapped.read()) == [low << 16 | high]
    swapped.close()


def test_two_meters_behind_one_gateway(stage: Stage) -> None:
    """Two units at one address are two meters; one unit named twice is refused, however it is written."""
    meters = open_meters([stage.address("preset=sdm230"), f"{stage.server.address},timeout=0.3"])
    assert len({meter.address for meter in meters}) == 2
    for meter in meters:
        meter.close()
    twice = refused(stage.address("preset=sdm230"), stage.address(f"power=12,unit={EASTRON_UNIT}"))
    assert (twice.code, "named twice" in twice.detail) == ("bad_setting", True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("power=3000", "illegal data address"),
        ("preset=sdm230,unit=9", "refuses register"),
        ("preset=sunspec,unit=1", "no SunSpec map"),
        ("power=12,table=holding,unit=77", "refuses register 12"),
        ("power=40087,unit=2,table=holding,type=float32", "register 40087 shows"),
    ],
)
def test_what_the_meter_does_not_have_is_said(stage: Stage, options: str, says: str) -> None:
    """A register, unit or map that is not there is refused at opening, with the meter's own reason."""
    error = refused(stage.address(options))
    assert (error.code, says in error.detail) == ("meter_unreadable", True), error.detail


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:502,preset=sdm120", "modbus:tcp://HOST:PORT"),
        ("tcp://:502,preset=sdm120", "modbus:tcp://HOST:PORT"),
        ("tcp://127.0.0.1:99999,preset=sdm120", "modbus:tcp://HOST:PORT"),
        ("tcp://127.0.0.1", "preset=NAME, or power=ADDRESS"),
        ("tcp://127.0.0.1,preset=sdm999", "sdm120, sdm230, sdm630, sunspec"),
        ("tcp://127.0.0.1,power=twelve", "whole number from 0 to 65535"),
        ("tcp://127.0.0.1,power=12,type=float", "float32"),
        ("tcp://127.0.0.1,power=12,unit=300", "1 to 247"),
        ("tcp://127.0.0.1,power=12,scale=-1", "above 0"),
        ("tcp://127.0.0.1,power=12,accuracy=nan", "above 0"),
    ],
)
def test_bad_settings_are_one_sentence(address: str, says: str) -> None:
    """An address or option that cannot be used is refused with what to write instead, before anything is sent."""
    error = refused(f"modbus:{address}")
    assert (error.code, says in error.detail) == ("bad_setting", True), error.detail


def test_nobody_there_is_refused() -> None:
    """A port where nothing listens, and a name that there is not, are refused with what to check."""
    for host in (f"127.0.0.1:{free_port()}", "no-such-host.invalid"):
        error = refused(f"modbus:tcp://{host},preset=sdm120,timeout=0.5")
        assert error.code == "meter_unreadable"
        assert "does not accept a connection" in error.detail


# --- a wire that breaks every rule ------------------------------------------------------------------------------------

WATTS = 88.25


def frame(question: bytes, pdu: bytes, *, transaction: int = 0, unit: int | None = None) -> bytes:
    """A Modbus TCP answer to `question`."""
    number = (int.from_bytes(question[:2], "big") + transaction) % 0x1_0000
    return struct.pack(">HHHB", number, 0, len(pdu) + 1, question[6] if unit is None else unit) + pdu


def answer(question: bytes, watts: float = WATTS) -> bytes:
    return frame(question, b"\x04\x04" + struct.pack(">f", watts))


def good(question: bytes) -> list[bytes | None]:
    return [answer(question)]


def trickled(question: bytes) -> list[bytes | None]:
    """A long answer, of which a byte comes every ten milliseconds."""
    whole = frame(question, b"\x04\xf6" + b"\x42" * 246)
    return [whole[:9], *(bytes([byte]) for byte in whole[9:])]


FAULTS: dict[str, tuple[Callable[[bytes], list[bytes | None]], str]] = {
    "silence": (lambda q: [], "did not answer within 0.3 s"),
    "half an answer": (lambda q: [answer(q)[:-2]], "answered only in part"),
    "half an answer, then the end": (lambda q: [answer(q)[:-2], None], "in part|closed"),
    "unplugged": (lambda q: [None], "closed the connection"),
    "noise": (lambda q: [b"\xff" * 40], "in part, or not as Modbus|not as Modbus"),
    "text": (lambda q: [b"HTTP/1.1 400 Bad Request\r\n\r\n"], "not as Modbus"),
    "a byte now and then": (trickled, "in part"),
    "answer to another question": (lambda q: [frame(q, answer(q)[7:], transaction=7)], "did not answer|as Modbus"),
    "answer of another unit": (lambda q: [frame(q, answer(q)[7:], unit=9)], "did not answer|as Modbus"),
    "too few registers": (lambda q: [frame(q, b"\x04\x02\x42\xb0")], "1 registers, not 2"),
    "too many registers": (lambda q: [frame(q, b"\x04\x06\x42\xb0\x80\x00\x11\x11")], "3 registers, not 2"),
    "refused": (lambda q: [frame(q, b"\x84\x02")], "illegal data address"),
    "gateway": (lambda q: [frame(q, b"\x84\x0b")], "gateway target does not answer"),
    "unknown refusal": (lambda q: [frame(q, b"\x84\x7e")], "exception 126"),
    "not a number": (lambda q: [answer(q, math.nan)], "shows nan"),
    "endless": (lambda q: [answer(q, math.inf)], "shows inf"),
    "reversed": (lambda q: [answer(q, -88.0)], "wired the wrong way round"),
    "other word order": (lambda q: [frame(q, b"\x04\x04\x00\x00\x42\xb1")], "type, order or scale"),
}


@pytest.fixture
def peer() -> Iterator[TcpPeer]:
    made = TcpPeer(good)
    yield made
    made.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_a_sentence_and_then_it_reads_again(fault: str, peer: TcpPeer) -> None:
    """Whatever goes wrong ends in a fault with a sentence of its own; the next reading connects anew and is right."""
    spoilt, says = FAULTS[fault]
    with no_descriptors_left():
        meter = opened(f"modbus:tcp://127.0.0.1:{peer.port},power=12,timeout=0.3")
        assert list(meter.read()) == [8825]
        peer.answer = spoilt
        began_s = time.monotonic()
        with pytest.raises(MeterFault, match=says):
            meter.read()
        assert time.monotonic() - began_s < 2.0
        connections = peer.connections
        peer.answer = good
        assert list(meter.read()) == [8825]
        assert peer.connections == connections + 1
        meter.close()
        peer.close()


def test_late_answer_never_meets_the_next_question(peer: TcpPeer) -> None:
    """An answer that comes after its question was given up is not taken for the next one's."""
    meter = opened(f"modbus:tcp://127.0.0.1:{peer.port},power=12,timeout=0.3")
    held: list[bytes] = []

    def late(question: bytes) -> list[bytes | None]:
        held.append(answer(question, 1.0))
        return []

    peer.answer = late
    with pytest.raises(MeterFault):
        meter.read()
    peer.answer = lambda question: [held.pop() if held else b"", answer(question, 99.0)]
    readings = []
    for _ in range(2):
        try:
            readings.append(list(meter.read()))
        except MeterFault:
            continue
    assert [9900] in readings
    assert [100] not in readings
    meter.close()


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_float32_counter_that_counted_for_long_has_coarser_steps(peer: TcpPeer) -> None:
    """A counter of 40 000 kWh in a float32 cannot show one watt hour: its declared step grows to what it can."""
    peer.answer = lambda question: [answer(question, 40_000.0)]
    meter = opened(f"modbus:tcp://127.0.0.1:{peer.port},energy=72,timeout=0.5")
    (energy,) = meter.channels()
    assert energy.step == 2.0**-8 * J_PER_KWH
    assert list(meter.read()) == [40_000 * 2**8]
    meter.close()


@pytest.mark.parametrize(
    ("words", "exponent", "value"),
    [
        ([0x0375], 0xFFFF, 88.5),
        ([0x8000], 0, None),
        ([0x0375], 0x8000, None),
        ([0x0375], 11, None),
        ([0xFFFF], 0, None),
    ],
)
def test_sunspec_numbers(words: list[int], exponent: int, value: float | None) -> None:
    """Scale factors shift the point; "not implemented" and negative power are faults, never numbers."""
    register = modbus.Register(ReadingKind.POWER_W, 18, ">h", 1.0, 0.1, "big", 19)
    if value is None:
        with pytest.raises(MeterFault):
            modbus.value_of([*words, exponent], register)
    else:
        assert modbus.value_of([*words, exponent], register) == pytest.approx(value)


@given(
    words=st.lists(st.integers(0, 0xFFFF), min_size=5, max_size=5),
    kind=st.sampled_from([">f", ">d", ">h", ">H", ">i", ">I", ">q", ">Q"]),
    order=st.sampled_from(["big", "little"]),
    exponent=st.booleans(),
)
def test_any_registers_are_a_fault_or_a_plausible_number(
    words: list[int], kind: str, order: str, exponent: bool
) -> None:
    """Whatever stands in the registers is a finite figure within bounds, or a fault."""
    for reading in (ReadingKind.POWER_W, ReadingKind.ENERGY_J):
        register = modbus.Register(reading, 0, kind, 1.0, 0.1, order, 4 if exponent else None)
        try:
            value = modbus.value_of(words, register)
        except MeterFault:
            continue
        assert 0 <= value <= (1e7 if reading is ReadingKind.POWER_W else 1e18)


def test_any_bytes_on_the_wire_are_a_fault_or_a_reading(peer: TcpPeer) -> None:
    """A hundred answers with bytes changed at random, each followed by the end of the connection, never break it."""
    meter = opened(f"modbus:tcp://127.0.0.1:{peer.port},power=12,timeout=0.3")
    source = random.Random(11)

    def spoilt(question: bytes) -> list[bytes | None]:
        changed = bytearray(answer(question))
        for _ in range(source.randrange(1, 5)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        return [bytes(changed[: source.randrange(1, len(changed) + 1)]), None]

    peer.answer = spoilt
    faults = 0
    for _ in range(120):
        try:
            (value,) = meter.read()
            assert value is not None
        except MeterFault:
            faults += 1
    assert faults > 60
    peer.answer = good
    assert list(meter.read()) == [8825]
    meter.close()
