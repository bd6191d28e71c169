"""What each part of an interval is worth, worked out by hand: ticks, edges, looks, steps, and an idle one's noise."""

from dataclasses import astuple, replace
from math import exp, hypot, sqrt
from typing import Any

import pytest

from joulebox.accounting.energy import TAIL_S, Estimate, Split, Window, Works
from joulebox.accounting.uncertainty import (
    BOUND,
    Noise,
    _doubt_s,
    _resolution,
    _ticking,
    _uneven,
    _widened,
    between_snapshots,
    boundary,
    cutting,
    noise,
)
from joulebox.metering import Curve, idle_spread
from joulebox.model import Channel, IdleSpread, ReadingKind, Sampling
from test_estimator import curve
from traces import S, channel

FOUND = Estimate(
    answer=100.0,
    active=-40.0,
    tail=9.0,
    idle_rate=30.0,
    after_rate=40.0,
    glow_rate=0.0,
    quiet_s=2.0,
    before_s=0.5,
    after_s=0.75,
    tail_s=1.0,
    fading=0.25,
    steep=2.0,
    late_s=0.0,
)
WORKS = Works(lasted_s=(1.0, 3.0), unseen_s=(0.0, 0.0), uneven_rate=None, freedom=0)
COUNTER = channel(step=0.6, tick_s=0.2, lag_s=0.4)
LINED = Curve((), (), blur_s=0.3, margin_s=0.1, stretch=0.01)
LOOSE = Curve((), (), blur_s=0.3, margin_s=0.1)
FAST = Curve((), (), slack_s=0.02, blur_s=0.3, margin_s=0.1)


def power(sampling: Sampling, **changes: Any) -> Channel:
    """A channel of watts."""
    return replace(COUNTER, kind=ReadingKind.POWER_W, sampling=sampling, **changes)


def test_the_edges_of_an_answer() -> None:
    """Over 0.75 s 10 W and noise of 10 J fade by a quarter, a millisecond of 25 W instead of 40 W may be the engine's,
    and a power that was twice 10 W as high at the end may lie a tenth of a second earlier."""
    parts = boundary(COUNTER, LINED, FOUND, WORKS, 10.0)
    assert parts.pop("tick") == _ticking(COUNTER, LINED, FOUND, 4.0)
    assert parts.pop("resolution") == _resolution(COUNTER, WORKS)
    assert list(parts) == ["guards", "stamps", "lag"]
    expected = (12.5 * 0.25 * BOUND, 15.0 * 0.001 / sqrt(3), 20.0 * 0.1 / sqrt(3))
    assert tuple(parts.values()) == pytest.approx(expected)
    falling = boundary(COUNTER, LINED, replace(FOUND, after_rate=20.0), WORKS, 10.0)
    assert (falling["guards"], falling["stamps"]) == pytest.approx((expected[0], 5.0 * 0.001 / sqrt(3)))
    assert falling["lag"] == pytest.approx(expected[2])
    assert "lag" not in boundary(COUNTER, replace(LINED, margin_s=0.0), FOUND, WORKS, 10.0)


def test_only_looks_leave_open_what_lay_between_them() -> None:
    """What the machine drew between looks is part of an interval where there were looks."""
    looks = power(Sampling.SNAPSHOT)
    assert boundary(looks, LINED, FOUND, WORKS, 0.0)["snapshots"] == between_snapshots(looks, FOUND, WORKS)
    assert "snapshots" not in boundary(power(Sampling.MEAN), LINED, FOUND, WORKS, 0.0)


def test_a_lag_is_half_trusted_where_no_margin_says_so() -> None:
    """Of a fast counter's lag half is in doubt, of a slow one's as much as its ticks leave."""
    assert (_doubt_s(COUNTER, FAST), _doubt_s(COUNTER, LINED)) == (0.2, 0.1)


@pytest.mark.parametrize(
    ("sampling", "seen", "j"),
    [
        (Sampling.COUNTER, FAST, 0.2 * 50.0 / sqrt(12)),
        (Sampling.COUNTER, LOOSE, 0.3 * 50.0 / sqrt(12)),
        (Sampling.COUNTER, LINED, hypot(10.0 * 2.0 * 0.3 / sqrt(3), 0.01 * 30.0 * 5.25)),
        (Sampling.MEAN, LINED, hypot(10.0 * 2.0 * 0.3 / sqrt(3), 0.01 * 40.0)),
        (Sampling.SNAPSHOT, LINED, 10.0 * 2.0 * 0.3 / sqrt(3)),
    ],
)
def test_what_ticks_leave_open(sampling: Sampling, seen: Curve, j: float) -> None:
    """Loose ticks are off at either end, those on a line together and by their line's slope."""
    assert _ticking(replace(COUNTER, sampling=sampling), seen, FOUND, 4.0) == pytest.approx(j)


@pytest.mark.parametrize(
    ("sampling", "seen", "tick_j"),
    [
        (Sampling.SNAPSHOT, LINED, 0.0),
        (Sampling.COUNTER, FAST, 0.2 * hypot(96.0, 40.0) / sqrt(12)),
        (Sampling.COUNTER, LOOSE, 0.3 * 104.0 / sqrt(12)),
        (Sampling.MEAN, LINED, hypot(56.0 * 0.3 / sqrt(3), 0.01 * 96.0 * 4.0)),
    ],
)
def test_what_a_cut_leaves_open(sampling: Sampling, seen: Curve, tick_j: float) -> None:
    """Ticks and lag move the cut, and over the gap around it three tenths of the rise may have come and gone."""
    cut = Split(prefill=0.0, decode=0.0, cut_rate=96.0, gap_s=0.5)
    parts = cutting(replace(COUNTER, sampling=sampling), seen, FOUND, WORKS, cut, -6.0)
    assert parts == pytest.approx({"tick": tick_j, "lag": sqrt(3), "cut": 0.3 * 10.0 * 0.5})


def test_what_was_seen_to_be_uneven_is_so_around_the_cut() -> None:
    """A machine seen to be steadier than is assumed leaves less open, however few looks widen that."""
    cut = Split(prefill=0.0, decode=0.0, cut_rate=96.0, gap_s=0.5)
    steady = replace(WORKS, uneven_rate=1.0, freedom=3)
    assert cutting(COUNTER, LINED, FOUND, steady, cut, 0.0)["cut"] == pytest.approx(3.18 / 2 * 0.5)
    assert [_uneven(replace(steady, freedom=n), 2.0) for n in (1, 2, 18, 19)] == [2.0, 2.0, 1.05, 1.0]


@pytest.mark.parametrize(
    ("uneven_rate", "same_s"), [(None, 4.0), (0.29, 4.0), (0.3, 0.2), (0.31, 0.2), (9.0, 0.2), (0.1, 4.0)]
)
def test_a_step_that_always_rounds_the_same_leaves_most_open(uneven_rate: float | None, same_s: float) -> None:
    """A power that differs by less than half a step is rounded the same all the time, else each tick anew."""
    seen = replace(WORKS, uneven_rate=uneven_rate)
    assert _resolution(power(Sampling.MEAN), seen) == pytest.approx(0.6 * sqrt(same_s * 4.0 / 12))
    assert _resolution(COUNTER, seen) == 0.6 / sqrt(6)


def test_no_rounding_lasts_longer_than_the_answer() -> None:
    """Behind a tick longer than the answer one rounding lasts as long as the answer."""
    seen = replace(WORKS, uneven_rate=0.5)
    assert _resolution(power(Sampling.MEAN, tick_s=9.0), seen) == pytest.approx(0.6 * 4.0 / sqrt(12))


@pytest.mark.parametrize(
    ("phases", "unseen_s", "uneven_rate", "between_j", "unseen_j"),
    [
        ((0, 1), (0.0, 0.0), None, 1.5 * sqrt(4.0 * 0.2), 0.0),
        ((0, 1), (0.0, 0.0), 0.25, 2 * 0.25 * sqrt(4.0 * 0.2), 0.0),
        ((0, 1), (0.0, 0.0), 2.0, 1.5 * sqrt(4.0 * 0.2), 0.0),
        ((0, 1), (1.0, 0.0), None, 1.5 * sqrt(3.0 * 0.2), 5.0),
        ((0,), (1.0, 0.0), None, 0.0, 5.0),
        ((1,), (1.0, 0.0), None, 1.5 * sqrt(3.0 * 0.2), 0.0),
        ((0, 1), (1.0, 3.0), None, 0.0, 20.0),
        ((0,), (1.1, 0.0), None, 0.0, 5.5),
    ],
)
def test_what_lies_between_looks(
    phases: tuple[int, ...], unseen_s: tuple[float, float], uneven_rate: float | None, between_j: float, unseen_j: float
) -> None:
    """A rise of 10 W differs by 1.5 W from look to look, or by twice what was seen, and by half of itself in a phase
    that no look fell into."""
    seen = replace(WORKS, unseen_s=unseen_s, uneven_rate=uneven_rate, freedom=30)
    found = between_snapshots(power(Sampling.SNAPSHOT), FOUND, seen, phases)
    assert found == pytest.approx(hypot(between_j, unseen_j))


WINDOW = Window(start_ns=10 * S, end_ns=12 * S, guard_s=2.0, tick_s=1.0, lag_s=0.0, quiet_from_ns=round(7.5 * S))
QUIET = replace(FOUND, idle_rate=-10.0, tail_s=1.0, before_s=0.5, after_s=0.75)
METER = power(Sampling.MEAN, tick_s=1.0)
HALF_GLOWS = (1 + exp(-1 / TAIL_S)) / (1 - exp(-1 / TAIL_S)) / 4
"""Of a guard of 2 s behind nothing else."""


FALLING = curve({7.5: 0.0, 8.0: 6.0, 8.5: 12.0, 9.0: 16.0, 9.5: 20.0, 12.0: 45.0})
"""12 W over the first half of the guard, 8 W over the second."""
RISING = curve({7.5: 0.0, 8.0: 4.0, 8.5: 8.0, 9.0: 14.0, 9.5: 20.0, 12.0: 45.0})
EVEN = curve({7.5: 0.0, 8.0: 5.0, 8.5: 10.0, 9.0: 15.0, 9.5: 20.0, 12.0: 45.0})


def spreads(guard_s: float, power_of_length: float) -> list[IdleSpread]:
    """Spreads of 1 J at 1 s, between that and 4 s by a power of the length."""
    return [
        IdleSpread(guard_s=guard_s, length_s=length_s, rms_j=length_s**power_of_length, windows=20)
        for length_s in (1.0, 4.0)
    ]


@pytest.mark.parametrize(("bends", "tail_j"), [(0.5, 1.0), (2.0, 3.0)])
def test_noise_of_a_calibration(bends: float, tail_j: float) -> None:
    """Where the record is too short the calibration's spread of the guard's length counts, at each stretch's own
    length, and what the noise makes of a fall in the guard."""
    known = [*spreads(2.0, bends), *spreads(1.0, 1.0), *(replace(one, rms_j=99.0) for one in spreads(4.0, 1.0))]
    glow_w = hypot(BOUND * 0.8, 1.0 * HALF_GLOWS / BOUND)
    found = noise(METER, FALLING, WINDOW, replace(QUIET, glow_rate=0.8), known)
    expected = Noise(
        before=hypot(0.5, glow_w * 0.5),
        after=0.75 * 1.25,
        active=hypot(2.5**bends, glow_w * 2.5),
        tail=hypot(tail_j, glow_w * 1.0),
    )
    assert astuple(found) == pytest.approx(astuple(expected))


@pytest.mark.parametrize(
    ("guard_s", "alike"), [(1.0, False), (1.01, True), (2.5, True), (2.99, True), (3.0, False), (9.0, False)]
)
def test_a_calibration_with_a_guard_half_as_long_or_longer_by_half_tells_nothing(guard_s: float, alike: bool) -> None:
    """A spread counts where its guard was nearly as long; without one the machine may have idled at anything."""
    known = spreads(guard_s, 1.0)
    found = noise(METER, FALLING, WINDOW, QUIET, known)
    rate_w = 1.0 if alike else 10.0 / sqrt(3)
    glow_w = (1.0 if alike else 4.0) * HALF_GLOWS / BOUND
    assert found.active == pytest.approx(hypot(rate_w, glow_w) * 2.5)


@pytest.mark.parametrize(("seen", "restless_w"), [(FALLING, 4.0), (RISING, 4.0), (EVEN, 0.2)])
def test_noise_of_a_machine_never_watched(seen: Curve, restless_w: float) -> None:
    """Without record and calibration the idle power is taken to come and go as far as the guard fell, or a fiftieth of
    itself, and over the answer and the tail to be anything."""
    found = noise(METER, seen, WINDOW, QUIET, [])
    glow_w = restless_w * HALF_GLOWS / BOUND
    assert astuple(found) == pytest.approx(
        (
            hypot(restless_w, glow_w) * 0.5,
            restless_w * 0.75 * 1.25,
            hypot(10.0 / sqrt(3), glow_w) * 2.5,
            hypot(10.0 / sqrt(3), glow_w) * 1.0,
        )
    )


def test_a_tail_on_little_idling_is_not_widened_by_a_fall() -> None:
    """Over the tail as over the answer what is not known is the idle power, however the guard before fell."""
    glow_w = 4.0 * HALF_GLOWS / BOUND
    found = noise(METER, FALLING, WINDOW, replace(QUIET, idle_rate=1.0), [])
    assert (found.tail, found.active) == pytest.approx((hypot(1 / sqrt(3), glow_w), hypot(1 / sqrt(3), glow_w) * 2.5))


RECORD = curve({n / 10: n + (n * 7 % 5) * 0.3 for n in range(121)})
"""An idle machine at 10 W and less or more, read ten times a second."""


def spread_j(meter: Channel, quiet_s: float, length_s: float, from_s: float) -> float:
    """What the record alone says of it, up to half a second before the answer."""
    own = idle_spread(RECORD, meter, quiet_s, length_s, round(from_s * S), round(9.5 * S))
    assert own is not None
    return own.rms_j * length_s / own.length_s * _widened(own.windows)


def test_noise_of_the_record_itself() -> None:
    """A record that is long enough tells the noise from the end of other work to the last reading before the answer."""
    meter, since = replace(METER, tick_s=0.1), replace(WINDOW, quiet_from_ns=S)
    found = noise(meter, RECORD, since, QUIET, [])
    noise_w = spread_j(meter, 2.0, 1.0, 1.0) * HALF_GLOWS * exp(-6.5 / TAIL_S) / BOUND
    assert found.before == pytest.approx(hypot(spread_j(meter, 2.0, 0.5, 1.0), noise_w * 0.5))
    assert found.after == pytest.approx(spread_j(meter, 0.1, 0.75, 1.0) * 1.25)
    assert found.active == pytest.approx(hypot(spread_j(meter, 2.0, 2.5, 1.0), noise_w * 2.5))
    tail_j = max(spread_j(meter, 2.0, 1.0, 1.0), spread_j(meter, 2.0, 3.0, 1.0) / 3)
    assert found.tail == pytest.approx(hypot(tail_j, noise_w))


def test_a_shorter_guard_tells_what_it_can() -> None:
    """Where the record holds but one guard, a quarter of it stands for the guard, unless more is known."""
    meter = replace(METER, tick_s=0.1)
    found = noise(meter, RECORD, WINDOW, QUIET, [])
    noise_w = spread_j(meter, 0.5, 1.0, 7.5) * HALF_GLOWS / BOUND
    assert found.before == pytest.approx(hypot(spread_j(meter, 0.5, 0.5, 7.5), noise_w * 0.5))
    assert found.active == pytest.approx(hypot(10.0 / sqrt(3), noise_w) * 2.5)
    assert noise(meter, RECORD, WINDOW, QUIET, spreads(2.0, 1.0)).before == pytest.approx(
        hypot(0.5, HALF_GLOWS / BOUND * 0.5)
    )
