"""Meters slower than the prompt: coarse counters, averaging wall meters, plugs that only look, on a handed-in clock."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from instruments import Instrument, Kind
from intervals import DURATIONS_S, drawn_j, measured
from joulebox.accounting import account
from joulebox.clock import SimulatedClock, SystemClock
from joulebox.model import Channel, Receipt, Sampling, Trace
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from joulebox.units import nanoseconds
from lab import Compared
from traces import PLACEMENT, factors, trace


def receipt_of(run: Trace) -> Receipt:
    return account(run, factors(), receipt_id="r", placement=PLACEMENT)


def by_duration(compared: list[Compared]) -> dict[float, float]:
    """The median error of `answer` for each nominal duration."""
    found = defaultdict(list)
    for one in compared:
        nearest = min(DURATIONS_S, key=lambda duration_s: abs(duration_s - one.receipt.times.duration_s))
        found[nearest].append(one.error_ratio)
    return {duration_s: median(found[duration_s]) for duration_s in sorted(found)}


@pytest.mark.parametrize("tick_s", [0.02, 0.1])
def test_coarse_counters(tmp_path: Path, tick_s: float) -> None:
    """A counter that moves each 20 or 100 ms (a GPU's kind) is within 2 % at 50 ms and 0.5 % at 1 s."""
    compared = measured(tmp_path, 1, Kind(sampling=Sampling.COUNTER, tick_s=tick_s, step=1e-3, phase_s=0.013))
    errors = by_duration(compared)
    print(f"counter, tick {tick_s} s, simulated: {errors}")
    assert errors[0.05] <= 0.02
    assert errors[1.0] <= 0.005
    assert sum(abs(one.j - one.truth_j) <= one.u_j for one in compared) >= 0.9 * len(compared)


def test_a_ten_hertz_wall_meter(tmp_path: Path) -> None:
    """A wall meter that averages over 100 ms, with a lag it declares, is within 1 % at 1 s."""
    kind = Kind(sampling=Sampling.MEAN, tick_s=0.1, lag_s=0.05, phase_s=0.037)
    compared = measured(tmp_path, 2, kind)
    errors = by_duration(compared)
    print(f"10 Hz mean, simulated: {errors}")
    assert errors[1.0] <= 0.01
    assert errors[5.0] <= 0.005
    assert sum(abs(one.j - one.truth_j) <= one.u_j for one in compared) >= 0.9 * len(compared)


def test_a_one_hertz_plug(tmp_path: Path) -> None:
    """A plug that averages over a second and shows it half a second late is within 2 % at 1 s and longer."""
    kind = Kind(sampling=Sampling.MEAN, tick_s=1.0, lag_s=0.5, phase_s=0.37)
    compared = measured(tmp_path, 3, kind, (1.0, 5.0))
    errors = by_duration(compared)
    print(f"1 Hz mean, simulated: {errors}")
    assert errors[1.0] <= 0.02
    assert errors[5.0] <= 0.01
    assert all(one.receipt.energy.full is not None for one in compared)
    assert sum(abs(one.j - one.truth_j) <= one.u_j for one in compared) >= 0.9 * len(compared)


def test_a_wrong_lag_cancels(tmp_path: Path) -> None:
    """A lag that nobody declared moves both ends alike: at 5 s it costs less than 2 %, and the guards hold it."""
    kind = Kind(sampling=Sampling.MEAN, tick_s=0.1, lag_s=0.1, phase_s=0.037, declared_lag_s=0.0)
    assert by_duration(measured(tmp_path, 4, kind))[5.0] <= 0.02


def test_an_answer_between_two_looks(tmp_path: Path) -> None:
    """An answer shorter than two looks of such a plug has no energy, and the verdict says why."""
    clock, machine = SimulatedClock(), Machine(6)
    kind = Kind(sampling=Sampling.SNAPSHOT, tick_s=1.0, step=0.1)
    counter = Kind(sampling=Sampling.COUNTER, tick_s=0.1, step=1e-3)
    recorder = Recorder([Instrument(Wall(machine), clock, kind)], clock, reading_hz=10.0)
    both = Recorder([Instrument(Wall(machine), clock, one) for one in (kind, counter)], clock, reading_hz=10.0)
    recorder.start()
    both.start()
    clock.sleep_until(nanoseconds(60.0))
    machine.activity(clock.now_ns(), 1.0)
    clock.sleep_until(nanoseconds(60.4))
    machine.activity(clock.now_ns(), 0.0)
    clock.sleep_until(nanoseconds(70.0))
    span = {"start_s": 60.0, "end_s": 60.4}
    receipt = receipt_of(trace(*recorder.series(0, clock.now_ns()), **span))
    assert (receipt.energy.answer, receipt.verdict, receipt.reasons[0].code) == (None, "suspect", "too_short")
    better = receipt_of(trace(*both.series(0, clock.now_ns()), **span)).energy
    assert better.answer is not None
    truth_j = drawn_j(machine, nanoseconds(60.4)) - drawn_j(machine, nanoseconds(60.0))
    assert better.answer.j == pytest.approx(truth_j, rel=0.01)


def test_a_plug_that_only_looks(tmp_path: Path) -> None:
    """A plug that looks once a second keeps an error that no guard cancels: the interval says so and covers it, and an
    answer shorter than two looks has no energy rather than a wrong one."""
    kind = Kind(sampling=Sampling.SNAPSHOT, tick_s=1.0, step=0.1, phase_s=0.61)
    compared = measured(tmp_path, 5, kind, (2.5, 5.0))
    assert sum(abs(one.j - one.truth_j) <= one.u_j for one in compared) >= 0.9 * len(compared)
    assert median(one.u_j / one.j for one in compared) > 0.02


@pytest.mark.parametrize("first_s", [0.0, 0.4, 0.8, 0.9])
def test_a_look_at_the_very_edge(first_s: float) -> None:
    """A plug's look so near to the beginning or end of the work that its ticks do not tell whether it was before or
    after counts for the side that it saw."""
    clock, machine = SimulatedClock(), Machine(6)
    recorder = Recorder(
        [Instrument(Wall(machine), clock, Kind(sampling=Sampling.SNAPSHOT, tick_s=1.0, step=0.1))], clock, 10.0
    )
    clock.sleep_until(nanoseconds(first_s))
    recorder.start()
    for until_s, level in ((60.0, 1.0), (65.0, 0.0), (70.0, 0.0)):
        clock.sleep_until(nanoseconds(until_s))
        machine.activity(clock.now_ns(), level)
    answer = receipt_of(trace(*recorder.series(0, clock.now_ns()), start_s=60.0, end_s=65.0)).energy.answer
    assert answer is not None
    truth_j = drawn_j(machine, nanoseconds(65.0)) - drawn_j(machine, nanoseconds(60.0))
    assert answer.j == pytest.approx(truth_j, rel=0.01)
    assert abs(answer.j - truth_j) <= answer.u <= 0.05 * truth_j


@pytest.mark.parametrize("sampling", [Sampling.MEAN, Sampling.SNAPSHOT])
def test_a_coarse_plug_may_repeat_itself(tmp_path: Path, sampling: Sampling) -> None:
    """A plug of whole watts shows one value for as long as the machine draws the same: no verdict says it stood."""
    kind = Kind(sampling=sampling, tick_s=1.0, lag_s=0.5, step=1.0, phase_s=0.2)
    codes = {reason.code for one in measured(tmp_path, 8, kind, (5.0, 20.0)) for reason in one.receipt.reasons}
    assert not codes & {"meter_frozen", "meter_late", "meter_gap"}


@pytest.mark.parametrize("sampling", Sampling)
def test_a_late_plug_is_named(tmp_path: Path, sampling: Sampling) -> None:
    """A plug that shows everything two seconds later than it says is named in every receipt."""
    kind = Kind(sampling=sampling, tick_s=1.0, lag_s=2.0, declared_lag_s=0.0, phase_s=0.2, step=0.01)
    for one in measured(tmp_path, 9, kind, (5.0,)):
        assert {"meter_late", "meter_frozen"} & {reason.code for reason in one.receipt.reasons}


class Blocked(Instrument):
    """A meter whose line has gone silent: reading it does not come back."""

    address = "plug:blocked"

    def __init__(self) -> None:
        self.line = threading.Event()

    def channels(self) -> Sequence[Channel]:
        return (replace(Kind(sampling=Sampling.MEAN, tick_s=0.05).channel, meter=self.address, scope="platform"),)

    def read(self) -> Sequence[int | None]:
        self.line.wait()
        return (None,)


def test_a_blocked_meter_stalls_no_other() -> None:
    """Of two meters, one of which hangs in its line, the other is read on, and the recorder still ends."""
    clock = SystemClock()
    wall = Wall(Machine(7, start_ns=clock.now_ns() - nanoseconds(10.0)))
    blocked = Blocked()
    recorder = Recorder(
        [blocked, Instrument(wall, clock, Kind(sampling=Sampling.MEAN, tick_s=0.05))], clock, reading_hz=10.0
    )
    start_ns = clock.now_ns()
    recorder.start()
    clock.sleep_until(start_ns + nanoseconds(0.4))
    silent, plug = recorder.series(start_ns, clock.now_ns())
    assert len(plug.t_ns) > 10
    assert silent.t_ns == ()
    blocked.line.set()
    recorder.stop()
