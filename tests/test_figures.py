"""Figures worked out by hand, and the bounds at which there is none: which channels count, phases, peaks and grades."""

from dataclasses import replace
from math import hypot, sqrt
from typing import Any

import pytest

from by_hand import curve, metered, readings
from joulebox.accounting.energy import Split
from joulebox.accounting.figures import (
    _calibrated,
    _half,
    _reserved,
    _stretches,
    answer_window,
    first_token_ns,
    grade,
    phase_figure,
    reckon,
    scope_name,
)
from joulebox.accounting.uncertainty import Noise
from joulebox.model import Channel, PhaseFigure, ReadingKind, Sampling, Span, TokenTime, Trace
from joulebox.units import nanoseconds
from traces import S, channel, series, trace, work

DRAWN = work(10.0, 50.0, 30.0, 32.0)
PLUG = channel("p", "wall", tick_s=1.0, step=1.0)


def ticks(rates: list[float], from_s: float = 0.0) -> list[float]:
    return [from_s + n for n in range(len(rates) + 1)]


# --- one channel ------------------------------------------------------------------------------------------------------


def test_what_the_idle_power_leaves_open() -> None:
    """The idle record's noise and the ticks that may be lost in the guard, both its ends included, add in quadrature:
    of 4 J in 2 s 12 J over the answer's 6 s and 6 J over the tail's 3 s."""
    lost = tuple((nanoseconds(t_s), most) for t_s, most in ((6.9, 99.0), (7.0, sqrt(12)), (9.0, sqrt(12)), (9.1, 99.0)))
    one = metered(PLUG, replace(curve([0.0], []), doubts=lost), end_s=16.0, before_s=1.0, quiet_s=2.0, tail_s=3.0)
    one = replace(one, noise=Noise(before=0.0, after=0.0, active=5.0, tail=8.0), scale=replace(one.scale, slope=2.0))
    assert (one.idle("active").source, one.idle("tail").source) == ("idle baseline", "idle baseline")
    assert one.idle("active").j == pytest.approx(2 * 13.0)
    assert one.idle("tail").j == pytest.approx(2 * 10.0)


def test_whose_idle_noise_it_is() -> None:
    """At both ends of the answer the idle machine's noise counts; before `active` and `tail` it is in what is taken
    off."""
    one = replace(metered(PLUG), noise=Noise(before=3.0, after=4.0, active=0.0, tail=0.0))
    noise = {
        name: next(part.j for part in one.edges(name) if part.source == "idle noise")
        for name in ("answer", "active", "tail")
    }
    assert noise == {"answer": 5.0, "active": 4.0, "tail": 4.0}
    assert one.edges() == one.edges("answer")


@pytest.mark.parametrize(
    ("leased_s", "released_s", "units"),
    [
        (10.0, 14.0, 200.0),
        (6.0, 16.0, 280.0),
        (8.0, 18.0, 300.0),
        (5.9, 16.0, None),
        (8.0, 18.1, None),
        (16.0, 17.0, None),
        (17.0, 18.0, None),
        (7.0, 8.0, None),
    ],
)
def test_from_lease_to_release(leased_s: float, released_s: float, units: float | None) -> None:
    """Two ticks of either guard may lack at the ends and are taken at the guard's power, 10 W and 20 W; outside the
    record of 260 J, and beyond two ticks, nothing is known."""
    shown = curve(ticks([0.0] * 8, 8.0), [10.0, 10.0, 50.0, 50.0, 50.0, 50.0, 20.0, 20.0])
    one = metered(PLUG, shown, idle_rate=10.0, after_rate=20.0)
    found = _reserved(one, nanoseconds(leased_s), nanoseconds(released_s))
    assert found == units


# --- which channels ---------------------------------------------------------------------------------------------------


def test_a_trace_without_an_answer_has_no_window() -> None:
    """An answer that lasted no time is none."""
    run = trace()
    assert answer_window(run) == (30 * S, 32 * S)
    for spans in ((), (Span(name="answer", start_ns=30 * S, end_ns=30 * S),)):
        with pytest.raises(ValueError, match=r"^the trace holds no answer span$"):
            answer_window(replace(run, spans=spans))


def test_no_meter_is_not_a_silent_one() -> None:
    """Where meters, or the cores of the power model, gave too little, that is told; where there were none, it is not a
    fault."""
    heat = channel("t", "cpu", kind=ReadingKind.TEMPERATURE_C, sampling=Sampling.SNAPSHOT)
    busy = channel("b", "machine", kind=ReadingKind.BUSY_RATIO)
    whole = series(channel(), DRAWN, 34.0)
    assert reckon(trace(series(heat, lambda _: 40.0, 34.0))).unmeasured is False
    assert reckon(trace(series(busy, DRAWN, 20.0))).unmeasured is True
    assert reckon(trace(series(channel(), DRAWN, 20.0))).unmeasured is True
    assert reckon(trace(whole)).unmeasured is False


def test_a_wall_meter_that_says_nothing_is_passed_over() -> None:
    """A silent wall meter leaves the figure to the parts; a silent part leaves none, since parts without it are not the
    machine."""
    cpu, dram = series(channel(), DRAWN, 34.0), series(channel("d", "dram"), DRAWN, 34.0)
    silent = series(PLUG, DRAWN, 20.0)
    assert reckon(trace(silent, cpu)).energy.scope == "cpu"
    assert reckon(trace(cpu, dram)).energy.scope == "cpu+dram"
    found = reckon(trace(series(channel(), DRAWN, 20.0), dram))
    assert (found.energy.answer, found.unmeasured) == (None, True)


def test_without_an_idle_span_the_guard_begins_with_the_answer() -> None:
    """Where nobody said since when the machine was idle, no idle record is claimed."""
    run = trace(series(channel(), DRAWN, 34.0))
    assert [one.window.quiet_from_ns for one in reckon(run).metered] == [0]
    assert [one.window.quiet_from_ns for one in reckon(replace(run, spans=run.spans[1:])).metered] == [30 * S]


def looked_at(tick_s: float, end_s: float = 32.0, **changes: Any) -> Trace:
    """A machine whose power is looked at once a tick."""
    one = channel("w", "wall", kind=ReadingKind.POWER_W, sampling=Sampling.SNAPSHOT, tick_s=tick_s, step=1.0)
    times = [n * tick_s for n in range(round(45 / tick_s))]
    watts = [50 if 30 < t_s <= end_s else 10 for t_s in times]
    return trace(readings(one, times, watts), end_s=end_s, **changes)


@pytest.mark.parametrize(
    ("tick_s", "end_s", "known"),
    [(1.0, 32.0, True), (1.0, 31.9, False), (1.0, 32.5, True), (0.5, 31.5, True), (0.5, 31.0, True)],
)
def test_two_looks_are_the_least(tick_s: float, end_s: float, known: bool) -> None:
    """A power that is only looked at tells of an answer that lasted two looks, and of no shorter one."""
    assert (reckon(looked_at(tick_s, end_s)).energy.answer is not None) == known


def test_an_answer_without_tokens_is_looked_at_too() -> None:
    """A power that is only looked at needs no first token: what is not told ends with the answer."""
    assert (
        reckon(looked_at(1.0, tokens=())).energy == reckon(looked_at(1.0, tokens=(TokenTime(t_ns=99 * S, n=1),))).energy
    )


@pytest.mark.parametrize(("first_s", "known"), [(30.0, False), (30.1, True), (32.0, True), (32.1, False)])
def test_a_first_token_is_inside_its_answer(first_s: float, known: bool) -> None:
    """A token at the request itself, or after the end, is no first token."""
    first_ns = nanoseconds(first_s)
    assert first_token_ns(trace(tokens=(TokenTime(t_ns=first_ns, n=1),))) == (first_ns if known else None)


def test_the_name_of_parts_together() -> None:
    """Processors come first, then memory, then the rest by name; all graphics cards are one kind."""
    assert scope_name(["gpu1", "apu", "dram", "cpu", "gpu0", "ane"]) == "cpu+dram+ane+apu+gpu"


# --- phases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slack_s", "blur_s", "span_s", "known"),
    [
        (0.5, 0.5, (10.0, 14.0), True),
        (0.5, 0.5, (10.125, 14.125), False),
        (0.0, 1.1, (10.0, 14.0), False),
        (0.0, 0.0, (7.75, 11.75), False),
    ],
)
def test_a_phase_needs_fine_ticks(slack_s: float, blur_s: float, span_s: tuple[float, float], known: bool) -> None:
    """Ticks may be a quarter of a phase wide, the distance to the nearest reading included; outside the record nothing
    is known; how long the phase was is known in any case."""
    rates = [10.0] * 8 + [50.0] * 16 + [10.0] * 8
    shown = curve([8.0 + n / 4 for n in range(33)], rates, slack_s=slack_s, blur_s=blur_s)
    span = (nanoseconds(span_s[0]), nanoseconds(span_s[1]))
    found = phase_figure([metered(PLUG, shown)], span, "measured")
    if known:
        u = 2 * hypot(10.0, 50.0) * 1.0 / sqrt(3)
        assert found.u == pytest.approx(u)
        assert replace(found, u=None) == PhaseFigure(j=200.0, u=None, s=4.0, method="measured")
    else:
        assert found == PhaseFigure(j=None, u=None, s=4.0, method=None)


@pytest.mark.parametrize(
    ("changes", "lasts_s", "until_s", "known"),
    [
        ({"blur_s": 0.25}, 1.0, 18.0, True),
        ({"blur_s": 0.26}, 1.0, 18.0, False),
        ({"margin_s": 0.5}, 1.0, 18.0, True),
        ({"margin_s": 0.51}, 1.0, 18.0, False),
        ({"margin_s": 0.5}, 1.0, 12.0, True),
        ({"margin_s": 0.51}, 4.0, 12.0, False),
    ],
)
def test_prefill_needs_readings_of_its_own(
    changes: dict[str, float], lasts_s: float, until_s: float, known: bool
) -> None:
    """A phase as long as four ticks, or as twice the doubt about the meter's lag, is told, as long as there are
    readings wherever its end may lie."""
    times = ticks([0.0] * round(until_s - 8), 8.0)
    one = metered(PLUG, curve(times, [50.0] * len(times), **changes))
    found, parts = _half([one], "prefill", nanoseconds(11.5), lasts_s, "measured")
    assert (found.j is not None) == known == bool(parts)
    assert found.s == lasts_s


def test_a_cut_between_readings_is_in_doubt() -> None:
    """Decode shares the guards' and stamps' parts with the answer, prefill does not; each has the noise of its side."""
    one = replace(metered(PLUG), noise=Noise(before=3.0, after=4.0, active=0.0, tail=0.0))
    cut = Split(prefill=50.0, decode=150.0, cut_rate=50.0, gap_s=0.0)
    found = {name: {part.source: part.j for part in one.phase(name, cut, 0.0)} for name in ("prefill", "decode")}
    assert (found["prefill"]["idle noise"], found["decode"]["idle noise"]) == (3.0, 4.0)
    assert {"guards", "stamps"} & set(found["prefill"]) == set()
    assert {"guards", "stamps"} <= set(found["decode"])


# --- power ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times_s", "stretches"),
    [
        ([9.975, 10.0, 10.05, 10.1, 14.0, 14.05], [(10.0, 10.05), (10.05, 10.1), (10.1, 14.0)]),
        ([9.99, 10.025, 10.05, 10.075, 10.1, 15.0], [(9.99, 10.05), (10.025, 10.075), (10.05, 10.1)]),
        ([0.0, 10.5, 15.0], [(0.0, 10.5)]),
        ([9.99, 10.0, 10.02, 10.04], []),
    ],
)
def test_stretches_of_a_peak(times_s: list[float], stretches: list[tuple[float, float]]) -> None:
    """To every reading in the answer belongs the shortest stretch before it of a twentieth of a second, from the last
    reading before the answer on."""
    one = metered(PLUG, curve(times_s, [10.0] * len(times_s)))
    found = _stretches([one], (10 * S, 14 * S))
    assert list(found) == [(nanoseconds(start_s), nanoseconds(end_s)) for start_s, end_s in stretches]


# --- grades -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "missing", "found"),
    [
        (channel(at_wall=True), (), True),
        (channel(at_wall=False), (), False),
        (channel("d", "dram"), (), True),
        (channel(at_wall=True), ("fans",), True),
        (channel(at_wall=True), ("cpu",), False),
        (channel(at_wall=True), ("dram",), False),
        (channel(at_wall=True), ("fans", "gpu0"), False),
    ],
)
def test_calibrated_at_the_wall(one: Channel, missing: tuple[str, ...], found: bool) -> None:
    """A part counts as calibrated where its gain was found at the wall, or it is memory, and no big part lacks."""
    assert _calibrated(one, missing) is found


@pytest.mark.parametrize(
    ("scope", "u", "calibrated", "expected"),
    [
        ("wall", 2.0, False, "A"),
        ("wall", 2.1, False, "B"),
        ("wall", 10.0, False, "B"),
        ("wall", 10.1, False, "C"),
        ("wall", 30.0, False, "C"),
        ("cpu", 30.0, False, "C"),
        ("cpu", 30.1, False, "D"),
        ("cpu", 5.0, True, "B"),
        ("cpu", 5.1, True, "C"),
        ("modelled", 0.1, True, "D"),
    ],
)
def test_grades_at_their_bounds(scope: str, u: float, calibrated: bool, expected: str) -> None:
    """A grade's bound belongs to the better grade, of negative energies too; nothing at all is never better than D."""
    assert grade(scope, 100.0, u, calibrated=calibrated) == expected
    assert grade(scope, -100.0, u, calibrated=calibrated) == expected
    assert grade(scope, 0.0, u, calibrated=calibrated) == "D"
