"""Where the limits lie beyond which readings are none: each told just beyond its limit, and not at it."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import pytest

from by_hand import curve, metered, readings
from joulebox.accounting.readings import around_ns, hasty, hole, late, skipped, stands
from joulebox.model import ReadingKind, Sampling
from traces import S, channel

COUNTER = channel("c", tick_s=0.001)
PLUG = channel("p", "wall", sampling=Sampling.COUNTER, tick_s=1.0, step=1.0)
MEAN = channel("m", "wall", kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, tick_s=1.0, step=1.0)


def every(period_s: float, from_s: float, until_s: float) -> list[float]:
    """Moments at even distances, both ends included."""
    return [from_s + n * period_s for n in range(round((until_s - from_s) / period_s) + 1)]


def without(times_s: Sequence[float], from_s: float, until_s: float) -> list[float]:
    """The moments but those between two, which stay."""
    return [t_s for t_s in times_s if not from_s < t_s < until_s]


def test_around_an_answer() -> None:
    """What is looked at reaches from the start of the guard before to the end of the guard after."""
    assert around_ns(metered(COUNTER, guard_s=1.5)) == (8.5 * S, 15.5 * S)


# --- holes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period_s", "from_s", "until_s", "told_s"),
    [
        (0.125, 11.0, 12.25, None),
        (0.125, 11.0, 12.375, "1.4"),
        (0.0625, 11.0, 12.0, None),
        (0.0625, 11.0, 12.0625, "1.1"),
        (0.125, 7.0, 9.0, None),
        (0.125, 7.0, 9.125, "2.1"),
        (0.125, 15.0, 17.0, None),
        (0.125, 14.875, 17.0, "2.1"),
        (0.125, 0.0, 11.0, "11.0"),
        (0.125, 12.0, 20.0, "8.0"),
    ],
)
def test_a_hole_in_a_counter(period_s: float, from_s: float, until_s: float, told_s: str | None) -> None:
    """A counter's hole is told beyond ten usual distances and a second, where it reaches into the guards."""
    series = readings(COUNTER, times := without(every(period_s, 0.0, 20.0), from_s, until_s), range(len(times)))
    assert hole(metered(COUNTER), series) == (told_s and f"{told_s} s without a reading of c")


@pytest.mark.parametrize(
    ("period_s", "until_s", "told_s"), [(0.1, 11.5, None), (0.1, 11.6, "0.6"), (0.5, 12.0, None), (0.5, 12.5, "1.5")]
)
def test_a_hole_in_a_power(period_s: float, until_s: float, told_s: str | None) -> None:
    """A power's hole is told beyond a tick and a tenth, and beyond two and a half of the usual distances."""
    one = channel("m", kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, tick_s=0.5)
    series = readings(one, times := without(every(period_s, 0.0, 20.0), 11.0, until_s), range(len(times)))
    assert hole(metered(one), series) == (told_s and f"{told_s} s without a reading of m")


def test_sparse_readings_of_a_power() -> None:
    """What is usual may be longer than a tick: of a power read each half second 1.25 s are no hole yet."""
    times = [*every(0.5, 0.0, 11.0), 12.25, *every(0.5, 12.75, 20.25)]
    assert hole(metered(MEAN), readings(MEAN, times, range(len(times)))) is None
    times[23:] = [12.26, *times[24:]]
    assert hole(metered(MEAN), readings(MEAN, times, range(len(times)))) == "1.3 s without a reading of m"


def test_usual_is_the_shorter_quarter() -> None:
    """A recorder that was held up most of the time makes no hole usual; one hasty reading makes none unusual."""
    times = [8.0, 8.05, 8.55, 11.55, 14.55, 17.55, 20.55]
    assert hole(metered(COUNTER), readings(COUNTER, times[:5], range(5))) is None
    assert hole(metered(COUNTER), readings(COUNTER, [8.0, 8.125, 8.25, 11.0, 14.0], range(5))) is not None


@pytest.mark.parametrize("times_s", [[12.0], [3.0, 9.0], [7.0, 8.0, 9.0], [16.0, 17.0]])
def test_no_readings_no_holes(times_s: list[float]) -> None:
    """Where the record does not reach into the guards at all, other codes say so."""
    assert hole(metered(COUNTER), readings(COUNTER, times_s, range(len(times_s)))) is None


def test_a_record_that_begins_late() -> None:
    """What lies outside the record is no hole in it, and its own first and last distance may be one."""
    assert hole(metered(COUNTER), readings(COUNTER, every(0.1, 11.0, 13.0), range(21))) is None
    for times in ([11.0, *every(0.125, 13.0, 20.0)], [*every(0.125, 5.0, 11.0), 13.0]):
        told = hole(metered(COUNTER), readings(COUNTER, times, range(len(times))))
        assert told == "2.0 s without a reading of c"


# --- values that stand ------------------------------------------------------------------------------------------------


def counted(period_s: float, stands_s: tuple[float, float]) -> tuple[list[float], list[int]]:
    """Readings of a counter that moves by 7 each time but in a while."""
    times = every(period_s, 8.0, 16.0)
    first_s, last_s = stands_s
    return times, list(accumulate(0 if first_s < t_s <= last_s else 7 for t_s in times))


@pytest.mark.parametrize(
    ("period_s", "until_s", "step", "told_s"),
    [
        (0.125, 11.25, 1e-6, None),
        (0.125, 11.375, 1e-6, "0.4"),
        (0.0625, 11.1875, 1e-6, None),
        (0.0625, 11.25, 1e-6, "0.2"),
        (0.0625, 11.5, 0.005, None),
        (0.0625, 11.5, 0.0049, "0.5"),
    ],
)
def test_a_fine_counter_that_stands(period_s: float, until_s: float, step: float, told_s: str | None) -> None:
    """A fine counter stands when three distances and a quarter of a second show nothing that it could show."""
    for tick_s in (0.001, 0.01):
        one = channel("c", tick_s=tick_s, step=step)
        series = readings(one, *counted(period_s, (11.0, until_s)))
        assert stands(metered(one), series) == (told_s and f"c stood still for {told_s} s")


@pytest.mark.parametrize(
    ("before", "stood", "told"),
    [((7,) * 30, 3, False), ((7,) * 31, 3, True), ((7,) * 5, 5, True), ((7,) * 5, 4, False), ((7,) * 4, 12, False)],
)
def test_a_slow_counter_that_stands(before: tuple[int, ...], stood: int, told: bool) -> None:
    """A slow counter stands when its other ticks make so long a rest a matter of one in a thousand: with N moves and
    no rest, (N + 4) / (N + 2)**3 for three ticks; of fewer than five moves nothing is known."""
    raw = list(accumulate((0, *before, *(0,) * stood)))
    series = readings(PLUG, [12.0 - len(before) + n for n in range(len(raw))], raw)
    assert stands(metered(PLUG), series) == (f"p stood still for {stood:.1f} s" if told else None)


@pytest.mark.parametrize(("rests", "stood", "told"), [(1, 3, False), (1, 4, True), (2, 4, False), (2, 5, True)])
def test_rests_are_usual_where_there_were_some(rests: int, stood: int, told: bool) -> None:
    """Each tick that stood elsewhere makes a longer rest likelier: ((1 + rests) / 32)**ticks of 31 or so."""
    moves = [0, *(0, 3) * rests, *(3,) * (30 - 2 * rests)]
    raw = list(accumulate((*moves, *(0,) * stood, 3)))
    series = readings(PLUG, [12.0 - len(moves) + n for n in range(len(raw))], raw)
    assert (stands(metered(PLUG), series) is not None) == told


def watts(*raw: int) -> Sequence[int]:
    """A power at rest before the answer: 0 s to 9 s, with moves of so many steps."""
    return list(accumulate((500, *raw)))


@pytest.mark.parametrize(
    ("moves", "told"),
    [
        ((2, -2, 2, -2, 2), True),
        ((1, -1, 2, -2, 2), False),
        ((1, -2, 2, -2, 2), True),
        ((1, -1, 2, -2, 2, -2, 2, -2), True),
        ((2, -2, 2, -2), False),
        ((-2, -2, -2, -2, -2), True),
    ],
)
def test_a_power_that_stands(moves: tuple[int, ...], told: bool) -> None:
    """How a power moves at rest tells how often chance repeats it, unless most of it are single steps; what work moves
    does not count."""
    raw = [*watts(*moves), 900, 900, 900, 900, 900, 900, 530, 532, 534]
    series = readings(MEAN, [10.0 - len(moves) + n for n in range(len(raw))], raw)
    assert stands(metered(MEAN, end_s=11.0), series) == ("m stood still for 5.0 s" if told else None)


def test_only_what_touches_the_answer_counts() -> None:
    """A rest that ends before the guard, or begins after it, is nobody's; one that touches its edge is told."""
    for first_s, last_s, told in (
        (7.0, 8.875, False),
        (7.0, 9.0, True),
        (15.0, 15.875, True),
        (15.125, 16.0, False),
        (12.0, 12.5, True),
    ):
        times = every(0.125, 0.0, 24.0)
        raw = list(accumulate(0 if first_s < t_s <= last_s else 7 for t_s in times))
        assert (stands(metered(COUNTER), readings(COUNTER, times, raw)) is not None) == told


def test_the_longest_rest_is_told() -> None:
    """Of several rests the longest counts, wherever in the record it lies, the last reading included."""
    times = every(0.125, 9.0, 15.0)
    for rests in (((10.0, 10.5), (11.0, 12.0)), ((10.0, 11.0), (12.0, 12.5)), ((10.0, 10.5), (14.0, 15.0))):
        raw = list(accumulate(0 if any(a < t_s <= b for a, b in rests) else 7 for t_s in times))
        assert stands(metered(COUNTER), readings(COUNTER, times, raw)) == "c stood still for 1.0 s"


@pytest.mark.parametrize(
    ("times_s", "raw", "told_s"),
    [
        (every(0.125, 9.875, 11.0), (5, 5, 5, 5, 6, 7, 8, 9, 10, 11), "0.4"),
        (every(0.125, 9.875, 11.0), (5, 6, 5, 5, 7, 8, 9, 10, 11, 12), None),
        ([10.0, 10.125, 10.25, 10.375, 11.0, 11.25, 11.5, 11.75], (5, 5, 5, 5, 6, 6, 6, 6), "0.4"),
    ],
)
def test_rests_at_the_beginning(times_s: list[float], raw: tuple[int, ...], told_s: str | None) -> None:
    """A rest may begin with the record; a counter that has come round to its first value has not stood since; of
    rests of as many readings the first is told."""
    assert stands(metered(COUNTER), readings(COUNTER, times_s, raw)) == (told_s and f"c stood still for {told_s} s")


def test_readings_nearer_than_a_tick_tell_nothing() -> None:
    """A plug read ten times a tick has stood when its ticks do, not when its readings do."""
    times, one = every(0.1, 0.0, 45.0), metered(PLUG, start_s=40.0, end_s=44.0)
    assert stands(one, readings(PLUG, times, [int(t_s + 0.35) for t_s in times])) is None
    stood = [41 if 41 < t_s < 44.95 else int(t_s + 0.35) for t_s in times]
    assert stands(one, readings(PLUG, times, stood)) == "p stood still for 3.0 s"


@pytest.mark.parametrize(("apart_s", "told"), [(0.1, False), (0.49, False), (0.5, True)])
def test_readings_after_a_hole_tell_nothing_either(apart_s: float, told: bool) -> None:
    """Where a plug was read twice, and then not for two ticks, twice counts once if it was within half a tick."""
    times = [*every(1.0, 0.0, 38.0), *(t_s + part_s for t_s in (40.5, 42.5, 44.5) for part_s in (0.0, apart_s))]
    raw = [min(int(t_s), 40) for t_s in times]
    assert (stands(metered(PLUG, start_s=40.0, end_s=44.0), readings(PLUG, times, raw)) is not None) == told


# --- powers that miss the work ----------------------------------------------------------------------------------------

MISSED = "m stood still where work began or ended"
WORK = {8: 100, 9: 110, 10: 100, 11: 500, 12: 510, 13: 500, 14: 510, 15: 110, 16: 100, 17: 105, 18: 100}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, False),
        ({11: 100, 12: 100}, True),
        ({11: 100, 12: 101}, False),
        ({10: 99, 11: 100, 12: 100}, False),
        ({15: 510, 16: 510}, True),
        ({15: 510, 16: 511}, False),
        ({14: 509, 15: 510, 16: 510}, False),
    ],
)
def test_work_that_a_power_misses(changes: dict[int, int], told: bool) -> None:
    """A power that shows two ticks of one value where the work began or ended missed that."""
    shown = WORK | changes
    assert stands(metered(MEAN), readings(MEAN, shown, shown.values())) == (MISSED if told else None)


@pytest.mark.parametrize(
    ("active", "end_s", "told"),
    [(4.0, 14.0, False), (4.1, 14.0, True), (-4.1, 14.0, True), (160.0, 13.9, False)],
)
def test_too_little_work_to_miss(active: float, end_s: float, told: bool) -> None:
    """Work of less than a step, or of less than four ticks, may be missed."""
    shown = WORK | {11: 100, 12: 100, 13: 100}
    del shown[8]
    shown |= {13: 500}
    found = stands(metered(MEAN, active=active, end_s=end_s), readings(MEAN, shown, shown.values()))
    assert found == (MISSED if told else None)


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        ({9: 1, 10: 5, 11: 5, 12: 5, 13: 5, 14: 6, 15: 1}, True),
        ({10: 5, 11: 5, 12: 5, 13: 5}, True),
        ({9: 1, 10: 5, 11: 5, 12: 5, 13: 6, 14: 5, 15: 1}, False),
        ({9: 1, 10: 6, 11: 5, 12: 5, 13: 5, 14: 5, 15: 1}, False),
        ({10.1: 5, 11: 5, 12: 5, 13: 5, 14: 5}, False),
        ({9: 1, 10: 5, 11: 5, 12: 5, 12.9: 5}, False),
    ],
)
def test_a_power_that_is_even_all_the_while(shown: dict[float, int], told: bool) -> None:
    """Four ticks of one value are told even where nothing was drawn; but only where readings reach around them."""
    assert stands(metered(MEAN, active=0.0), readings(MEAN, shown, shown.values())) == (MISSED if told else None)


@pytest.mark.parametrize(
    ("tick_s", "lag_s", "until_s"), [(1.0, 0.0, 16.0), (1.0, 1.0, 17.5), (0.1, 0.0, 14.5), (0.25, 0.5, 15.25)]
)
def test_how_long_the_end_may_take(tick_s: float, lag_s: float, until_s: float) -> None:
    """The work's end must show within two ticks and half a second, and one and a half times the meter's lag."""
    one = channel("m", kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, tick_s=tick_s, lag_s=lag_s, step=1.0)
    for raw, told in ((3, False), (8, True)):
        times = [9.0, 10.0, 10.25, 11.0, 12.0, 13.0, 13.9, 14.0, until_s - 0.25, until_s, until_s + 0.01, 19.0]
        series = readings(one, times, [1, 2, 9, 7, 9, 7, 5, 8, 8, raw, 2, 1])
        assert (stands(metered(one), series) == MISSED) == told


# --- work that shows late ---------------------------------------------------------------------------------------------


def seen(*rates: float, tick_s: float = 1.0, step: float = 1.0, **changes: float) -> tuple[str, str] | None:
    """What is told of a plug that shows these powers from 9 s on, a tick each."""
    one = channel("p", "wall", tick_s=tick_s, step=step)
    times = [9.0 + n * tick_s for n in range(len(rates) + 1)]
    raw = range(len(times))
    return late(metered(one, curve(times, rates), **changes), readings(one, times, raw))


LATE = ("meter_late", "p, by more than 1 s")


@pytest.mark.parametrize(
    ("rates", "changes", "told"),
    [
        ((10, 20, 50, 50, 50, 50), {}, True),
        ((10, 20.5, 50, 50, 50, 50), {}, False),
        ((10, 10, 50, 50, 14, 50), {}, False),
        ((10, 10, 50, 50, 14.5, 50), {}, True),
        ((10, 10, 50, 50, 50, 50), {"active": 16.0}, False),
        ((10, 10, 50, 50, 50, 50), {"active": 16.5}, True),
        ((50, 50, 55, 55, 55, 55), {"idle_rate": 50.0, "active": 20.0}, False),
        ((50, 50, 56, 56, 56, 56), {"idle_rate": 50.0, "active": 20.5}, True),
        ((10, 10, 50, 50, 50), {"end_s": 13.0, "active": 120.0}, True),
        ((10, 10, 50, 50, 50), {"end_s": 12.9, "active": 120.0}, False),
        ((10, 10, 50, 50, 50), {"end_s": 14.0}, False),
    ],
)
def test_work_seen_late(rates: tuple[float, ...], changes: dict[str, float], told: bool) -> None:
    """A plug of 1 s that shows less than a quarter of the mean in the answer's first tick, of work that is seen at all,
    is late."""
    assert seen(*rates, **changes) == (LATE if told else None)


@pytest.mark.parametrize(
    ("tick_s", "after_w", "told"),
    [(0.25, 40.0, True), (0.25, 39.5, False), (0.5, 0.0, True), (0.49, 0.0, False), (0.05, 41.0, True)],
)
def test_work_that_is_still_seen_after_its_end(tick_s: float, after_w: float, told: bool) -> None:
    """Where a tick is shorter than half a second, late work must show after its end: at three quarters or more of what
    the answer's last tick showed."""
    wide_s = max(tick_s, 0.1)
    times = [9.0, 10.0, 10.0 + wide_s, 14.0, 14.0 + wide_s]
    one = channel("p", "wall", tick_s=tick_s, step=1e-6)
    found = late(metered(one, curve(times, [10.0, 10.0, 50.0, after_w])), readings(one, times, range(5)))
    assert found == (("meter_late", f"p, by more than {wide_s:.2g} s") if told else None)


@pytest.mark.parametrize(
    ("sampling", "tick_s", "step", "least_w"),
    [
        (Sampling.COUNTER, 0.5, 1.0, 8.0),
        (Sampling.COUNTER, 0.0, 2.0, 8.0),
        (Sampling.MEAN, 0.5, 2.0, 8.0),
        (Sampling.COUNTER, 0.5, 0.01, 1.0),
    ],
)
def test_steps_that_say_nothing_of_when(sampling: Sampling, tick_s: float, step: float, least_w: float) -> None:
    """Work of four steps a tick, or of a watt, is too little to tell when it was seen."""
    one = channel("p", "wall", sampling=sampling, tick_s=tick_s, step=step)
    for above_w, told in ((0.0, False), (0.5, True)):
        work_w = 2.0 + least_w + above_w
        times = [9.0, 10.0, 11.0, 14.0, 15.0]
        found = metered(one, curve(times, [2.0, 2.0, work_w, work_w]), idle_rate=2.0, active=100.0)
        assert (late(found, readings(one, times, range(5))) is not None) == told


@pytest.mark.parametrize(
    ("moved_s", "told"), [(10.4, "frozen"), (10.5, "frozen"), (10.6, "late"), (11.5, "late"), (11.6, "frozen")]
)
def test_late_or_frozen(moved_s: float, told: str) -> None:
    """A plug whose value is the same in the middle of the answer's first tick and of its second stood; one that moved
    was late."""
    times = sorted({9.0, 10.0, 10.45, 10.55, 11.0, 11.45, 11.55, 12.0, moved_s, 14.0, 15.0})
    raw = [int(t_s >= moved_s) + int(t_s >= 12.0) for t_s in times]
    rates = [10.0 if t_s < 11.0 else 50.0 for t_s in times[:-1]]
    found = late(metered(PLUG, curve(times, rates)), readings(PLUG, times, raw))
    assert found == (LATE if told == "late" else ("meter_frozen", "p stood still when the work began"))


def test_cores_are_never_late() -> None:
    """The time that cores were busy is counted by the machine itself."""
    busy = channel("b", "machine", kind=ReadingKind.BUSY_RATIO, tick_s=1.0)
    times = every(1.0, 9.0, 15.0)
    shown = curve(times, [10.0, 10.0, 50.0, 50.0, 50.0, 50.0])
    assert late(metered(PLUG, shown), readings(PLUG, times, range(7))) == LATE
    assert late(metered(busy, shown), readings(busy, times, range(7))) is None
    assert stands(metered(busy, shown), readings(busy, times, [0] * 7)) is None


# --- ticks that were lost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap_s", "before_w", "after_w", "least_j"),
    [
        ((11.0, 13.0), 50.0, 50.0, 100.0),
        ((11.0, 13.0), 50.0, 20.0, 40.0),
        ((11.0, 13.0), 20.0, 50.0, 40.0),
        ((9.5, 11.5), 10.0, 50.0, 80.0),
        ((13.5, 15.5), 50.0, 30.0, 70.0),
        ((9.0, 11.0), 20.0, 50.0, 70.0),
        ((15.0, 17.0), 30.0, 30.0, 60.0),
        ((10.0, 12.0), 10.0, 50.0, 20.0),
        ((12.0, 14.0), 50.0, 10.0, 20.0),
    ],
)
def test_ticks_that_were_lost(gap_s: tuple[float, float], before_w: float, after_w: float, least_j: float) -> None:
    """A counter that stood lost ticks where a quarter lacks of what was drawn before, and from the answer's edge on of
    what was drawn after; without an edge, of the less of both."""
    from_s, until_s = gap_s
    times = [*every(1.0, from_s - 3.0, from_s), *every(1.0, until_s, until_s + 3.0)]
    for share, told in ((0.75, None), (0.74, "p stood for 2.0 s and did not count what was drawn meanwhile")):
        rates = [before_w] * 3 + [share * least_j / 2] + [after_w] * 3
        one = channel("p", "wall", tick_s=1.0, step=0.001)
        assert skipped(metered(one, curve(times, rates))) == told


def lost(times_s: Sequence[float], **changes: Any) -> bool:
    """Whether ticks are told to be lost where a plug at 50 W shows nothing over its longest distance."""
    apart_s = [later - earlier for earlier, later in pairwise(times_s)]
    rates = [0.0 if one_s == max(apart_s) else 50.0 for one_s in apart_s]
    one = channel("p", "wall", **({"tick_s": 1.0, "step": 1.0} | changes))
    return skipped(metered(one, curve(times_s, rates))) is not None


@pytest.mark.parametrize(
    ("times_s", "changes", "told"),
    [
        ((10.0, 11.0, 12.0, 13.5, 14.5, 15.5), {}, False),
        ((10.0, 11.0, 12.0, 13.6, 14.6, 15.6), {}, True),
        ((8.0, 8.9, 10.9, 11.9, 12.9), {}, False),
        ((8.0, 9.0, 11.0, 12.0, 13.0), {}, True),
        ((8.0, 9.0, 11.0, 12.0), {}, True),
        ((8.0, 9.0, 11.0), {}, False),
        ((9.0, 11.0, 12.0, 13.0), {}, False),
        ((13.0, 14.0, 15.0, 17.0, 18.0, 19.0), {}, True),
        ((13.0, 14.0, 15.1, 17.1, 18.0, 19.0), {}, False),
        ((8.5, 9.5, 14.5, 15.5, 16.5), {}, False),
        ((11.0, 12.0, 14.0, 15.0), {"sampling": Sampling.MEAN}, False),
        ((12.0, 12.01, 12.05, 12.06, 12.07), {"tick_s": 0.01, "step": 1e-6}, False),
        ((12.0, 12.01, 12.05, 12.06, 12.07), {"tick_s": 0.0101, "step": 1e-6}, True),
        ((11.0, 12.0, 14.0, 15.0), {"step": 25.0}, False),
        ((11.0, 12.0, 14.0, 15.0), {"step": 24.9}, True),
    ],
)
def test_where_lost_ticks_are_looked_for(times_s: tuple[float, ...], changes: dict[str, Any], told: bool) -> None:
    """Looked at is what begins in the guards or between them, lasts over a tick and a half, lies between two other
    ticks and does not hold the whole answer, and lacks more than four steps of a slow counter."""
    assert lost(times_s, **changes) == told


def test_the_first_of_two_standstills_may_be_harmless() -> None:
    """A standstill that was made up for, or a tick as usual, does not end the search."""
    times = [9.0, 10.0, 12.0, 13.0, 14.0, 16.0, 17.0]
    assert skipped(metered(PLUG, curve(times, [50.0, 50.0, 50.0, 50.0, 5.0, 50.0]))) is not None
    assert skipped(metered(PLUG, curve(times, [50.0] * 6))) is None


# --- ticks that were late ---------------------------------------------------------------------------------------------


def caught_up(moves_s: Sequence[float], times_s: Sequence[float], tick_s: float = 1.0) -> str | None:
    """What is told of a plug that showed something else at each of these moments."""
    one = channel("p", "wall", tick_s=tick_s, step=1.0)
    return hasty(metered(one), readings(one, times_s, [sum(move <= t_s for move in moves_s) for t_s in times_s]))


@pytest.mark.parametrize(
    ("count", "extra_s", "told_s"),
    [
        (20, (12.375,), "0.38"),
        (20, (12.5,), None),
        (20, (9.0,), "0.12"),
        (20, (8.25,), None),
        (20, (15.0,), "0.12"),
        (20, (15.25,), None),
        (20, (3.25, 12.375), None),
        (38, (3.25, 12.375), None),
        (39, (3.25, 12.375), "0.38"),
        (39, (12.375, 13.25), "0.25"),
        (39, (3.25, 12.375, 17.25), None),
        (20, (), None),
    ],
)
def test_ticks_that_came_at_once(count: int, extra_s: tuple[float, ...], told_s: str | None) -> None:
    """Two values within half a tick around the answer are told, the hastiest by name, where no more than one, or a
    twentieth, of all ticks are so near."""
    whole = [1.0 + n for n in range(count)]
    moves = sorted({*(t_s - 0.125 if t_s in extra_s else t_s for t_s in whole), *extra_s})
    told = caught_up(moves, every(0.125, 0.0, 48.0))
    assert told == (told_s and f"p was behind, and caught up within {told_s} s")


@pytest.mark.parametrize(("count", "told"), [(7, False), (8, True)])
def test_too_few_ticks_to_call_them_even(count: int, told: bool) -> None:
    """Of fewer than eight ticks nobody knows how even the meter is."""
    moves = [*(10.0 + n for n in range(count - 1)), 12.25]
    assert (caught_up(moves, every(0.125, 9.875, 48.0)) is not None) == told


@pytest.mark.parametrize(("tick_s", "told"), [(0.01, False), (0.0101, True)])
def test_fast_ticks_are_never_late(tick_s: float, told: bool) -> None:
    """A counter that ticks each hundredth of a second is taken as it is read."""
    moves = [*(12.0 + n / 100 for n in range(20)), 12.052]
    assert (caught_up(moves, every(0.002, 11.9, 12.3), tick_s) is not None) == told


@pytest.mark.parametrize(("hole_s", "told"), [((11.5, 12.125), True), ((11.375, 12.125), False)])
def test_a_tick_that_was_only_seen_late(hole_s: tuple[float, float], told: bool) -> None:
    """A tick that shows after readings are missing was not late itself: beyond two and a half usual distances."""
    times = without([*every(0.25, 0.0, 11.25), 11.375, 11.5, 12.0, 12.125, 12.5, *every(0.25, 13.0, 30.0)], *hole_s)
    moves = [*(n + 0.0 for n in range(1, 12)), 12.01, 12.5, *(n + 0.0 for n in range(13, 28))]
    assert (caught_up(moves, times) is not None) == told
