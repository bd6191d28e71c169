"""The estimator on curves so small that every figure can be worked out by hand: at its bounds, and between readings."""

from dataclasses import astuple, replace
from math import exp, log, sqrt

import pytest

from joulebox.accounting.energy import (
    TAIL_S,
    Estimate,
    Split,
    Window,
    Works,
    _faded,
    _steep,
    estimate,
    falls,
    glowing,
    lingering,
    rested_s,
    split,
    works,
)
from joulebox.metering import Curve
from traces import S

HALF_S = TAIL_S * log(2.0)
"""In this time a tail loses half of what it has."""
ANSWER = Window(start_ns=10 * S, end_ns=12 * S, guard_s=2.0, tick_s=1.0, lag_s=0.0, quiet_from_ns=0)
NOTHING = Estimate(
    answer=0.0,
    active=0.0,
    tail=0.0,
    idle_rate=0.0,
    after_rate=0.0,
    glow_rate=0.0,
    quiet_s=2.0,
    before_s=0.0,
    after_s=0.0,
    tail_s=3.0,
    fading=0.0,
    steep=1.0,
    late_s=0.0,
)


def curve(points: dict[float, float], **more: float) -> Curve:
    """Totals at moments in seconds."""
    return Curve(tuple(round(t_s * S) for t_s in points), tuple(points.values()), **more)  # type: ignore[arg-type]


def rising(rates: list[float], from_s: float = 0.0, **more: float) -> Curve:
    """A reading each second; between two of them one rate."""
    return curve({from_s + n: sum(rates[:n]) for n in range(len(rates) + 1)}, **more)


PLAIN = rising([10.0, 10.0, 50.0, 50.0, 20.0, 15.0, 10.0, 10.0], 8.0)


def test_an_answer_on_its_ticks() -> None:
    """At 10 W, twice a second of 50 W and then 20 and 15: all of it stands between ticks, nothing is taken out."""
    found = estimate(PLAIN, ANSWER)
    assert found is not None
    expected = replace(NOTHING, answer=100.0, active=80.0, tail=15.0, idle_rate=10.0, after_rate=20.0)
    assert replace(found, steep=1.0) == expected
    assert found.steep == pytest.approx(1 / TAIL_S / (1 - exp(-1 / TAIL_S)))


def test_an_answer_between_readings_of_a_fast_counter() -> None:
    """What lies between the answer and the readings around it is taken out at the rates of the guards, the lateness of
    the readings and half of what a tail fades by are put back, and of a guard that falls some was a tail."""
    h = HALF_S
    before_s, after_s = 10.0 - 0.25, 12.0 + h
    points = {
        before_s - 2 * h: 0.0,
        before_s - h: 12.0 * h,
        before_s: 20.0 * h,
        after_s: 20.0 * h + 100.0,
        after_s + h: 50.0 * h + 100.0,
        after_s + 2 * h: 60.0 * h + 100.0,
        after_s + 9.0: 999.0,
    }
    fast = curve(points, slack_s=0.02, margin_s=0.2)
    window = Window(
        start_ns=10 * S, end_ns=12 * S, guard_s=2 * h + 0.01, tick_s=0.1, lag_s=0.5, quiet_from_ns=fast.t_ns[0]
    )
    found = estimate(fast, window)
    assert found is not None
    glow_rate = (12.0 - 8.0) * 1.5 / 0.5 / 4  # half of the tail is left at the guard's middle
    idle_rate, late_s, fading = 10.0 - glow_rate, 0.1 / 2 + 0.5, 0.5  # a tail is twice as high over the first h
    answer = 100.0 - idle_rate * 0.25 - 30.0 * h + (30.0 - idle_rate) * (late_s - fading * h)
    tail_s = 3 * h
    expected = Estimate(
        answer=answer,
        active=answer - idle_rate * 2.0,
        tail=100.0 + 40.0 * h - idle_rate * 0.25 - answer - idle_rate * tail_s,
        idle_rate=idle_rate,
        after_rate=30.0,
        glow_rate=glow_rate,
        quiet_s=2 * h,
        before_s=0.25,
        after_s=h,
        tail_s=tail_s,
        fading=fading,
        steep=4 * log(2.0) * (exp(0.2 / sqrt(3) / TAIL_S) - 1) * TAIL_S * sqrt(3) / 0.2,
        late_s=late_s,
    )
    assert astuple(found) == pytest.approx(astuple(expected), abs=1e-7)


def test_a_guard_that_rises_glows_with_nothing() -> None:
    """Where the power rose before the answer no tail of other work is taken off."""
    found = estimate(rising([9.0, 11.0, 50.0, 50.0, 10.0, 10.0, 10.0], 8.0), ANSWER)
    assert found is not None
    assert (found.idle_rate, found.glow_rate) == (10.0, 0.0)


@pytest.mark.parametrize(
    ("quiet_from_s", "quiet_s"), [(0.0, 2.0), (8.0, 2.0), (8.5, 1.0), (9.0, 1.0), (9.5, 2.0), (10.0, 2.0), (99.0, 2.0)]
)
def test_the_guard_begins_after_other_work(quiet_from_s: float, quiet_s: float) -> None:
    """The guard reaches back to the end of other work, and over it only where nothing else would be left."""
    found = estimate(PLAIN, replace(ANSWER, quiet_from_ns=round(quiet_from_s * S)))
    assert found is not None
    assert found.quiet_s == quiet_s


@pytest.mark.parametrize(
    ("rates", "from_s", "known"),
    [
        ([10.0, 50.0, 50.0, 10.0], 9.0, True),
        ([50.0, 50.0, 10.0], 10.0, False),  # no stretch before
        ([10.0, 50.0, 50.0], 9.0, False),  # none after
        ([10.0, 50.0], 9.0, False),  # nothing after
        ([50.0, 10.0], 11.0, False),  # nothing before
        ([10.0] * 9, 0.0, False),  # long before
    ],
)
def test_a_stretch_on_either_side_is_needed(rates: list[float], from_s: float, known: bool) -> None:
    """There is an estimate where at least two readings lie on either side of the answer, and else none."""
    assert (estimate(rising(rates, from_s), ANSWER) is not None) == known


def test_a_guard_without_readings_tells_nothing() -> None:
    """Where the next reading lies beyond a guard, before the answer or after it, there is no estimate."""
    seldom = rising([30.0, 30.0, 30.0, 30.0, 30.0, 30.0], 9.0)
    assert estimate(seldom, replace(ANSWER, guard_s=0.5)) is None
    assert estimate(seldom, replace(ANSWER, guard_s=1.0)) is not None
    after = curve({8.0: 0.0, 9.0: 1.0, 10.0: 2.0, 12.0: 9.0, 14.5: 9.0})
    assert estimate(after, replace(ANSWER, guard_s=1.0)) is None
    assert estimate(after, replace(ANSWER, guard_s=1.0, lag_s=0.5)) is not None


@pytest.mark.parametrize(("tick_s", "rate"), [(0.0, 40.0), (0.1, 40.0), (0.11, 30.0), (2.0, 30.0), (2.5, 20.0)])
def test_the_power_after_is_that_of_a_tick_or_a_tenth_of_a_second(tick_s: float, rate: float) -> None:
    """The power after the answer is taken to the first reading a tick later, or to the last where there is none."""
    after = curve({8.0: 0.0, 9.0: 10.0, 10.0: 20.0, 12.0: 100.0, 12.1: 104.0, 14.0: 160.0, 16.0: 180.0})
    found = estimate(after, replace(ANSWER, tick_s=tick_s, guard_s=2.0))
    assert found is not None
    assert found.after_rate == pytest.approx(rate)


def test_a_fall_is_the_first_half_less_the_second() -> None:
    """How much a guard falls is told of what lies in the record, and of nothing else."""
    guard = rising([9.0, 7.0, 4.0, 3.0])
    fall = {end_s: falls(guard, end_s * S, 4.0) for end_s in (1, 2, 3, 4, 5)}
    assert fall == {1: 0.0, 2: 0.0, 3: 9.0 - 5.5, 4: 8.0 - 3.5, 5: 0.0}
    assert falls(guard, 4 * S, 2.0) == 1.0


def test_half_of_a_tail_is_taken_off() -> None:
    """A tail that halves within half a guard has three quarters of what the guard fell by in it, half of which fades
    for each half-life of rest before."""
    assert glowing(2 * HALF_S, 0.0) == glowing(2 * HALF_S, 2 * HALF_S) == pytest.approx(0.75)
    assert glowing(2 * HALF_S, 3 * HALF_S) == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("from_s", "rest_s"), [(0.0, 2.0), (8.0, 2.0), (8.5, 1.0), (10.0, 0.0), (11.5, 0.0), (99, 0.0)]
)
def test_rest_is_what_readings_saw_of_it(from_s: float, rest_s: float) -> None:
    """A machine rested from the first reading after other work to the answer; never for less than no time."""
    assert rested_s(PLAIN, replace(ANSWER, quiet_from_ns=round(from_s * S)), 10 * S) == rest_s


def test_a_tail_was_higher_before() -> None:
    """A tail that halves over each stretch was twice as high in the one before; at its beginning still higher."""
    h = HALF_S
    assert (_faded(0.0, h), _faded(h, h), _faded(1e-9, h)) == pytest.approx((0.0, 1.0, 2 * log(2.0) - 1))
    found = (_steep(0.0, h), _steep(h, h), _steep(0.0, h, h), _steep(h, 2 * h))
    assert found == pytest.approx((2 * log(2.0), 4 * log(2.0), 2.0, 16 / 3 * log(2.0)))


LATE = [10.0, 10.0, 10.0, 50.0, 50.0]
"""Up to the end of an answer from 10 s to 12 s, a second behind."""


@pytest.mark.parametrize(
    ("then", "ticks"),
    [
        ([10.0, 10.0], 0),
        ([39.0, 10.0, 10.0], 0),
        ([40.0, 39.0, 10.0], 1),
        ([50.0, 50.0, 50.0, 10.0, 10.0], 3),
        ([50.0, 50.0, 50.0], 0),  # never fell: it works on
        ([50.0, 10.0], 1),
    ],
)
def test_work_shown_after_its_end_may_be_the_answers(then: list[float], ticks: int) -> None:
    """Of each tick after the end in which a slow meter still showed three quarters of the work, all may be lacking."""
    slow = rising(LATE + then, 7.0)
    assert lingering(slow, ANSWER, replace(NOTHING, active=80.0, idle_rate=10.0)) == ticks * 50.0


def test_the_smaller_of_two_rises_counts_as_the_work() -> None:
    """What is three quarters of the work is judged by the answer's mean or its last tick, whichever rose less."""
    slow = rising([*LATE, 26.0, 24.0, 10.0], 7.0)
    assert lingering(slow, ANSWER, replace(NOTHING, active=40.0, idle_rate=10.0)) == 50.0
    assert lingering(slow, ANSWER, replace(NOTHING, active=44.0, idle_rate=10.0)) == 0.0
    assert lingering(slow, ANSWER, replace(NOTHING, active=200.0, idle_rate=30.0)) == 0.0
    high = rising([*LATE, 45.0, 44.0, 10.0], 7.0)
    assert lingering(high, ANSWER, replace(NOTHING, active=200.0, idle_rate=30.0)) == 50.0


def test_quick_ticks_linger_less() -> None:
    """Of an answer of one second a meter that ticks twice a second may lack half a second for each tick."""
    slow = curve({8.0: 0.0, 10.0: 20.0, 10.5: 25.0, 11.0: 50.0, 11.5: 75.0, 12.0: 80.0, 12.5: 85.0})
    window = replace(ANSWER, end_ns=11 * S, tick_s=0.5)
    assert lingering(slow, window, replace(NOTHING, active=40.0, idle_rate=10.0)) == 25.0


def test_the_last_tick_of_a_record_may_be_half_a_tick() -> None:
    """Half a tick at the record's end tells whether the work is over, less of it does not."""
    found = replace(NOTHING, active=80.0, idle_rate=10.0)
    totals = {9.0: 0.0, 10.0: 10.0, 11.0: 60.0, 12.0: 110.0, 13.0: 160.0}
    assert lingering(curve({**totals, 13.6: 166.0}), ANSWER, found) == 50.0
    assert lingering(curve({**totals, 13.5: 165.0}), ANSWER, found) == 0.0


@pytest.mark.parametrize(
    ("window", "fast", "more", "lacks"),
    [
        (ANSWER, 0.0, {}, 50.0),
        (replace(ANSWER, tick_s=0.0), 0.0, {}, 0.0),  # a meter without ticks
        (ANSWER, 0.1, {}, 0.0),  # a fast one
        (replace(ANSWER, start_ns=10 * S + 1), 0.0, {}, 0.0),  # less than two ticks
        (replace(ANSWER, start_ns=7 * S), 0.0, {}, 50.0),
        (ANSWER, 0.0, {"active": 0.0}, 0.0),
        (ANSWER, 0.0, {"active": -1.0}, 0.0),
        (ANSWER, 0.0, {"active": 1.0}, 50.0),
        (ANSWER, 0.0, {"idle_rate": 50.0}, 0.0),  # no work in its last tick
        (ANSWER, 0.0, {"idle_rate": 51.0}, 0.0),
    ],
)
def test_nothing_lingers_in_a_meter_that_cannot_be_late(
    window: Window, fast: float, more: dict[str, float], lacks: float
) -> None:
    """A fast counter, an answer shorter than two ticks, and one that rose by nothing lack nothing."""
    late = replace(rising([*LATE, 50.0, 9.0, 9.0], 7.0), slack_s=fast)
    assert lingering(late, window, replace(NOTHING, **({"active": 80.0, "idle_rate": 10.0} | more))) == lacks


CUT = curve({9.0: 0.0, 11.0: 67.5, 12.0: 112.5, 14.0: 190.0}, margin_s=0.5)
CUT_IN = Window(start_ns=10 * S, end_ns=15 * S, guard_s=2.0, tick_s=0.4, lag_s=0.1, quiet_from_ns=0)
CUT_OF = replace(NOTHING, answer=200.0, idle_rate=10.0, after_rate=20.0, before_s=1.0, late_s=0.25)


def test_between_two_readings_each_phase_draws_as_in_the_rest_of_its_time() -> None:
    """An answer of 195 J if the ticks were half a second later: 40 W until the reading before its first token, 36 W
    from the one after it, and the 8 J that this leaves are shared as the time between the two readings is."""
    found = split(CUT, CUT_IN, CUT_OF, round(11.75 * S), 0.5)
    assert found == Split(prefill=82.0, decode=113.0, cut_rate=40.0, gap_s=0.25 * 0.75)


BRIEF = curve({9.0: 0.0, 11.0: 72.5, 12.0: 112.5, 14.0: 190.0}, margin_s=0.5)


@pytest.mark.parametrize(
    ("first_s", "start_s", "end_s", "expected"),
    [
        (11.0, 9.5, 13.0, Split(prefill=70.0, decode=130.0, cut_rate=40.0, gap_s=0.0)),  # with a reading: no guess
        (11.75, 9.5, 13.0, Split(prefill=100.0, decode=100.0, cut_rate=40.0, gap_s=0.75)),
        (11.75, 10.0, 16.0, Split(prefill=100.0, decode=100.0, cut_rate=25.0, gap_s=0.25)),
        (11.75, 10.0, 13.0, None),
        (11.75, 9.4, 16.0, None),  # begins before the margin of the first reading
        (14.5, 10.0, 16.0, None),  # no reading after the first token
        (8.5, 10.0, 16.0, None),  # none before it
    ],
)
def test_a_phase_too_short_to_tell_draws_as_the_other(
    first_s: float, start_s: float, end_s: float, expected: Split | None
) -> None:
    """Where less than two margins of a phase lie outside the two readings around the first token, the other phase's
    power is taken up to the token; where that holds for both, they are not told apart."""
    window = replace(CUT_IN, start_ns=round(start_s * S), end_ns=round(end_s * S))
    assert split(BRIEF, window, CUT_OF, round(first_s * S)) == expected


def test_half_a_tick_may_be_too_short_as_well() -> None:
    """Behind slow ticks a phase needs more than half a tick beside the cut."""
    sharp, window = replace(BRIEF, margin_s=0.0), replace(CUT_IN, end_ns=16 * S)
    rates = []
    for tick_s in (1.99, 2.0, 7.99, 8.0):
        found = split(sharp, replace(window, tick_s=tick_s), CUT_OF, round(11.75 * S))
        rates.append(found.cut_rate if found else None)
    assert rates == [60.0, 25.0, 25.0, None]


def test_a_decode_that_drew_nothing_leaves_all_to_the_prefill() -> None:
    """A power of nothing after the cut is a power like any other."""
    found = split(BRIEF, replace(CUT_IN, end_ns=16 * S), replace(CUT_OF, answer=100.0), round(11.75 * S))
    assert found == Split(prefill=100.0, decode=0.0, cut_rate=0.0, gap_s=0.25)


UNEVEN = rising([9.0, 4.0, 6.0, 5.0, 8.0, 1.0, 4.0, 7.0], 9.0)


@pytest.mark.parametrize(
    ("seen", "first_s", "expected"),
    [
        # 4, 6, 5 in the prefill and 1, 4 in the decode: 2, 1 and 3 from one to the next
        (UNEVEN, 14.0, Works(lasted_s=(4.0, 3.0), unseen_s=(0.0, 0.0), uneven_rate=sqrt(7 / 3), freedom=3)),
        (UNEVEN, None, Works(lasted_s=(7.0, 0.0), unseen_s=(0.0, 0.0), uneven_rate=sqrt(72 / 10), freedom=5)),
        (UNEVEN, 11.0, Works(lasted_s=(1.0, 6.0), unseen_s=(1.0, 0.0), uneven_rate=sqrt(68 / 8), freedom=4)),
        (
            curve({9.0: 0.0, 18.0: 9.0}),
            14.0,
            Works(lasted_s=(4.0, 3.0), unseen_s=(4.0, 3.0), uneven_rate=None, freedom=0),
        ),
        # two looks inside a phase and none at its edges: one rate, and no step
        (
            curve({9.0: 0.0, 11.0: 1.0, 12.0: 3.0, 18.0: 9.0}),
            14.0,
            Works(lasted_s=(4.0, 3.0), unseen_s=(0.0, 3.0), uneven_rate=None, freedom=1),
        ),
        # a look that was put two nanoseconds before a phase's end belongs to it
        (
            curve({9.0: 0.0, 12.0: 2.0, 14.0 - 2e-9: 8.0, 14.0: 8.0, 17.0: 9.0}),
            14.0,
            Works(lasted_s=(4.0, 3.0), unseen_s=(0.0, 3.0), uneven_rate=None, freedom=1),
        ),
        # what is put at a phase's very edges was not looked at
        (
            curve({10.0: 0.0, 12.0: 2.0, 14.0 - 1e-9: 8.0, 14.0: 8.0, 15.0: 9.0, 17.0 - 1e-9: 9.0}),
            14.0,
            Works(lasted_s=(4.0, 3.0), unseen_s=(0.0, 0.0), uneven_rate=None, freedom=0),
        ),
        (
            curve({10.0: 0.0, 12.0: 2.0, 14.0 - 1e-9: 8.0, 14.0: 8.0, 15.0: 9.0, 16.0: 9.0, 17.0 - 1e-9: 9.0}),
            14.0,
            Works(lasted_s=(4.0, 3.0), unseen_s=(0.0, 0.0), uneven_rate=sqrt(2.5 / 3), freedom=1),
        ),
    ],
)
def test_steadiness_is_told_within_each_phase(seen: Curve, first_s: float | None, expected: Works) -> None:
    """How a power differs from one reading to the next is told of each phase by itself, as far as one was seen."""
    found = works(seen, replace(ANSWER, end_ns=17 * S), None if first_s is None else round(first_s * S))
    assert astuple(found) == (*astuple(expected)[:2], pytest.approx(expected.uneven_rate), expected.freedom)
    assert found.duration_s == 7.0
