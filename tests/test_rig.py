"""The rig: its energy is the integral of its power, its instruments tell that energy, and it keeps up in real time."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulebox.clock import SimulatedClock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.metering import curve_of
from joulebox.model import ReadingKind, Series
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.rig.peers import PEERS
from joulebox.rig.physics import ZONES, Machine, MachineParameters
from joulebox.rig.powercap_tree import RANGE_UJ, RigPowercap, TreeParameters
from joulebox.rig.serve import SOCKET, LevelSocket, Sender, Served, serve, truth_of
from joulebox.rig.wall import Wall

MS = 1_000_000
S = 1_000 * MS

steps = st.lists(st.tuples(st.integers(1, 900), st.floats(0, 1)), max_size=6)
"""Waits in milliseconds, each followed by a level."""


def worked(machine: Machine, activity: list[tuple[int, float]]) -> int:
    """Let the machine do `activity`; the moment of the last step."""
    t_ns = machine.start_ns
    for wait_ms, level in activity:
        t_ns += wait_ms * MS
        machine.activity(t_ns, level)
    return t_ns


# --- physics ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), start_ns=st.integers(0, 2**55), activity=steps)
def test_energy_is_the_integral_of_power(seed: int, start_ns: int, activity: list[tuple[int, float]]) -> None:
    """Energy in closed form equals power summed millisecond by millisecond, in every zone."""
    machine = Machine(seed, start_ns)
    end_ns = worked(machine, activity) + 700 * MS
    for zone in ZONES:
        middles = range(start_ns + MS // 2, end_ns, MS)
        summed_j = sum(machine.power_w(zone, t_ns) for t_ns in middles) / 1_000
        assert machine.energy_j(zone, end_ns) == pytest.approx(summed_j, rel=1e-6)


@settings(max_examples=50)
@given(activity=steps, after_ms=st.integers(5, 30_000))
def test_temperature_obeys_its_equation(activity: list[tuple[int, float]], after_ms: int) -> None:
    """The slope of the temperature is what the power of that moment asks for."""
    parameters = MachineParameters(noise_w=0.0)
    machine = Machine(1, parameters=parameters)
    t_ns = worked(machine, activity) + after_ms * MS
    slope = (machine.temperature_c(t_ns + MS) - machine.temperature_c(t_ns - MS)) / 2e-3
    aim_c = parameters.ambient_c + parameters.heat_c_per_w * machine.power_w("package-0", t_ns)
    assert slope == pytest.approx((aim_c - machine.temperature_c(t_ns)) / parameters.heat_s, abs=1e-4)


def test_work_costs_energy_leaves_a_tail_and_warms() -> None:
    """Two seconds of work draw the dynamic power, power stays up afterwards and dies away, the package gets warmer."""
    machine = Machine(2)
    idle_w, idle_c = machine.power_w("package-0", 0), machine.temperature_c(0)
    machine.activity(1 * S, 1.0)
    machine.activity(3 * S, 0.0)
    answer_j = machine.energy_j("package-0", 3 * S) - machine.energy_j("package-0", 1 * S)
    assert 2 * (34 + 6) < answer_j < 2 * (34 + 6 + 4.5)
    assert machine.power_w("package-0", 3 * S) > idle_w + 2.5
    assert machine.power_w("package-0", 9 * S) == pytest.approx(idle_w, abs=1.0)
    assert machine.temperature_c(3 * S) > idle_c + 2
    assert machine.energy_j("package-0/dram", 3 * S) == pytest.approx(3 * 1.5 + 2 * 3.0)


def test_idle_noise_is_the_asked_size_and_nearly_free_of_bias() -> None:
    """Five minutes of idle scatter by `noise_w` around the idle power."""
    machine = Machine(3)
    watts = [machine.power_w("package-0", t_ns) - 6.0 for t_ns in range(0, 300 * S, 20 * MS)]
    mean_w = sum(watts) / len(watts)
    spread_w = (sum((w - mean_w) ** 2 for w in watts) / len(watts)) ** 0.5
    assert abs(mean_w) < 0.03
    assert spread_w == pytest.approx(0.15, rel=0.15)


def test_same_seed_same_machine() -> None:
    """The seed decides every number; another seed gives another machine."""
    first, again, other = Machine(7), Machine(7), Machine(8)
    moments = range(0, 400 * S, 3_333 * MS)
    assert [first.energy_j("package-0", t) for t in moments] == [again.energy_j("package-0", t) for t in moments]
    assert first.energy_j("package-0", 60 * S) != other.energy_j("package-0", 60 * S)
    assert first.power_w("package-0", 0) == 5.983279017810724


def test_forgetting_keeps_what_is_still_asked() -> None:
    """A machine that forgets old steps tells the same energy later, and refuses to tell earlier ones."""
    machine, whole = Machine(4), Machine(4)
    for each in (machine, whole):
        worked(each, [(100, 0.5), (100, 1.0), (100, 0.0)])
    machine.forget(250 * MS)
    for t_ns in (250 * MS, 300 * MS, 5 * S):
        assert machine.energy_j("package-0", t_ns) == whole.energy_j("package-0", t_ns)
    with pytest.raises(ValueError, match="before"):
        machine.energy_j("package-0", 150 * MS)


def test_impossible_activity_is_refused() -> None:
    """A level outside 0..1 and a step into the past are refused, and change nothing."""
    machine = Machine(5)
    machine.activity(2 * S, 0.5)
    before_j = machine.energy_j("package-0", 3 * S)
    for t_ns, level in ((1 * S, 0.5), (2 * S, 1.5), (2 * S, float("nan"))):
        with pytest.raises(ValueError, match=r"level|after"):
            machine.activity(t_ns, level)
    assert machine.energy_j("package-0", 3 * S) == before_j


# --- instruments on disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("range_uj", [20_000_000, RANGE_UJ])
def test_drivers_read_the_truth_through_wraps(range_uj: int, tmp_path: Path) -> None:
    """What the real driver reads at 10 Hz, unwrapped, is the energy the machine drew, to a step and a tick."""
    clock, machine = SimulatedClock(), Machine(11)
    rig = RigPowercap(clock, machine, tmp_path, TreeParameters(range_uj=range_uj))
    meter = rig.following(open_meters([rig.addresses[0]])[0])
    rows: list[tuple[int, list[int]]] = []
    for turn in range(600):
        clock.sleep_until(turn * 100 * MS)
        if turn % 50 == 10:
            machine.activity(clock.now_ns(), 0.8)
        if turn % 50 == 30:
            machine.activity(clock.now_ns(), 0.0)
        rows.append((clock.now_ns(), [raw for raw in meter.read() if raw is not None]))
    wraps = 0
    for index, channel in enumerate(meter.channels()):
        raw = tuple(values[index] for _, values in rows)
        wraps += sum(after < before for before, after in pairwise(raw))
        curve = curve_of(Series(channel=channel, t_ns=tuple(t_ns for t_ns, _ in rows), raw=raw))
        truth_j = [machine.energy_j(ZONES[index], t_ns) for t_ns, _ in rows]
        assert curve.resets_ns == ()
        for total_j, true_j in zip(curve.total, truth_j, strict=True):
            assert total_j == pytest.approx(true_j - truth_j[0], abs=0.001 * 50 + 2e-4)
        assert channel.simulated
        assert channel.name == ZONES[index]
    assert (wraps > 30) is (range_uj != RANGE_UJ)
    meter.close()
    rig.close()


def test_counter_shows_the_last_tick_in_steps(tmp_path: Path) -> None:
    """Between two ticks of a millisecond the counter stands still, and it moves in steps of 61 µJ."""
    clock, machine = SimulatedClock(), Machine(12)
    rig = RigPowercap(clock, machine, tmp_path)
    energy = rig.powercap / "intel-rapl:0" / "energy_uj"
    seen = []
    for t_us in range(5_000, 25_000, 100):
        rig.update(t_us * 1_000)
        seen.append(int(energy.read_bytes()))
    moves = [after - before for before, after in pairwise(seen) if after != before]
    assert 19 <= len(moves) <= 20
    assert all(round(move / 61.035) * 61.035 == pytest.approx(move, abs=1) for move in moves)
    assert len(energy.read_bytes()) == 24
    rig.close()


def test_gain_error_is_in_the_counter_and_not_in_the_truth(tmp_path: Path) -> None:
    """An instrument that shows 2 % too much does so against an unchanged truth."""
    clock, machine = SimulatedClock(), Machine(13)
    rig = RigPowercap(clock, machine, tmp_path, TreeParameters(gain_error=0.02))
    shown_uj = rig.count_uj("package-0", 100 * S) - rig.count_uj("package-0", 0)
    assert shown_uj / 1e6 == pytest.approx(1.02 * machine.energy_j("package-0", 100 * S), rel=1e-5)
    assert machine.energy_j("package-0", 100 * S) == Machine(13).energy_j("package-0", 100 * S)
    rig.close()


def test_temperature_folder_follows_the_machine(tmp_path: Path) -> None:
    """The sensor shows whole degrees of the machine's temperature."""
    clock, machine = SimulatedClock(), Machine(14)
    rig = RigPowercap(clock, machine, tmp_path)
    (meter,) = open_meters([rig.addresses[1]])
    machine.activity(0, 1.0)
    rig.update(20 * S)
    assert meter.read() == (round(machine.temperature_c(20 * S)) * 1_000,)
    assert meter.read() != (37_000,)
    meter.close()
    rig.close()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """The same seed and activity leave the same bytes on disk; another seed leaves others."""
    for name, seed in (("a", 21), ("b", 21), ("c", 22)):
        machine = Machine(seed)
        rig = RigPowercap(SimulatedClock(), machine, tmp_path / name)
        rig.update(worked(machine, [(100, 0.5), (700, 0.9), (50, 0.0)]))
        rig.close()
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert everything(tmp_path / "a") != everything(tmp_path / "c")
    assert "powercap/joulebox-rig.json" in everything(tmp_path / "a")


# --- real time --------------------------------------------------------------------------------------------------------


@dataclass
class Serving:
    """A rig in a thread of this process."""

    folder: Path
    meters: tuple[str, ...] = ()
    served: list[Served] = field(default_factory=list)


@contextmanager
def serving(folder: Path, beside: Sequence[str] = ()) -> Iterator[Serving]:
    state, ready, stop = Serving(folder), threading.Event(), threading.Event()

    def opened(meters: tuple[str, ...]) -> None:
        state.meters = meters
        ready.set()

    def work() -> None:
        served = serve(folder, 31, lambda: LevelSocket(folder), SystemClock(), stop.is_set, ready=opened, beside=beside)
        state.served.append(served)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10)
        yield state
    finally:
        stop.set()
        thread.join(10)


def test_writer_keeps_up_and_knows_the_truth(tmp_path: Path) -> None:
    """In half a second of real time the counters follow what an engine says it does, and the record tells the truth."""
    clock = SystemClock()
    with serving(tmp_path) as rig:
        send = Sender(tmp_path)
        (meter,) = open_meters(rig.meters[:1])
        rows = []
        for level in (0.0, 0.9, 0.3, 1.0, 0.0):
            send(clock.now_ns(), level)
            clock.sleep_until(clock.now_ns() + 100 * MS)
            rows.append((meter.read(), clock.now_ns()))
        meter.close()
        send.close()
    (served,) = rig.served
    truth = truth_of(tmp_path)
    assert served.refused == 0
    assert served.ticks >= 100
    for (before, before_ns), (after, after_ns) in pairwise(rows):
        for zone, low, high in zip(ZONES, before, after, strict=True):
            assert low is not None
            assert high is not None
            true_j = truth.energy_j(zone, after_ns) - truth.energy_j(zone, before_ns)
            assert (high - low) / 1e6 == pytest.approx(true_j, abs=2 * 50 * (served.gap_max_s + 0.002))
    assert truth.energy_j("package-0", rows[3][1]) - truth.energy_j("package-0", rows[2][1]) > 0.05 * 34


def test_two_rigs_do_not_share_a_folder(tmp_path: Path) -> None:
    """A second rig in the same folder is refused with one sentence, and the first goes on."""
    with serving(tmp_path) as rig:
        with pytest.raises(JouleboxError, match="another rig") as caught:
            serve(tmp_path, 1, lambda: LevelSocket(tmp_path), SystemClock(), lambda: True)
        assert caught.value.code == "bad_setting"
        send = Sender(tmp_path)
        send(0, 0.75)
        send.close()
        SystemClock().sleep_until(SystemClock().now_ns() + 50 * MS)
    assert rig.served
    assert "0.75]" in (tmp_path / "truth.jsonl").read_text()


def test_every_instrument_at_the_plug_is_read_in_real_time(tmp_path: Path) -> None:
    """All instruments named beside the tree answer the real drivers at once, and each shows the machine's power."""
    clock = SystemClock()
    with serving(tmp_path, tuple(PEERS)) as rig:
        assert [address.partition(":")[0] for address in rig.meters] == ["powercap", "hwmon", *PEERS]
        meters = open_meters(rig.meters[2:])
        recorder = Recorder(meters, clock, reading_hz=10.0)
        began_ns = clock.now_ns()
        recorder.start()
        clock.sleep_until(began_ns + 1_900 * MS)
        recorder.stop()
        ended_ns = clock.now_ns()
    wall = Wall(truth_of(tmp_path))
    truth_w = wall.mean_w(began_ns, ended_ns)
    powers = [one for one in recorder.series(0, ended_ns) if one.channel.kind is ReadingKind.POWER_W]
    assert {one.channel.meter.partition(":")[0] for one in powers} == set(PEERS)
    for one in powers:
        assert one.raw[-1] * one.channel.step == pytest.approx(truth_w, abs=1.5)
        assert one.channel.scope in ("wall", "platform")
        assert one.channel.simulated
        assert len(one.raw) >= 2


def test_an_unknown_instrument_is_refused(tmp_path: Path) -> None:
    """A name the rig does not know is refused with the names it knows, and the folder is free again."""
    for _ in range(2):
        with pytest.raises(JouleboxError, match=r"no instrument 'amp'.*shelly") as caught:
            serve(tmp_path, 1, lambda: LevelSocket(tmp_path), SystemClock(), lambda: True, beside=["shelly", "amp"])
        assert caught.value.code == "bad_setting"


def test_a_machine_is_asked_while_it_is_told(tmp_path: Path) -> None:
    """Energy asked from another thread while steps come and old ones are dropped never errs and never falls."""
    machine, told = Machine(6), threading.Event()
    asked: list[float] = []
    latest_ns = [0]

    def ask() -> None:
        while not told.is_set():
            with suppress(ValueError):  # what was just dropped is refused
                asked.append(machine.energy_j("package-0", latest_ns[0]))

    thread = threading.Thread(target=ask)
    thread.start()
    begin = 1
    while begin == 1 or len(set(asked)) <= 3:  # until the other thread had its turns
        for step in range(begin, begin + 20_000):
            machine.activity(step * MS, step % 7 / 7)
            latest_ns[0] = step * MS
            machine.forget((step - 50) * MS)
        begin += 20_000
    told.set()
    thread.join(10)
    assert all(after >= before for before, after in pairwise(asked))


def test_nonsense_from_an_engine_is_counted(tmp_path: Path) -> None:
    """Datagrams that hold no level between 0 and 1 are counted and change nothing."""
    listening = LevelSocket(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outgoing:
        for message in (b"", b"{", b"[]", b'{"level": "x"}', b'{"level": 2}', b'{"level": NaN}', b'{"level": 0.25}'):
            outgoing.sendto(message, str(tmp_path / SOCKET))
    assert listening.level(0) == 0.25
    assert listening.level(0) is None
    assert listening.refused == 6
    listening.close()
    assert not (tmp_path / SOCKET).exists()


def test_run_prints_the_setting_and_ends_on_sigterm(tmp_path: Path) -> None:
    """`rig run` prints the setting a node needs, follows this machine's cores and ends cleanly."""
    line = [
        sys.executable,
        "-m",
        "joulebox",
        "rig",
        "run",
        "--folder",
        str(tmp_path),
        "--seed",
        "3",
        "--with",
        "shelly",
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        own = f'JOULEBOX_METERS="powercap:{tmp_path}/powercap hwmon:{tmp_path}/hwmon shelly:http://127.0.0.1:'
        assert said.startswith(own)
        meters = open_meters(said.split('"')[1].split())
        first = meters[0].read()
        SystemClock().sleep_until(SystemClock().now_ns() + 300 * MS)
        assert all(after != before for before, after in zip(first, meters[0].read(), strict=True))
        for meter in meters:
            meter.close()
        process.send_signal(signal.SIGTERM)
        assert "ticks written" in process.stdout.read()
    assert process.returncode == 0
    assert json.loads((tmp_path / "truth.jsonl").read_text().splitlines()[0])["seed"] == 3
