"""Readings that are none: what the curve makes of them, what the verdict calls them, and that the recorder goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import floor, sqrt

import pytest

from faults import FaultClock
from instruments import Instrument, Kind
from joulebox.accounting import account
from joulebox.clock import SimulatedClock
from joulebox.metering import curve_of
from joulebox.model import ReadingKind, Receipt, Sampling, Series, Trace
from joulebox.node.meter import MeterFault
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from joulebox.units import nanoseconds
from traces import PLACEMENT, S, channel, factors, series, trace, work

DRAWN = work(10.0, 50.0, 30.0, 32.0)


def receipt_of(run: Trace) -> Receipt:
    return account(run, factors(), receipt_id="r", placement=PLACEMENT)


def codes(run: Trace) -> list[str]:
    return [reason.code for reason in receipt_of(run).reasons if reason.level != "note"]


def held(one: Series, from_s: float, until_s: float) -> Series:
    """The same readings, of which those of a while show the first one's value again."""
    first = next(raw for t_ns, raw in zip(one.t_ns, one.raw, strict=True) if t_ns >= from_s * S)
    pairs = zip(one.t_ns, one.raw, strict=True)
    return replace(one, raw=tuple(first if from_s * S <= t_ns <= until_s * S else raw for t_ns, raw in pairs))


def test_what_is_said_twice_counts_once() -> None:
    """A reading that repeats the one before it at either edge of the answer changes nothing."""
    plain = series(channel(), DRAWN, 34.0)
    for edge_s in (29.9, 31.9):
        energy = receipt_of(trace(held(plain, edge_s, edge_s + 0.11))).energy
        assert energy.answer is not None
        assert energy.answer.j == pytest.approx(100.0, abs=0.1)


def test_a_counter_that_stands_is_named() -> None:
    """A fast counter that stands for half a second in the answer makes it suspect, and so does one that never moves."""
    plain = series(channel(), DRAWN, 34.0)
    assert codes(trace(plain)) == []
    assert "meter_frozen" in codes(trace(held(plain, 30.5, 31.0)))
    assert "meter_frozen" in codes(trace(replace(plain, raw=(7,) * len(plain.raw))))


def test_idle_cores_stand_by_right() -> None:
    """A machine without a meter may be wholly idle for seconds around its answer: no meter stood still."""
    busy = channel("busy", "machine", kind=ReadingKind.BUSY_RATIO, step=0.01, tick_s=0.01)
    assert "meter_frozen" not in codes(trace(series(busy, work(0.0, 2.0, 30.0, 32.0), 34.0)))


def test_a_jump_is_a_reset() -> None:
    """A counter that jumps ahead by more than any machine draws has been exchanged; the jump is not energy."""
    plain = series(channel(), DRAWN, 34.0)
    jumped = tuple(raw + 10**12 if t_ns > 31 * S else raw for t_ns, raw in zip(plain.t_ns, plain.raw, strict=True))
    receipt = receipt_of(trace(replace(plain, raw=jumped)))
    assert (receipt.verdict, receipt.reasons[0].code) == ("invalid", "meter_reset")
    assert receipt.energy.answer is not None
    assert receipt.energy.answer.j < 200


def test_a_reset_is_no_wrap() -> None:
    """A counter that falls to zero far below its end was reset, though a wrap would mean less than 20 kW."""
    one = channel(wrap_raw=2_000_000_000)
    plain = series(one, lambda t_s: 500.0 + DRAWN(t_s), 34.0)
    begun = tuple(raw - 850_000_000 if t_ns > 31 * S else raw for t_ns, raw in zip(plain.t_ns, plain.raw, strict=True))
    assert min(begun) >= 0
    assert curve_of(replace(plain, raw=begun)).resets_ns


def test_late_work_is_named() -> None:
    """A meter that shows everything a second late makes the receipt suspect."""
    late = series(channel(), lambda t_s: DRAWN(t_s - 0.4), 34.0)
    assert codes(trace(late)) == ["meter_late"]


def seen_late_j(until_s: float, *, of_s: float) -> float:
    """The part of the interval for work seen late, of a plug that counts `of_s` seconds of work until `until_s`."""
    drawn = work(10.0, 50.0, until_s - of_s, until_s)
    plug = series(channel(tick_s=1.0), lambda t_s: drawn(floor(t_s)), 45.0, 0.23)
    answer = receipt_of(trace(plug, end_s=36.0)).energy
    return next((part.j for part in answer.uncertainty if part.source == "seen late"), 0.0)


def test_work_that_may_be_seen_late() -> None:
    """A plug that shows work for a second after its end was late, or the machine worked on: the interval holds both."""
    assert seen_late_j(36.0, of_s=6.0) == 0.0
    assert seen_late_j(37.0, of_s=7.0) == pytest.approx(50.0 / sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("shown_s", "told"),
    [
        (lambda t_s: t_s, []),
        (lambda t_s: 33.0 if 33.0 <= t_s < 35.0 else t_s, []),
        (lambda t_s: min(t_s, max(33.0, t_s - 2.0)), ["meter_frozen"]),
    ],
    ids=["as it is", "making up", "behind"],
)
def test_a_counter_that_skips_is_named(shown_s: Callable[[float], float], told: list[str]) -> None:
    """A plug's counter that stands for two ticks and goes on from where it stood is named, but not one that makes up
    for them."""
    drawn = work(10.0, 50.0, 30.0, 38.0)
    plug = series(channel(tick_s=1.0), lambda t_s: drawn(shown_s(floor(t_s))), 45.0, 0.23)
    assert codes(trace(plug, end_s=38.0)) == told


class Odd(Instrument):
    """A meter that breaks, gives too much, or takes long, on demand."""

    how = ""

    def read(self) -> Sequence[int | None]:
        if self.how == "breaks":
            raise ZeroDivisionError
        if self.how == "huge":
            return (2**70,)
        if self.how == "long":
            self.held_up.lose(0.4)
        return (*super().read(), *([0] if self.how == "more" else []))

    def __init__(self, clock: FaultClock) -> None:
        super().__init__(Wall(Machine(1)), clock, Kind(sampling=Sampling.COUNTER, tick_s=0.001, step=1e-3))
        self.held_up = clock


@pytest.mark.parametrize("how", ["breaks", "huge", "more", "long"])
def test_the_recorder_goes_on(how: str) -> None:
    """A driver that breaks, counts too far, answers for too many or takes long gives no readings, and then does again;
    only what failed is told."""
    clock = FaultClock()
    meter = Odd(clock)
    recorder = Recorder([meter], clock, reading_hz=10.0)
    clock.sleep_until(nanoseconds(1.0))
    recorder.start()
    clock.sleep_until(nanoseconds(3.0))
    meter.how = how
    from_ns = clock.now_ns() + 1
    clock.sleep_until(nanoseconds(5.0))
    assert recorder.record(from_ns, clock.now_ns()).series()[0].t_ns == ()
    remarks = recorder.record(from_ns, clock.now_ns()).remarks()
    assert [one.code for one in remarks][:1] == ([] if how == "long" else ["meter_gap"])
    meter.how = ""
    from_ns = clock.now_ns()
    clock.sleep_until(from_ns + nanoseconds(2.0))
    assert len(recorder.record(from_ns, clock.now_ns()).series()[0].t_ns) >= 15
    recorder.stop()


def test_a_slow_line_is_not_waited_for() -> None:
    """A meter whose last answer took long is left to its own thread: a run's edges are not held up by it."""
    clock = FaultClock()
    meter = Odd(clock)
    recorder = Recorder([meter], clock, reading_hz=10.0)
    clock.sleep_until(nanoseconds(1.0))
    meter.how = "long"
    recorder.read_now()
    before_ns = clock.now_ns()
    assert recorder.read_now() == before_ns


def test_faults_are_named_a_few_times() -> None:
    """A line that is down makes a hundred remarks and three reasons."""

    class Down(Instrument):
        turn = 0

        def read(self) -> Sequence[int | None]:
            self.turn += 1
            raise MeterFault(f"no answer to question {self.turn}")

    clock = SimulatedClock()
    meter = Down(Wall(Machine(1)), clock, Kind(sampling=Sampling.COUNTER, tick_s=0.001, step=1e-3))
    recorder = Recorder([meter], clock, reading_hz=10.0)
    recorder.start()
    clock.sleep_until(nanoseconds(34.0))
    record = recorder.record(0, clock.now_ns())
    receipt = receipt_of(trace(series(channel(), DRAWN, 34.0), remarks=record.remarks()))
    assert [reason.code for reason in receipt.reasons if reason.level != "note"] == ["meter_gap"] * 3
