"""The MCP39F511N wall meter, byte for byte over a pseudo terminal: the real driver, the rig's chip, and every fault."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import conforms, refused
from joulebox.clock import SimulatedClock
from joulebox.model import ReadingKind, Sampling
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import mcp39f511n, open_meters
from joulebox.rig.mcp39f511n import Fault, McpParameters, McpPort, RigMcp39f511n
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_WH, NS_PER_S

CONFORMS = ("mcp39f511n",)
FAULTS: dict[Fault, str] = {
    "nak": "does not understand",
    "refused": "reached the meter damaged",
    "checksum": "its checksum is wrong",
    "silence": "does not answer",
    "truncated": "broke off after 15 of 31 bytes",
    "length": "says that it has 30 bytes, not 31",
    "noise": "begins with 0x00",
}


@dataclass
class Bench:
    """A machine, its plug, the chip that measures it, and the port of the chip."""

    clock: SimulatedClock
    machine: Machine
    wall: Wall
    chip: RigMcp39f511n
    port: McpPort

    def pass_time(self, s: float) -> None:
        self.clock.sleep_until(self.clock.now_ns() + round(s * NS_PER_S))


@contextmanager
def bench(parameters: McpParameters | None = None, seed: int = 7) -> Iterator[Bench]:
    clock = SimulatedClock()
    machine = Machine(seed)
    wall = Wall(machine)
    chip = RigMcp39f511n(clock, wall, parameters)
    clock.sleep_until(5 * NS_PER_S)
    port = McpPort(chip.answer)
    try:
        yield Bench(clock, machine, wall, chip, port)
    finally:
        port.close()


@contextmanager
def opened(path: str | Path, options: str = "") -> Iterator[Meter]:
    (meter,) = open_meters([f"mcp39f511n:{path}{options}"])
    try:
        yield meter
    finally:
        meter.close()


def test_question_is_the_published_frame() -> None:
    """The frames are those that public programs and the data sheet show."""
    assert mcp39f511n.question(0x0002, 32).hex(" ") == "a5 08 41 00 02 4e 20 5e"
    assert mcp39f511n.question(0x0016, 8).hex(" ") == "a5 08 41 00 16 4e 08 5a"
    assert mcp39f511n.question(0x002E, 16).hex(" ") == "a5 08 41 00 2e 4e 10 7a"


def test_conforms() -> None:
    """The driver does what every meter must, with power alone and with the energy register."""
    with bench(McpParameters(version=0xFA14)) as lab:
        power = round(lab.chip.watts(lab.clock.now_ns()) / 0.01)
        (channel,) = conforms(f"mcp39f511n:{lab.port.path}", [power])
        assert (channel.kind, channel.sampling, channel.scope) == (ReadingKind.POWER_W, Sampling.MEAN, "wall")
        assert (channel.step, channel.tick_s, channel.gain_u_ratio) == (0.01, 0.32, 0.005)
        with opened(lab.port.path, ",energy=on") as meter:
            _, energy = meter.read()
        _, counter = conforms(f"mcp39f511n:{lab.port.path},energy=on", [power, energy])
        assert (counter.kind, counter.sampling) == (ReadingKind.ENERGY_J, Sampling.COUNTER)
        assert "double" in counter.accuracy
        assert counter.gain_u_ratio >= 0.5


def test_readings_a_tick_apart_hold_all_the_energy() -> None:
    """Power read once a tick and added up is the energy drawn, and so is the difference of the energy register."""
    with bench(McpParameters(power_range=6)) as lab, opened(lab.port.path, ",energy=on") as meter:
        power, energy = meter.channels()
        tick_s = power.tick_s
        lab.machine.activity(lab.clock.now_ns(), 0.9)
        readings = []
        for index in range(30):
            if index == 15:
                lab.machine.activity(lab.clock.now_ns(), 0.1)
            lab.pass_time(tick_s)
            readings.append(meter.read())
        watts = [(one[0] or 0) * power.step for one in readings]
        added_j = sum(watts[1:]) * tick_s
        counted_j = ((readings[-1][1] or 0) - (readings[0][1] or 0)) * energy.step
        assert max(watts) > 60 > 30 > min(watts)
        assert counted_j == pytest.approx(added_j, abs=energy.step)
        ends_ns = [lab.clock.now_ns() - round((30 - n) * tick_s * NS_PER_S) for n in (1, 30)]
        truth_j = lab.wall.energy_j(ends_ns[1]) - lab.wall.energy_j(ends_ns[0])
        assert added_j == pytest.approx(truth_j, rel=0.02)


@pytest.mark.parametrize("power_range", [6, 16, 19])
def test_range_byte_gives_the_scale(power_range: int) -> None:
    """Whatever range the meter is set to, its count times the step is the same watts."""
    with bench(McpParameters(power_range=power_range)) as lab, opened(lab.port.path) as meter:
        (raw,) = meter.read()
        assert raw is not None
        step_w = meter.channels()[0].step
        assert step_w == pytest.approx(0.01 / 2 ** (19 - power_range))
        assert raw * step_w == pytest.approx(lab.chip.watts(lab.clock.now_ns()), abs=step_w / 2)


@pytest.mark.parametrize(("cycles_log2", "line_hz", "tick_s"), [(1, 50.0, 0.04), (4, 60.0, 0.2667), (4, 0.0, 0.32)])
def test_tick_is_the_accumulation_interval(cycles_log2: int, line_hz: float, tick_s: float) -> None:
    """The tick is 2^N line cycles; where the plug is dead, of 50 Hz."""
    with bench(McpParameters(cycles_log2=cycles_log2, line_hz=line_hz or 50.0)) as lab:
        answer = lab.chip.answer

        def dead_line(frame: bytes) -> bytes:
            reply = bytearray(answer(frame))
            if line_hz == 0.0 and len(reply) == 31:
                reply[8:10] = b"\0\0"
                reply[-1] = sum(reply[:-1]) % 256
            return bytes(reply)

        port = McpPort(dead_line)
        with opened(port.path) as meter:
            assert meter.channels()[0].tick_s == pytest.approx(tick_s, rel=1e-3)
        port.close()


def test_power_fed_back_is_negative() -> None:
    """A meter wired the wrong way round shows negative watts, never the same with a plus."""
    with bench(McpParameters(reversed=True)) as lab, opened(lab.port.path) as meter:
        (raw,) = meter.read()
        assert raw == -round(lab.chip.watts(lab.clock.now_ns()) / 0.01)
        assert raw < 0


def test_the_other_outlet_is_another_register() -> None:
    """Outlet 2 of the board reads what is plugged in there: nothing, while outlet 1 draws power."""
    with bench() as lab:
        with opened(lab.port.path, ",outlet=2") as meter:
            assert meter.address == f"mcp39f511n:{lab.port.path},outlet=2"
            assert meter.read() == (0,)
        assert "give a whole number from 1 to 2" in refused(f"mcp39f511n:{lab.port.path},outlet=3").detail


def test_the_rigs_readings_are_simulated_and_seeded() -> None:
    """Readings of the rig are marked, and the same seed gives the same bytes."""
    with bench(seed=3) as lab, opened(lab.port.path) as meter:
        assert all(channel.simulated for channel in meter.channels())
        frame = mcp39f511n.question(0x0002, 32)
        first = lab.chip.answer(frame)
    with bench(seed=3) as again, bench(seed=4) as other:
        assert again.chip.answer(frame) == first != other.chip.answer(frame)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told_and_the_next_reading_counts(fault: Fault) -> None:
    """NAK, damage, silence, half an answer and noise each have their own sentence, and end with themselves."""
    timeout = 0.6 if fault in ("silence", "truncated") else 4.0
    with bench() as lab, opened(lab.port.path, f",timeout={timeout}") as meter:
        before = meter.read()
        lab.chip.fault = lambda: fault
        with pytest.raises(MeterFault, match=FAULTS[fault]):
            meter.read()
        lab.chip.fault = lambda: None
        assert meter.read() == before


@pytest.mark.parametrize("fault", ["nak", "silence", "checksum"])
def test_fault_at_the_opening_is_refused(fault: Fault) -> None:
    """A meter that does not answer well cannot be opened, says why and what to do, and leaves nothing open."""
    with bench() as lab:
        lab.chip.fault = lambda: fault
        error = refused(f"mcp39f511n:{lab.port.path},timeout={0.1 if fault == 'silence' else 4.0}")
        assert error.code == "meter_unreadable"
        assert FAULTS[fault] in error.detail
        assert "ls /dev/serial/by-id" in error.detail


def test_fault_in_the_second_question_is_no_half_reading() -> None:
    """Power that came well counts for nothing where the energy register does not answer."""
    with bench() as lab, opened(lab.port.path, ",energy=on") as meter:
        faults: list[Fault | None] = [None, "nak"]
        lab.chip.fault = lambda: faults.pop(0)
        with pytest.raises(MeterFault, match="NAK"):
            meter.read()


def test_unplugged_meter_comes_back(tmp_path: Path) -> None:
    """Pulling the plug is a fault of its own, so is each reading without it, and plugged in again it goes on."""
    link = tmp_path / "ttyACM0"
    with bench() as lab:
        link.symlink_to(lab.port.path)
        with opened(link) as meter:
            before = meter.read()
            lab.port.close()
            with pytest.raises(MeterFault, match="unplugged"):
                meter.read()
            link.unlink()
            with pytest.raises(MeterFault, match="no such file"):
                meter.read()
            port = McpPort(lab.chip.answer)
            link.symlink_to(port.path)
            assert meter.read() == before
            port.close()


def test_one_port_has_one_reader() -> None:
    """A port that another program holds is refused: two would take each other's answers."""
    with bench() as lab, opened(lab.port.path):
        assert "another program holds it" in refused(f"mcp39f511n:{lab.port.path}").detail


@pytest.mark.parametrize(
    ("parameters", "options", "says"),
    [
        (McpParameters(cycles_log2=0), "", "2\\^0 line cycles"),
        (McpParameters(power_range=40), "", "power range 40"),
        (McpParameters(counting=False), ",energy=on", "energy counting is off"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(parameters: McpParameters, options: str, says: str) -> None:
    """Intervals that give wrong power, ranges that no power has and a register that stands still are refused."""
    with bench(parameters) as lab:
        error = refused(f"mcp39f511n:{lab.port.path}{options}")
        assert error.code == "meter_unreadable"
        assert says.replace("\\", "") in error.detail


def test_what_is_no_serial_port_is_refused(tmp_path: Path) -> None:
    """A path without a file, a folder and a plain file are refused by name."""
    (tmp_path / "notes.txt").write_text("watts")
    for path in (tmp_path / "ttyACM9", tmp_path, tmp_path / "notes.txt"):
        error = refused(f"mcp39f511n:{path}")
        assert error.code == "meter_unreadable"
        assert str(path) in error.detail


def test_energy_register_may_count_double() -> None:
    """Where the register counts double, its reading stays within the interval that the channel declares."""
    with bench(McpParameters(energy_factor=2.0)) as lab, opened(lab.port.path, ",energy=on") as meter:
        _, channel = meter.channels()
        first, start_ns = meter.read()[1], lab.clock.now_ns()
        lab.pass_time(60 * 0.32)
        last = meter.read()[1]
        assert first is not None
        assert last is not None
        shown_j = (last - first) * channel.step
        truth_j = lab.wall.energy_j(lab.clock.now_ns()) - lab.wall.energy_j(start_ns)
        assert shown_j == pytest.approx(2 * truth_j, rel=0.01)
        assert abs(shown_j - truth_j) <= shown_j * channel.gain_u_ratio * 1.01
        assert channel.step == J_PER_WH / 1_000


def test_impossible_energy_is_a_fault() -> None:
    """A register full of ones is refused, not recorded."""
    with bench() as lab:
        plain = lab.chip.answer

        def full(frame: bytes) -> bytes:
            if frame[4] != 0x2E or not flaw:
                return plain(frame)
            reply = bytes([0x06, 11]) + b"\xff" * 8
            return reply + bytes([sum(reply) % 256])

        flaw: list[bool] = []
        port = McpPort(full)
        with opened(port.path, ",energy=on") as meter:
            flaw.append(True)
            with pytest.raises(MeterFault, match="cannot be"):
                meter.read()
        port.close()


def test_only_the_boards_usb_id_is_found(tmp_path: Path) -> None:
    """Among serial ports the one with the board's USB id is taken, and nothing is sent to the others."""
    for number, product in ((0, "0043"), (1, "00dd")):
        device = tmp_path / f"usb{number}"
        (device / "interface").mkdir(parents=True)
        (device / "idVendor").write_text("04d8\n")
        (device / "idProduct").write_text(f"{product}\n")
        port = tmp_path / "tty" / f"ttyACM{number}"
        port.mkdir(parents=True)
        (port / "device").symlink_to(device / "interface")
    assert mcp39f511n.look(tmp_path / "tty") == "/dev/ttyACM1"


@settings(max_examples=400)
@given(
    frame=st.one_of(
        st.binary(max_size=40), st.binary(min_size=8, max_size=8).map(lambda data: bytes([0x06, 11]) + data + b"\x2a")
    )
)
def test_any_bytes_are_an_answer_or_a_fault(frame: bytes) -> None:
    """Whatever comes, it is eight bytes with the right sum or a fault with a sentence."""
    try:
        data = mcp39f511n.answered(frame, 8)
    except MeterFault as fault:
        assert str(fault)
        return
    assert frame[:2] == b"\x06\x0b"
    assert len(data) == 8
    assert sum(frame[:-1]) % 256 == frame[-1]


def test_any_bytes_on_the_line_end_in_time() -> None:
    """Over the real line, random answers never become a reading, never hang, and a good one counts again."""
    with bench() as lab:
        spoilt: list[bytes] = []
        port = McpPort(lambda frame: spoilt.pop() if spoilt else lab.chip.answer(frame))
        with opened(port.path, ",timeout=0.3") as meter:
            good = meter.read()

            @settings(max_examples=60)
            @given(noise=st.binary(max_size=60))
            def check(noise: bytes) -> None:
                spoilt.append(noise)
                with pytest.raises(MeterFault):
                    meter.read()
                assert meter.read() == good

            check()
        port.close()
