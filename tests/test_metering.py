"""Curves by hand: few readings each, at the edges where a wrap, a reset, a tick or a look begins to be another."""

import random
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import pytest

from joulebox.metering import (
    PLAUSIBLE_W,
    Curve,
    _turns,
    alternatives,
    counted,
    curve_of,
    headline,
    idle_spread,
    idle_spreads,
    value_at,
)
from joulebox.model import Channel, ReadingKind, Sampling, Series
from joulebox.units import nanoseconds
from traces import S, channel

JOULES = channel(step=1.0, tick_s=0.0)
WATTS = channel(kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, step=1.0, tick_s=1.0)
LOOKS = replace(WATTS, sampling=Sampling.SNAPSHOT)
FITTED_U = sqrt(876 / 5184)
"""The spread (k = 1) of a triangle of half width 1, taken at twelve places."""


def seen(one: Channel, times_s: Sequence[float], raw: Sequence[int]) -> Series:
    return Series(channel=one, t_ns=tuple(map(nanoseconds, times_s)), raw=tuple(raw))


def points(curve: Curve) -> list[tuple[float, float]]:
    return [(t_ns / S, total) for t_ns, total in zip(curve.t_ns, curve.total, strict=True)]


def line(*times_s: float, totals: Sequence[float] | None = None, **changes: object) -> Curve:
    given = totals if totals is not None else [10.0 * t_s for t_s in times_s]
    return Curve(tuple(map(nanoseconds, times_s)), tuple(given), **changes)  # type: ignore[arg-type]


# --- looking up -------------------------------------------------------------------------------------------------------


def test_nothing_is_known_outside_the_readings() -> None:
    """A curve without readings, and a moment before or after them, have no total, and the error says why."""
    for curve, t_ns in ((Curve((), ()), 0), (line(1, 2), S - 1), (line(1, 2), 2 * S + 1)):
        with pytest.raises(ValueError, match=r"^no reading on both sides of that moment$"):
            curve.at(t_ns)


def test_the_last_reading_before_the_first() -> None:
    """Before the first reading there is none; at it, it is the last so far."""
    curve = line(1, 2)
    assert [curve.last_at_or_before(t_ns) for t_ns in (S - 1, S, 2 * S - 1, 9 * S)] == [None, S, S, 2 * S]


@pytest.mark.parametrize(
    ("start_s", "end_s", "gap_s"),
    [(-1.0, 0.5, 5.0), (5.5, 5.8, 1.0), (6.5, 7.0, 2.0), (7.0, 9.0, 2.0), (5.0, 6.0, 1.0), (4.0, 9.0, 5.0)],
)
def test_gaps_by_hand(start_s: float, end_s: float, gap_s: float) -> None:
    """Of readings at 0, 5, 6 and 8 s only the stretches that a span touches count."""
    assert line(0, 5, 6, 8).gap_s(nanoseconds(start_s), nanoseconds(end_s)) == gap_s


def test_a_single_reading_has_no_gap() -> None:
    """Where there are no two readings there is no stretch between them."""
    assert line(1).gap_s(0, 2 * S) == 0.0


def test_doubts_at_both_ends_count() -> None:
    """What was lost in ticks from one moment to another counts, those at the moments too."""
    curve = line(0, 9, doubts=((1, 1.0), (2, 2.0), (3, 4.0)))
    assert [curve.doubt(1, 3), curve.doubt(2, 2), curve.doubt(4, 9)] == [7.0, 2.0, 0.0]


def test_values_near_a_moment() -> None:
    """The nearest reading within five seconds is taken, whichever side it is on, the first of two as near."""
    heat = replace(JOULES, kind=ReadingKind.TEMPERATURE_C, step=0.5)
    told = seen(heat, (10, 12, 20), (2, 4, 6))
    times_s = (5.0, 10.4, 11.0, 11.6, 12.5, 16.5, 25.0)
    assert [value_at(told, nanoseconds(t_s)) for t_s in times_s] == [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert [value_at(told, nanoseconds(t_s)) for t_s in (4.5, 25.5)] == [None, None]


# --- counters ---------------------------------------------------------------------------------------------------------


def test_neither_counter_nor_power() -> None:
    """A temperature has no curve, and the error names its channel."""
    heat = replace(LOOKS, name="t0", kind=ReadingKind.TEMPERATURE_C)
    with pytest.raises(ValueError, match=r"^channel t0 is neither counter nor power$"):
        curve_of(seen(heat, (0,), (1,)))


@pytest.mark.parametrize(
    ("times_s", "raw", "step", "resets_s"),
    [
        ((0, 1), (0, 20_000), 1.0, []),
        ((0, 1), (0, 20_001), 1.0, [1]),
        ((0, 1, 2, 3), (5, 5, 40_005, 80_005), 1.0, [3]),
        ((0.0, 0.001, 0.002), (0, 2, 5), 100.0, [0.002]),
        ((0, 1), (5, 4), 1.0, [1]),
    ],
    ids=["as much as any machine", "more", "made up for standing, once", "two steps at once, three", "back"],
)
def test_resets_by_hand(times_s: Sequence[float], raw: Sequence[int], step: float, resets_s: Sequence[float]) -> None:
    """A counter was reset where it jumps by more than 20 kW since it last moved, and by more than two steps."""
    assert curve_of(seen(replace(JOULES, step=step), times_s, raw)).resets_ns == tuple(map(nanoseconds, resets_s))


@pytest.mark.parametrize(
    ("times_s", "raw", "wraps"),
    [
        ((0, 1, 2), (0, 100, 100 + 1000 - 100_000), True),
        ((0, 1, 2), (0, 100, 100 + 1001 - 100_000), False),
        ((0, 2, 4), (0, 2000, 2000 + 8000 - 100_000), True),
        ((0, 2, 4), (0, 2000, 2000 + 8001 - 100_000), False),
        ((0, 1, 2), (50, 50, 50 + 40_000 - 100_000), True),
        ((0, 1, 2, 3), (0, 20_000, 20_100, 20_100 + 20_000 - 100_000), True),
        ((0, 1, 2, 3), (0, 20_001, 20_101, 20_101 + 1001 - 100_000), False),
        ((0, 1), (100_000, 0), True),
    ],
    ids=[
        "1 kW",
        "more",
        "four times what was seen",
        "more than that",
        "nothing seen",
        "20 kW seen",
        "20 kW left out",
        "its very end",
    ],
)
def test_wraps_by_hand(times_s: Sequence[float], raw: Sequence[int], wraps: bool) -> None:
    """A counter that goes back has wrapped where that means a kilowatt, or four times what it showed, at most."""
    shift = 100_000 - max(raw)
    one = seen(replace(JOULES, wrap_raw=100_000), times_s, [value + shift for value in raw])
    last_ns = one.t_ns[-1]
    assert (last_ns not in curve_of(one).resets_ns) is wraps


def test_a_step_is_power_however_small() -> None:
    """One step of 1000 J in a second is a kilowatt seen, so that five at a wrap were a reset."""
    one = replace(JOULES, step=1000.0, wrap_raw=100)
    assert curve_of(seen(one, (0, 1, 2), (98, 99, 4))).resets_ns == (2 * S,)
    assert curve_of(seen(one, (0, 1, 2), (98, 99, 3))).total == (0.0, 1000.0, 5000.0)


def test_a_counter_that_wraps_may_make_up_for_standing() -> None:
    """What goes forward is held against what any machine draws, not against what this one showed."""
    times_s, raw = (*range(3), *range(3, 12), 12), (0, 100, 200, *[200] * 9, 30_200)
    assert curve_of(seen(replace(JOULES, wrap_raw=10**6), times_s, raw)).resets_ns == ()


@pytest.mark.parametrize(
    ("tick_s", "lag_s", "raw", "waits_s", "kept"),
    [
        (0.01, 0.0, (0, 3, 6, 6, 9), 1.0, 4),
        (0.01, 0.0, (0, 2, 4, 4, 6), 1.0, 5),
        (0.0, 0.25, (0, 3, 6, 6, 9), 0.5, 5),
        (0.0, 0.25, (0, 3, 6, 6, 9), 0.6, 4),
    ],
    ids=["three steps", "two steps", "ticks and lags twice", "longer"],
)
def test_what_is_no_reading(tick_s: float, lag_s: float, raw: Sequence[int], waits_s: float, kept: int) -> None:
    """A fast counter that moves by three steps and then shows the same again, for longer than ticks and lags explain,
    was not read anew."""
    one = replace(JOULES, tick_s=tick_s, lag_s=lag_s)
    curve = curve_of(seen(one, [waits_s * place for place in range(5)], raw))
    assert len(curve.t_ns) == kept
    assert curve.slack_s == tick_s + lag_s


def test_a_coarse_counter_by_hand() -> None:
    """Of a counter that ticks slower than it is read only the ticks count: half a reading before each was seen, less
    its lag; too few lie on no line."""
    one = replace(JOULES, tick_s=2.0, lag_s=0.5)
    curve = curve_of(seen(one, (0, 1, 2, 3, 4, 5, 6), (9, 19, 19, 39, 39, 4, 4)))
    assert curve == Curve((0, 2 * S, 4 * S), (10.0, 30.0, 30.0), (5 * S,), blur_s=1.0, margin_s=0.25, stretch=None)


# --- powers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tick_s", "apart_s", "margin_s"),
    [(1.0, 0.8, 0.0), (1.0, 0.81, 0.405), (2.0, 1.0, 0.0), (0.5, 0.5, 0.25)],
    ids=["just often enough", "too seldom", "twice a tick", "once a tick"],
)
def test_moments_read_once_a_tick_are_not_known(tick_s: float, apart_s: float, margin_s: float) -> None:
    """Readings further apart than 0.8 ticks leave open by half of that when a tick was."""
    one = curve_of(seen(replace(WATTS, tick_s=tick_s), [apart_s * place for place in range(4)], (1, 2, 3, 4)))
    assert (one.margin_s, one.blur_s, one.stretch) == (margin_s, apart_s, None)


def test_a_power_that_never_changed_has_no_curve() -> None:
    """Nobody knows when a meter ticked that showed the same all the time."""
    assert curve_of(seen(WATTS, (0, 1, 2), (5, 5, 5))) == Curve((), ())


@pytest.mark.parametrize(
    ("times_s", "raw", "curve"),
    [
        ((0, 1, 3, 4, 5), (10, 10, 10, 10, 20), [(0.5, 0.0), (1.5, 10), (2.5, 20), (3.5, 30), (4.5, 50)]),
        ((0, 1, 4, 5, 6), (10, 10, 10, 20, 30), [(4.5, 0.0), (5.5, 30)]),
        ((0, 2, 2.5, 3, 3.5), (10, 20, 20, 30, 40), [(0.75, 0.0), (1.75, 20), (2.75, 50), (3.25, 70)]),
    ],
    ids=["a hole of two ticks", "a hole of three", "seen at once"],
)
def test_what_was_shown_before_the_first_change(
    times_s: Sequence[float], raw: Sequence[int], curve: Sequence[tuple[float, float]]
) -> None:
    """The first value had been shown since the first reading, or since the last hole of more than two ticks."""
    assert points(curve_of(seen(WATTS, times_s, raw))) == curve


def test_a_first_look_counts_to_the_second() -> None:
    """Of a meter that only looks the first value counts for half of the tick until the next."""
    told = seen(LOOKS, (0, 2, 2.5, 3, 3.5), (10, 20, 20, 30, 40))
    assert points(curve_of(told)) == [(0.75, 0.0), (1.75, 15.0), (2.75, 40.0), (3.25, 57.5)]


@pytest.mark.parametrize(("again", "doubts"), [(9, ((9, 5.0),)), (1, ((1, 7.0),))])
def test_a_value_shown_again_may_have_been_another(again: int, doubts: Sequence[tuple[int, float]]) -> None:
    """Where hardly any value is shown twice, one that is may hide a lost tick, worth what the next value differs by."""
    raw = [0, 3, 10, 11, 13, 14, 15, 16, 17, 18, 23]
    raw.insert(again + 1, raw[again])
    one = curve_of(seen(WATTS, range(12), raw))
    assert one.doubts == tuple((nanoseconds(at_s + 0.5), j) for at_s, j in doubts)


LOOKED = (50, 10, 12, 30, 12)


@pytest.mark.parametrize(
    ("raw", "change_s", "moved"),
    [
        (LOOKED, 2.7, {3: -2}),
        ((50, 10, 20, 30, 12), 3.0, {3: 1}),
        ((50, 10, 20, 30, 12), 2.7, {}),
        (LOOKED, 2.625, {3: -2}),
        (LOOKED, 2.624, {}),
        ((50, 10, 90), 1.75, {2: -2}),
        ((10, 20, 90), 2.75, {}),
        ((50, 45, 10), 1.0, {}),
    ],
    ids=[
        "with the one before",
        "with the one after",
        "as far from both",
        "just near enough",
        "too far",
        "second of three",
        "the last",
        "the first",
    ],
)
def test_looks_about_a_change(raw: Sequence[int], change_s: float, moved: dict[int, int]) -> None:
    """A look that may have been on either side of a change is put with the look that it is more alike; the first and
    the last stay, and what was seen around the change holds up to it."""
    times_s = [0.25 * place for place in range(4 * len(raw) + 4)]
    told = [raw[min(max(int(t_s) - 1, 0), len(raw) - 1)] for t_s in times_s]
    told[:4] = [raw[0] + 1] * 4
    curve = curve_of(seen(LOOKS, times_s, told), [nanoseconds(change_s)])
    looks_s = [number - 0.125 for number in range(1, len(raw) + 1)]
    expected = {nanoseconds(t_s) for t_s in looks_s}
    for number, by_ns in moved.items():
        expected -= {nanoseconds(number - 0.125)}
        expected |= {nanoseconds(change_s) + by_ns}
    assert expected <= set(curve.t_ns)


@pytest.mark.parametrize(("apart_s", "change_s"), [(0.5, 2.25), (1.0, 2.6)])
def test_of_several_looks_about_a_change_none_is_moved(apart_s: float, change_s: float) -> None:
    """Where more than one look may have been on either side of a change nobody knows which: they keep their order."""
    told = seen(LOOKS, [apart_s * place for place in range(round(7 / apart_s))], [0] * round(7 / apart_s))
    told = replace(told, raw=tuple((10, 11, 30, 31, 32, 33, 34)[t_ns // S] for t_ns in told.t_ns))
    curve = curve_of(told, [nanoseconds(change_s)])
    assert set(curve_of(told).t_ns) <= set(curve.t_ns)
    assert list(curve.t_ns) == sorted(set(curve.t_ns))


@pytest.mark.parametrize(
    ("changes_s", "curve"),
    [
        ((), [(0.875, 0.0), (1.875, 15.0), (2.875, 70.0)]),
        ((1.4,), [(0.875, 0.0), (1.399999999, 5.25), (1.4, 5.25), (1.875, 14.75), (2.875, 69.75)]),
        ((1.5, 1.3), [(0.875, 0.0), (1.299999999, 4.25), (1.3, 4.25), (1.875, 15.75), (2.875, 70.75)]),
        ((0.875000001,), [(0.875, 0.0), (1.875, 15.0), (2.875, 70.0)]),
        ((2.875,), [(0.875, 0.0), (1.875, 15.0), (2.875, 70.0)]),
        ((0.5, 3.5), [(0.875, 0.0), (1.875, 15.0), (2.875, 70.0)]),
        ((1.8,), [(0.875, 0.0), (1.799999998, 13.875), (1.799999999, 13.875), (1.8, 13.875), (2.875, 110.625)]),
    ],
    ids=["none", "between looks", "two at once", "just after a look", "at a look", "outside", "before its look"],
)
def test_looks_stretched_to_changes(changes_s: Sequence[float], curve: Sequence[tuple[float, float]]) -> None:
    """What was seen last before a change holds up to it, and what was seen first after it from it on."""
    times_s = [0.25 * place for place in range(15)]
    raw = [(11, 10, 20, 90)[int(t_s)] for t_s in times_s]
    found = points(curve_of(seen(LOOKS, times_s, raw), tuple(map(nanoseconds, changes_s))))
    assert [t_s for t_s, _ in found] == [t_s for t_s, _ in curve]
    assert [total for _, total in found] == pytest.approx([total for _, total in curve], abs=1e-6)


# --- ticks on a line --------------------------------------------------------------------------------------------------


def ticked(seen_s: Sequence[float], tick_s: float, apart_s: float) -> Curve:
    """A power that was read each `apart_s` and first showed another value at these moments."""
    count = round(seen_s[-1] / apart_s) + 1
    times_s = [apart_s * place for place in range(count)]
    raw = [sum(one <= t_s + apart_s / 9 for one in seen_s) for t_s in times_s]
    return curve_of(seen(replace(WATTS, tick_s=tick_s), times_s, raw))


@pytest.mark.parametrize(("tick_s", "apart_s"), [(1.0, 0.1), (12.0, 3.0), (0.5, 0.0625)])
def test_ticks_always_seen_as_late(tick_s: float, apart_s: float) -> None:
    """Eight steady ticks lie on a line; where in the readings' distance nobody knows, so their slope may be off by a
    seventh of it, and all of them by half of it."""
    curve = ticked([tick_s * number for number in range(1, 9)], tick_s, apart_s)
    moments_s = [tick_s * number - apart_s / 2 for number in range(1, 9)]
    assert [t_ns / S for t_ns in curve.t_ns[-8:]] == pytest.approx(moments_s)
    assert (curve.blur_s, curve.margin_s) == pytest.approx((apart_s / 4, apart_s / 2))
    assert curve.stretch == pytest.approx(apart_s / 7 * FITTED_U / tick_s)


@pytest.mark.parametrize(
    ("seen_s", "on_line"),
    [
        (range(1, 9), 8),
        (range(1, 8), None),
        ([1, 2, 3, 4.5, 5, 6, 7.5, 8, 9, 10], 8),
        ([1, 2, 3.5, 4, 5, 6.5, 7.5, 8, 9, 10.5, 11, 12], None),
        ([number + number % 2 * 0.3 for number in range(1, 11)], None),
        ([1.3 * number for number in range(1, 11)], None),
        ([1.1 * number for number in range(1, 11)], 10),
        ([2 * number for number in range(1, 9)], 8),
        ([1.15 * number for number in (1, 2, 3, 4, 9, 10, 11, 12, 13, 14)], 10),
    ],
    ids=[
        "eight",
        "seven",
        "a fifth late",
        "a third late",
        "one late, one not",
        "another tick",
        "a slower tick",
        "every other",
        "a hole",
    ],
)
def test_ticks_on_a_line(seen_s: Sequence[float], on_line: int | None) -> None:
    """Ticks lie on a line where there are eight, at most a fifth of them was seen late, and they come about as often as
    the meter says."""
    curve = ticked(seen_s, 1.0, 0.05)
    assert (curve.stretch is None) is (on_line is None)
    assert curve.blur_s == pytest.approx(0.05 if on_line is None else 2 * 0.05 / on_line)


def test_ticks_read_just_often_enough_lie_on_a_line() -> None:
    """Readings 0.8 ticks apart still show where the line is."""
    curve = ticked([0.8 * (number * 5 // 4 + 1) for number in range(12)], 1.0, 0.8)
    assert curve.stretch is not None


def test_late_ticks_are_put_where_they_were() -> None:
    """Ticks that were seen half a second late are taken to have been in time, by the line through the others."""
    curve = ticked([1, 2, 3, 4.5, 5, 6, 7.5, 8, 9, 10], 1.0, 0.05)
    assert [t_ns / S for t_ns in curve.t_ns[-10:]] == pytest.approx([number - 0.025 for number in range(1, 11)])
    assert curve.stretch == pytest.approx(0.05 / 9 * FITTED_U)


def test_ticks_seen_now_sooner_now_later() -> None:
    """Every other of eight ticks was seen 0.11 s later, though readings are 0.1 s apart: all lines that leave room for
    both are as likely, and their slopes a triangle with sides a fifth and a seventh of the room left."""
    first_s = [number + (number + 1) % 2 * 0.01 for number in range(1, 9)]
    times_s = [one_s + 0.1 * place for one_s in first_s for place in range(10)]
    raw = [number + (place > 0) if number % 2 else number + 1 for number in range(8) for place in range(10)]
    curve = curve_of(seen(WATTS, [0.9, *times_s], [0, *raw]))
    left_s = 0.11 * (1 - 2 / 42 + 6 * 2 / 42) + 0.1 / 8 - 0.11
    up, down = left_s / 5, left_s / 7
    every_s = 1 + (up - down) / 3
    assert curve.t_ns[-1] - curve.t_ns[-8] == pytest.approx(7 * every_s * S, rel=1e-4)
    assert curve.stretch == pytest.approx(sqrt((up**2 + down**2 + up * down) / 18) / every_s, rel=0.03)


@pytest.mark.parametrize(
    ("late_s", "tick_s", "turns"),
    [
        ((0.0, 1.0, 2.0), 1.0, [0, 1, 2]),
        ((0.0, 1.5, 3.0, 4.5, 7.7), 1.0, [0, 1, 3, 4, 7]),
        ((0.0, 0.5, 1.0, 1.5, 2.5), 1.0, [0, 1, 2, 3, 4]),
        ((0.0, 1.0, 2.8, 3.05, 4.0), 1.0, [0, 1, 2, 3, 4]),
        ((0.0, 1.0, 2.8, 3.05, 4.6), 1.0, [0, 1, 2, 3, 5]),
        ((0.0, 1.8, 2.05, 3.0), 1.0, [0, 1, 2, 3]),
        ((0.0, 1.0, 2.0, 2.2, 3.1), 1.0, [0, 1, 2, 3, 4]),
        ((0.0, 1.0, 4.0, 5.8, 6.0, 7.0), 1.0, [0, 1, 4, 5, 6, 7]),
    ],
)
def test_which_tick_was_seen(late_s: Sequence[float], tick_s: float, turns: list[int]) -> None:
    """Ticks are numbered from the first that was seen; one that was seen much too late gives way to the next."""
    assert _turns(late_s, tick_s) == turns


# --- what was counted -------------------------------------------------------------------------------------------------


def counter(raw: Sequence[int] = tuple(range(0, 110, 10)), apart_s: float = 1.0, **changes: object) -> Series:
    """Ten watts, read each second from 0 to 10 s."""
    one = replace(JOULES, **changes)  # type: ignore[arg-type]
    return seen(one, [apart_s * place for place in range(len(raw))], raw)


@pytest.mark.parametrize(
    ("told", "start_s", "end_s", "amount_j", "edge_j"),
    [
        (counter(), 2.0, 5.0, 30.0, 0.0),
        (counter(), -1.0, 11.0, 120.0, 20.0 / sqrt(3)),
        (counter(), 0.0, 12.0, 120.0, 20.0 / sqrt(3)),
        (counter(), -0.5, 12.0, None, None),
        (counter(), 10.0, 11.0, None, None),
        (counter(), 20.0, 21.0, None, None),
        (counter((0, 10)), 0.0, 1.0, 10.0, 0.0),
        (counter((0, 10)), 0.25, 1.0, 7.5, 0.0),
        (counter(apart_s=0.25), 0.0, 3.0, 120.0, 20.0 / sqrt(3)),
        (counter(apart_s=0.25), 0.0, 3.125, None, None),
        (counter(tick_s=0.0078125), 0.0, 12.03125, 120.3125, 20.3125 / sqrt(3) + 0.078125 / sqrt(6)),
        (counter(tick_s=0.0078125), 0.0, 12.032, None, None),
        (counter(tick_s=0.0078125, lag_s=0.0078125), 0.0, 12.0625, 120.625, 20.625 / sqrt(3) + 0.15625 / sqrt(6)),
        (counter((0, 10, 20, 5, 15)), 0.0, 3.0, None, None),
        (counter((0, 10, 20, 5, 15)), 3.0, 4.0, None, None),
        (counter((0, 10, 20, 5, 15)), 0.0, 2.0, 20.0, 0.0),
    ],
)
def test_counting_by_hand(
    told: Series, start_s: float, end_s: float, amount_j: float | None, edge_j: float | None
) -> None:
    """What lacks at the ends is taken at the mean power and is uncertain as a whole; more than four ticks and lags and
    two readings is not taken, nor is a stretch with a reset, or one that no reading is in."""
    found = counted(told, nanoseconds(start_s), nanoseconds(end_s))
    assert (found is None) is (amount_j is None)
    if found is not None:
        assert found.channel is told.channel
        assert (found.amount, found.edge) == pytest.approx((amount_j, edge_j))


@pytest.mark.parametrize(
    ("tick_s", "start_s", "end_s", "seen_w"),
    [(1.0, 1.5, 6.0, 50), (1.0, 2.25, 5.75, 30), (2.0, 3.0, 4.0, 10), (1.0, 3.1, 3.2, 0), (2.0, 2.0, 8.0, 60)],
    ids=["both ends", "within", "less than a tick", "no look inside", "longer ticks"],
)
def test_looks_leave_open_what_lies_between(tick_s: float, start_s: float, end_s: float, seen_w: float) -> None:
    """Between two looks the power may have been anything that was seen, for a tick each, and looks are independent."""
    times_s = [0.5 * place for place in range(24)]
    powers = [10 * int(t_s) for t_s in times_s]
    one = seen(replace(LOOKS, tick_s=tick_s), times_s, powers)
    found = counted(one, nanoseconds(start_s), nanoseconds(end_s))
    curve = curve_of(one)
    assert found is not None
    edge_s = curve.blur_s / sqrt(6) + curve.margin_s / sqrt(3)
    looks = max((end_s - start_s) / tick_s, 1.0)
    rest_j = found.edge - found.amount / (end_s - start_s) * edge_s
    assert rest_j == pytest.approx(tick_s * seen_w * sqrt(looks / 12))


def test_a_look_each_reading_leaves_nothing_open() -> None:
    """A power that says no tick is one that is as it is read."""
    one = seen(replace(LOOKS, tick_s=0.0), range(10), range(10))
    found = counted(one, 2 * S, 6 * S)
    assert found is not None
    assert found.edge == pytest.approx(found.amount / 4 * (1.0 / sqrt(6) + 0.5 / sqrt(3)))


def test_ticks_far_apart_are_found_to_within_a_look() -> None:
    """A counter that moves once an hour, looked at each millisecond around it, has moved when it did, within such a
    look: where the line can be no nearer to its edges than the digits of the clock, it is near enough."""
    hourly = channel(step=1.0, tick_s=3600.0)
    for seed in range(12):
        chance = random.Random(seed)
        looks = [(hour, place - chance.random()) for hour in range(12) for place in range(-3, 4)]
        times_s = [hour * 3600.0 + 1.0 + off / 1000 for hour, off in looks]
        curve = curve_of(seen(hourly, times_s, [hour + (off >= 0) for hour, off in looks]))
        assert [t_ns / S for t_ns in curve.t_ns] == pytest.approx(
            [3600.0 * hour + 1.0 for hour in range(12)], abs=0.001
        )


# --- idling -----------------------------------------------------------------------------------------------------------


def test_two_windows_are_a_spread() -> None:
    """Three seconds of idling hold two windows of a second after the first; fewer tell nothing."""
    curve = line(0, 1, 2, 3, totals=(0.0, 10.0, 22.0, 32.0))
    found = idle_spread(curve, JOULES, 1.0, 1.0, 0, 3 * S)
    assert found is not None
    assert (found.length_s, found.windows, found.rms_j) == (1.0, 2, 2.0)
    assert idle_spread(curve, JOULES, 1.0, 1.0, 0, 2 * S) is None


def test_no_record_no_spread() -> None:
    """Nothing is said of an idle record that begins after the last reading, or of a single one."""
    assert idle_spread(line(0, 1, 2, 3), JOULES, 1.0, 1.0, 4 * S, 9 * S) is None
    assert idle_spread(line(1), JOULES, 1.0, 1.0, 0, 9 * S) is None
    assert idle_spreads(Curve((), ()), JOULES) == ()


def test_a_record_with_a_hole_all_along_tells_nothing() -> None:
    """Where no reading has quiet before and a window behind it there is no spread, however long the record."""
    assert idle_spread(line(0, 0.5, 0.9, 20), JOULES, 1.0, 1.0, 0, 20 * S) is None


def test_a_long_record_is_tried_at_four_hundred_places() -> None:
    """Of 801 s with a window of one each other second is tried."""
    total, totals = 0.0, [0.0]
    for place in range(801):
        total += 4.0 if place % 4 > 1 else 0.0
        totals.append(total)
    found = idle_spread(line(*range(802), totals=totals), JOULES, 1.0, 1.0, 0, 801 * S)
    assert found is not None
    assert found.windows == 800
    assert found.rms_j in (0.0, 4.0)


# --- channels ---------------------------------------------------------------------------------------------------------


def test_plugs_of_one_kind_add_up() -> None:
    """Two plugs of one kind are one machine's two supplies, whatever their addresses; another kind says it again."""
    ours = [replace(JOULES, name=at, meter=f"plug:http://{at}:80", scope="wall") for at in "ab"]
    other = replace(JOULES, name="c", meter="bmc", scope="wall")
    assert alternatives([*ours, other]) == {"wall": [ours, [other]]}


def test_the_fastest_meter_is_watched() -> None:
    """Of two ways to the wall the one with the faster slowest tick is watched live, and busy cores only without any."""

    def plug(kind: str, tick_s: float) -> Channel:
        return replace(JOULES, name=f"{kind}{tick_s}", meter=f"{kind}:x", scope="wall", tick_s=tick_s)

    busy = replace(JOULES, kind=ReadingKind.BUSY_RATIO, scope="machine")
    heat = replace(JOULES, kind=ReadingKind.TEMPERATURE_C)
    slow, fast = [plug("a", 0.1), plug("a", 2.0)], [plug("b", 1.0)]
    for order in ([*slow, *fast], [*fast, *slow]):
        assert headline([busy, *order]) == fast
    assert headline([heat, busy]) == [busy]
    assert PLAUSIBLE_W == 20_000.0
