"""Calibration finds what the rig's instruments really do, on a clock that is handed in."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from math import sqrt
from pathlib import Path

import pytest

from agreeing import PLUGS, Lab
from joulebox.clock import SimulatedClock, SystemClock
from joulebox.evidence import decode_trace, encode_trace
from joulebox.findings import show_calibration
from joulebox.model import Channel, PhasePowers, ReadingKind, Sampling
from joulebox.node.calibration import (
    CHANGED,
    Calibration,
    busy_cores,
    calibrate,
    calibrated,
    fingerprint,
    load_calibration,
    store_calibration,
)
from joulebox.node.meter import Meter
from joulebox.node.wall_gain import Gain
from joulebox.rig.physics import Machine
from joulebox.units import nanoseconds
from traces import channel, series, trace, work


class Counter:
    """A counter that shows the machine's energy as it was `lag_s` ago, brought up to date each `tick_s`."""

    address = "powercap:rig"
    missing: Sequence[str] = ()

    def __init__(self, machine: Machine, clock: SimulatedClock, tick_s: float, lag_s: float) -> None:
        self._machine, self._clock, self._tick_s, self._lag_s = machine, clock, tick_s, lag_s

    def channels(self) -> Sequence[Channel]:
        return (channel(meter=self.address),)

    def read(self) -> Sequence[int | None]:
        tick_ns = round(self._tick_s * 1e9)
        t_ns = self._clock.now_ns() // tick_ns * tick_ns - round(self._lag_s * 1e9)
        return (int(self._machine.energy_j("package-0", max(t_ns, 0)) * 1e6),)

    def close(self) -> None:
        """Nothing is open."""


class MeanPower(Counter):
    """The same as mean power over the last tick."""

    def channels(self) -> Sequence[Channel]:
        return (channel(meter=self.address, kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, step=0.01, tick_s=1.0),)

    def read(self) -> Sequence[int | None]:
        tick_ns = round(self._tick_s * 1e9)
        end_ns = self._clock.now_ns() // tick_ns * tick_ns - round(self._lag_s * 1e9)
        start_ns = max(end_ns - tick_ns, 0)
        if end_ns <= start_ns:
            return (None,)
        joules = self._machine.energy_j("package-0", end_ns) - self._machine.energy_j("package-0", start_ns)
        return (round(joules / self._tick_s / 0.01),)


def calibration_of(kind: type[Counter], tick_s: float, lag_s: float) -> Calibration:
    clock = SimulatedClock()
    machine = Machine(5)

    @contextmanager
    def work(share: float) -> Iterator[None]:
        machine.activity(clock.now_ns(), share)
        yield
        machine.activity(clock.now_ns(), 0.0)

    return calibrate([kind(machine, clock, tick_s, lag_s)], clock, work, lambda _: None)


@pytest.mark.parametrize(("tick_s", "lag_s"), [(0.02, 0.0), (0.1, 0.03), (0.1, 0.1), (0.5, 0.2)])
def test_a_counters_tick_and_lag_are_found(tick_s: float, lag_s: float) -> None:
    """A counter that moves each 20 to 500 ms and shows the past is told by tick and lag, to a fraction of its tick."""
    (found,) = calibration_of(Counter, tick_s, lag_s).channels
    assert found.tick_s == pytest.approx(tick_s, rel=0.1)
    assert found.lag_s == pytest.approx(lag_s, abs=max(0.02, tick_s / 2))
    assert found.idle_w == pytest.approx(6.0, abs=0.3)


def test_a_fast_counter_keeps_its_declaration() -> None:
    """A counter faster than the polling keeps the tick its driver declares, and has no lag to speak of."""
    (found,) = calibration_of(Counter, 0.001, 0.0).channels
    assert found.tick_s is None
    assert found.lag_s == pytest.approx(0.0, abs=0.02)


def test_a_slow_plug() -> None:
    """Mean power once a second that shows the second before: tick and lag are found."""
    (found,) = calibration_of(MeanPower, 1.0, 0.5).channels
    assert found.tick_s == pytest.approx(1.0, rel=0.1)
    assert found.lag_s == pytest.approx(0.5, abs=0.5)
    assert found.noise_w is not None
    assert found.noise_w > 0


def test_stored_and_stale(tmp_path: Path) -> None:
    """A calibration comes back as it was stored, is applied to its channel, and tells when it no longer holds."""
    calibration = calibration_of(Counter, 0.1, 0.03)
    path = tmp_path / "calibration.json"
    store_calibration(path, calibration)
    again = load_calibration(path)
    assert again == calibration
    assert calibration.applied(channel(meter="powercap:rig")).tick_s == pytest.approx(0.1, rel=0.1)
    clock = SimulatedClock()
    marks = {"powercap:rig": fingerprint(Counter(Machine(5), clock, 0.1, 0.03))}
    now = clock.utc()
    assert calibration.stale(marks, now) is None
    assert "changed" in str(calibration.stale({"powercap:rig": "other"}, now))
    assert "older" in str(calibration.stale(marks, now + timedelta(days=400)))
    assert load_calibration(tmp_path / "none.json") is None


def test_how_meters_agree_is_kept(tmp_path: Path) -> None:
    """A calibration of several meters keeps the line between them, and names it to traces also when one of the meters
    is away; of changed meters it names none."""
    lab = Lab(1, PLUGS["10 Hz wall meter"])
    calibration = calibrate([lab.zones, lab.plug], lab.clock, lab.load, lambda _: None)
    store_calibration(tmp_path / "calibration.json", calibration)
    assert load_calibration(tmp_path / "calibration.json") == calibration
    assert [one.code for one in calibration.agreements] == ["agrees"]
    held: list[list[Meter]] = [[lab.zones, lab.plug], [lab.zones]]
    for present in held:
        ref = calibrated(present, calibration)[1](lab.clock.utc())
        assert ref is not None
        assert (ref.stale, ref.fits) == (None, (calibration.agreements[0].fit,))
    changed = replace(calibration, marks={**calibration.marks, lab.plug.address: "another"})
    ref = calibrated([lab.zones, lab.plug], changed)[1](lab.clock.utc())
    assert ref is not None
    assert (ref.stale, ref.fits) == (CHANGED, ())
    shown = io.StringIO()
    show_calibration(calibration, tmp_path / "calibration.json", stream=shown)
    assert "[agree] plug plug (wall) = " in shown.getvalue()


def test_what_a_calibration_found_is_shown(tmp_path: Path) -> None:
    """The terminal tells what was found of a model, or that it could not be told, and what a meter's gain rests on."""
    (one,) = calibration_of(Coarse, 0.1, 0.0).channels
    gain = Gain(u_ratio=0.02, accuracy="1.01 times what it shows, within 2 %", found=True)
    powers = PhasePowers(model="sha256:0", scope="wall", ratio=1.8, u_ratio=0.2, answers=6)

    def told(*splits: PhasePowers) -> str:
        shown = io.StringIO()
        found = Calibration(id="c", at="2026-11-24", marks={}, channels=(replace(one, gain=gain),), splits=splits)
        show_calibration(found, tmp_path / "calibration.json", model="m", stream=shown)
        return " ".join(shown.getvalue().split())

    assert f"{one.name} is read as 1.01 times what it shows, within 2 %." in told()
    assert "What m draws while reading and while writing could not be told apart." in told()
    assert "m draws 1.80 ± 0.20 times as much above idle while it reads as while it writes (6 answers" in told(powers)
    assert "Not told: the readings do not show it" in told()


class Coarse(MeanPower):
    """A power that shows whole watts: at rest it changes by one now and then, however often it is read."""

    def channels(self) -> Sequence[Channel]:
        return (channel(meter=self.address, kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, step=1.0, tick_s=0.1),)

    def read(self) -> Sequence[int | None]:
        return (6 + (self._clock.now_ns() // nanoseconds(self._tick_s)) % 7 // 6,)


def test_a_coarse_meter_at_rest_tells_no_tick() -> None:
    """Where a meter at rest changes by single steps its resolution shows and not its tick: the declaration stands."""
    (found,) = calibration_of(Coarse, 0.1, 0.0).channels
    assert found.tick_s is None


def test_how_quiet_the_machine_was_travels_with_the_trace(tmp_path: Path) -> None:
    """A calibration tells for any length how far off the idle power may be, and the trace carries it to the server;
    calibrations and traces made before are still read."""
    calibration = calibration_of(Counter, 0.1, 0.03)
    spreads = [one for one in calibration.channels[0].spreads if one.guard_s >= 1]
    assert spreads[0].length_s <= 0.25
    assert spreads[-1].length_s > 2
    for one in spreads:  # noise of 0.15 W that lasts 0.2 s or so, over the length and over the guard before it
        apart_s = 0.38
        expected_j = 0.15 * sqrt(one.length_s * min(apart_s, one.length_s) + one.length_s**2 * apart_s / one.guard_s)
        assert one.rms_j == pytest.approx(expected_j, rel=0.5)
        assert one.windows >= 8
    ref = calibration.ref(calibration.marks, SimulatedClock().utc())
    run = trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0), calibration=ref)
    assert decode_trace(encode_trace(run)).calibration == ref
    path = tmp_path / "calibration.json"
    store_calibration(path, calibration)
    path.write_text(re.sub(r',\s*"spreads": \[.*?\]', "", path.read_text(), flags=re.DOTALL))
    old = load_calibration(path)
    assert old is not None
    assert old.channels[0].spreads == ()
    blob = encode_trace(replace(run, calibration=replace(ref, idle=())))
    before = blob[8:].replace(b',"idle":[]', b"", 1)
    size = int.from_bytes(blob[4:8], "big") - len(blob[8:]) + len(before)
    assert decode_trace(blob[:4] + size.to_bytes(4, "big") + before).calibration == replace(ref, idle=())


def test_a_node_reads_its_meters_as_calibrated() -> None:
    """Tick and lag of the calibration stand on the channels a node records, and its traces name the calibration."""
    clock = SimulatedClock()
    calibration, counter = calibration_of(Counter, 0.1, 0.1), Counter(Machine(5), clock, 0.1, 0.1)
    (read,), named = calibrated([counter], calibration)
    (one,) = read.channels()
    assert (one.tick_s, one.lag_s) == (calibration.channels[0].tick_s, calibration.channels[0].lag_s)
    assert read.read() == counter.read()
    assert (read.address, read.missing) == (counter.address, counter.missing)
    ref, late = named(clock.utc()), named(clock.utc() + timedelta(days=400))
    assert ref is not None
    assert late is not None
    assert (ref.id, ref.at, ref.stale) == (calibration.id, calibration.at, None)
    assert "older" in str(late.stale)


def test_a_lag_too_small_to_tell_is_not_applied() -> None:
    """Where the lag found may as well be what the driver declares, the driver's stays."""
    calibration = calibration_of(Counter, 0.001, 0.0)
    found = replace(calibration.channels[0], lag_s=0.015)
    small = replace(calibration, channels=(found,)).applied(channel(meter="powercap:rig"))
    large = replace(calibration, channels=(replace(found, lag_s=0.05),)).applied(channel(meter="powercap:rig"))
    assert (small.lag_s, large.lag_s) == (0.0, 0.05)


def test_a_calibration_of_other_meters_is_not_used() -> None:
    """Where a calibrated meter has changed its tick is not applied and the traces say so; one of other meters, or none,
    is not named at all."""
    clock = SimulatedClock()
    calibration = calibration_of(Counter, 0.1, 0.03)
    changed, other = MeanPower(Machine(5), clock, 1.0, 0.0), Counter(Machine(5), clock, 0.1, 0.0)
    other.address = "powercap:elsewhere"
    (read, same), named = calibrated([changed, other], calibration)
    assert (read, same) == (changed, other)
    ref = named(clock.utc())
    assert ref is not None
    assert ref.stale == CHANGED
    for stored in (calibration, None):
        read_so, named = calibrated([other], stored)
        assert read_so == [other]
        assert named(clock.utc()) is None


def test_the_real_load_works_only_while_it_lasts() -> None:
    """The processes of the load keep a core busy while they are let go, and none before and after."""
    before = _children()
    with busy_cores(2) as load:
        pids = _children() - before
        assert len(pids) == 2
        assert _busy_s(pids, 0.1) == 0
        with load(1.0):
            assert _busy_s(pids, 0.4) > 0.1
        assert _busy_s(pids, 0.1) <= 0.02
    assert not pids & _children()


def _busy_s(pids: set[int], wait_s: float) -> float:
    clock, start_s = SystemClock(), _spent_s(pids)
    clock.sleep_until(clock.now_ns() + nanoseconds(wait_s))
    return _spent_s(pids) - start_s


def _children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def _spent_s(pids: set[int]) -> float:
    """CPU time of processes."""
    spent = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return sum(int(ticks) for pair in spent for ticks in pair) / os.sysconf("SC_CLK_TCK")
