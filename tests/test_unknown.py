"""Where readings do not tell, nothing is told: no figure, or none taken off."""

from dataclasses import replace

import pytest

from joulebox.accounting.energy import Window, estimate, falls, lingering, split
from joulebox.metering import Curve, counted, curve_of, idle_spreads, value_at
from joulebox.model import ReadingKind, Sampling, Series
from traces import S, channel, series, work

COUNTER = channel()
CURVE = curve_of(series(COUNTER, work(10.0, 40.0, 30.0, 32.0), 34.0))
WINDOW = Window(start_ns=30 * S, end_ns=32 * S, guard_s=1.0, tick_s=0.001, lag_s=0.0, quiet_from_ns=0)


def test_work_right_before_leaves_the_guard_its_length() -> None:
    """Where other work ended as the answer began, the guard before it is looked at all the same."""
    alone, after_work = estimate(CURVE, WINDOW), estimate(CURVE, replace(WINDOW, quiet_from_ns=30 * S))
    assert alone is not None
    assert after_work is not None
    assert after_work.quiet_s == alone.quiet_s
    assert after_work.idle_rate == pytest.approx(10.0, abs=0.01)


def test_without_a_second_reading_after_the_answer_there_is_no_figure() -> None:
    """A record that ends with the answer, or begins with it, has no guard and no figure."""
    ended = Curve(tuple(t for t in CURVE.t_ns if t <= 32.05 * S), CURVE.total)
    begun = Curve(tuple(t for t in CURVE.t_ns if t >= 29.95 * S), CURVE.total)
    assert estimate(ended, WINDOW) is None
    assert estimate(begun, WINDOW) is None


def test_a_guard_outside_the_record_shows_no_fall() -> None:
    """How the power falls in a guard that the readings do not hold is nothing."""
    assert falls(CURVE, 35 * S, 1.0) == 0.0
    assert falls(CURVE, CURVE.t_ns[0], 1.0) == 0.0


def test_a_meter_that_showed_no_last_tick_is_not_late() -> None:
    """What a slow meter may lack is not guessed where its record does not reach the answer's end."""
    found = estimate(CURVE, WINDOW)
    assert found is not None
    short = Curve((30 * S, 31 * S), (0.0, 40.0))
    assert lingering(short, replace(WINDOW, tick_s=0.5), found) == 0.0


def test_a_token_before_all_readings_cuts_nothing() -> None:
    """An answer is not cut at a moment that no reading comes before."""
    found = estimate(CURVE, WINDOW)
    assert found is not None
    assert split(CURVE, WINDOW, found, CURVE.t_ns[0] - 1) is None


def test_temperatures_have_no_energy_and_no_value_where_nobody_looked() -> None:
    """A temperature gives no curve, and no value without a reading within five seconds."""
    heat = replace(COUNTER, kind=ReadingKind.TEMPERATURE_C, sampling=Sampling.SNAPSHOT, step=0.5)
    seen = Series(channel=heat, t_ns=(10 * S,), raw=(80,))
    with pytest.raises(ValueError, match="neither counter nor power"):
        curve_of(seen)
    assert (value_at(seen, 15 * S), value_at(seen, 5 * S)) == (40.0, 40.0)
    assert (value_at(seen, 15 * S + 1), value_at(Series(channel=heat, t_ns=(), raw=()), S)) == (None, None)


def test_a_single_reading_counts_nothing_and_says_nothing_of_noise() -> None:
    """One reading is no stretch: nothing is counted between it and itself, and no spread is known."""
    lone = Series(channel=COUNTER, t_ns=(S,), raw=(5,))
    assert counted(lone, 0, 2 * S) is None
    assert idle_spreads(curve_of(lone), COUNTER) == ()
