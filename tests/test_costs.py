"""What measuring costs, in processor time, with its bounds; and the arithmetic that says how sure such figures are."""

from pathlib import Path

import pytest

from costs import RECORDING_MAX, WINDOW_MAX_US, recording, windows
from joulebox.clock import SimulatedClock
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine
from joulebox.rig.powercap_tree import RigPowercap
from joulebox.statistics import mean_interval, ratio_interval, student_t95


def test_a_window_costs_little_beyond_its_readings() -> None:
    """Marks and evidence of a block in a session take at most 100 µs of processor time beyond its readings."""
    costs = windows(8)
    assert min(one.beyond_us for one in costs) <= WINDOW_MAX_US
    assert all(one.readings_us > 0 for one in costs)


@pytest.mark.parametrize(("reading_hz", "most"), RECORDING_MAX.items())
def test_recording_costs_little(reading_hz: float, most: float) -> None:
    """Four channels take at most 0.3 % of a core at 10 Hz and 1.5 % at 100 Hz, and not nothing."""
    assert 0 < min(recording(reading_hz, 0.8, 4)) <= most


def test_a_sensor_is_read_as_often_as_it_changes(tmp_path: Path) -> None:
    """A temperature that changes once a second is read four times a second, however often counters are read."""
    clock = SimulatedClock()
    rig = RigPowercap(clock, Machine(1), tmp_path)
    recorder = Recorder(open_meters(rig.addresses), clock, 100.0)
    recorder.start()
    clock.sleep_until(10_000_000_000)
    counts = {len(one.t_ns) for one in recorder.series(0, clock.now_ns())}
    recorder.stop()
    rig.close()
    assert counts == {1001, 43}


@pytest.mark.parametrize(("freedom", "known"), [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)])
def test_student_t(freedom: int, known: float) -> None:
    """The 95 % points are those of the tables."""
    assert student_t95(freedom) == pytest.approx(known, rel=0.002)


def test_intervals_of_means_and_ratios() -> None:
    """A mean has its textbook interval; what both of a pair share cancels in a ratio; too few values are refused."""
    mean = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean.value == 3.0
    assert mean.high - mean.value == pytest.approx(1.963, rel=0.002)
    assert mean.value - mean.low == pytest.approx(mean.high - mean.value)
    ratio = ratio_interval(
        [(1.1 * size * noise, size) for size, noise in zip((1, 50, 3, 700), (1, 1.01, 0.99, 1), strict=True)]
    )
    assert ratio.value == pytest.approx(1.1, rel=1e-3)
    assert 1.07 < ratio.low < ratio.value < ratio.high < 1.13
    assert ratio.high / ratio.value == pytest.approx(ratio.value / ratio.low)
    assert ratio_interval([(2.0, 2.0)] * 4).value == 1.0
    with pytest.raises(ValueError, match="four"):
        mean_interval([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="above zero"):
        ratio_interval([(1.0, 2.0)] * 4 + [(0.0, 1.0)])
