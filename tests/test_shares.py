"""How prefill and decode share an answer, by hand: by counters beside a slow plug, or by the model's powers."""

from dataclasses import replace
from math import exp, hypot, sqrt

import pytest

from joulebox.accounting.energy import TAIL_S
from joulebox.accounting.figures import Metered, Reckoning, Scale, reckon
from joulebox.accounting.split import _by_counters, _by_model, _share, _Times, with_split
from joulebox.accounting.uncertainty import Noise
from joulebox.agreement import labels
from joulebox.metering import Curve
from joulebox.model import (
    CalibrationRef,
    Channel,
    Figure,
    MetersFit,
    PhaseFigure,
    PhasePowers,
    ReadingKind,
    Sampling,
    TokenTime,
    Trace,
)
from test_estimator import ANSWER, NOTHING, curve
from test_interval_parts import WORKS
from traces import CALIBRATION, S, channel, series, trace, work

TIMES = _Times(10 * S, 12 * S, 18 * S)
PACKAGE = channel()
PLUG, OTHER = (
    channel("power", "wall", meter=meter, kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, tick_s=tick_s)
    for meter, tick_s in (("shelly:a", 1.0), ("tasmota:b", 2.0))
)
LINE = MetersFit(
    whole=labels([PLUG]),
    parts=labels([PACKAGE]),
    rest_w=10.0,
    slope=2.0,
    u_slope=0.05,
    centre_w=25.0,
    u_centre_w=0.75,
    low_w=15.0,
    high_w=50.0,
)
COUNTED = curve({9.0: -60.0, 10.0: 0.0, 12.0: 90.0, 18.0: 210.0}, slack_s=0.001, blur_s=0.001)
"""90 J in a prefill of 2 s, 120 J in a decode of 6 s."""
MOVES_J = hypot(1.25 * 1.2, 0.05 * 36.0, 0.03 * 2 * 0.6 * 60.0, 0.03 * 2 * 0.4 * 30.0, 2 * 2 * 75.0 * 0.002 / sqrt(3))


def metered(one: Channel, seen: Curve = COUNTED) -> Metered:
    """A channel whose own gain and offset are not known at all."""
    return Metered(
        channel=one,
        curve=seen,
        window=replace(ANSWER, end_ns=18 * S),
        scale=Scale(offset_w=0.0, offset_u_w=9.0, slope=1.0, slope_u=0.5, offset_source="offset", slope_source="gain"),
        found=replace(NOTHING, idle_rate=60.0),
        noise=Noise(before=0.0, after=0.0, active=3.0, tail=0.0),
        works=WORKS,
    )


def test_counters_tell_the_share() -> None:
    """By a line of 10 W and twice the counters the plug saw 200 J of 500 in the prefill; that the line's height, its
    slope, the kinds of work and the counters' ticks may be off moves the share, their gains do not."""
    found = _share(LINE, [metered(PACKAGE)], TIMES)
    assert found == pytest.approx((0.4, MOVES_J / 500.0))


@pytest.mark.parametrize("coarse", ["prefill", "decode"])
def test_counters_too_coarse_for_a_phase_tell_no_share(coarse: str) -> None:
    """Where the counters cannot tell what either phase drew, they tell no share."""
    edges = {"prefill": 11.0, "decode": 17.0}
    times = replace(TIMES, first_ns=round(edges[coarse] * S))
    blurred = replace(COUNTED, t_ns=(*COUNTED.t_ns[:2], times.first_ns, COUNTED.t_ns[3]), blur_s=0.3)
    assert _share(LINE, [metered(PACKAGE, blurred)], times) is None


RUN = trace(start_s=10.0, end_s=18.0, tokens=(TokenTime(t_ns=12 * S, n=1),))


def reckoned(*chosen: Channel, seen: tuple[Channel, ...]) -> Reckoning:
    """Figures of 100 J, 80 J of them above idle."""
    made = {one: metered(one) for one in seen}
    found = reckon(RUN)
    return replace(
        found,
        energy=replace(
            found.energy,
            scope="wall",
            answer=Figure(j=100.0, u=5.0, grade="B"),
            active=Figure(j=80.0, u=6.0, grade="B"),
        ),
        metered=tuple(made[one] for one in chosen),
        seen=tuple(made.values()),
    )


def test_the_line_of_the_plug_that_counts_shares_its_answer() -> None:
    """Of two plugs with a line each, the one that the figure is from splits it, and a line between plugs splits
    nothing."""
    wrong = replace(LINE, slope=0.5)
    fits = (replace(wrong, parts=labels([OTHER])), wrong, replace(LINE, whole=labels([OTHER])))
    same = replace(wrong, whole=labels([OTHER]), parts=labels([PLUG]))
    run = replace(RUN, calibration=replace(CALIBRATION, fits=(same, *fits)))
    reckoning = reckoned(OTHER, seen=(PLUG, OTHER, PACKAGE))
    answer = Figure(j=100.0, u=5.0, grade="B")
    u_j = MOVES_J / 500.0 * 100.0
    expected = ((40.0, hypot(0.4 * 5.0, u_j)), (60.0, hypot(0.6 * 5.0, u_j)))
    found = _by_counters(run, reckoning, TIMES, answer)
    assert found is not None
    assert [*found[0], *found[1]] == pytest.approx([*expected[0], *expected[1]])
    for fewer in (replace(run, calibration=replace(CALIBRATION, fits=(same, wrong))), replace(run, calibration=None)):
        assert _by_counters(fewer, reckoning, TIMES, answer) is None


POWERS = PhasePowers(model="sha256:0", scope="wall", ratio=2.0, u_ratio=0.5, answers=6)
KNOWN = CalibrationRef(id="c", at=CALIBRATION.at, splits=(POWERS,))


def by_model(run: Trace, reckoning: Reckoning) -> list[float] | None:
    """Prefill and decode with their intervals."""
    found = _by_model(run, reckoning, TIMES, Figure(j=100.0, u=5.0, grade="B"))
    return None if found is None else [*found[0], *found[1]]


def test_a_models_powers_tell_the_share() -> None:
    """A model that draws twice as much above idle while it reads has 2 of 5 parts of it in a quarter of the time, and
    all of the idle power; what is not known of either moves the two against each other."""
    reckoning = reckoned(PLUG, OTHER, seen=(PLUG, OTHER))
    moves_j = hypot(
        2 * (3.0 + 3.0) / 8.0 * (2.0 - 0.4 * 8.0),
        80.0 * 0.4 * 0.6 * 0.5 / 2.0,
        0.03 * 0.4 * 0.6 * 80.0,
        0.2 * 80.0 / 8.0 * TAIL_S * (1 - exp(-2.0 / TAIL_S)),
    )
    expected = [2.5 * 2.0 + 0.4 * 80.0, hypot(0.4 * 5.0, moves_j), 63.0, hypot(0.6 * 5.0, moves_j)]
    assert by_model(replace(RUN, calibration=KNOWN), reckoning) == pytest.approx(expected)


def test_powers_of_something_else_tell_nothing() -> None:
    """Powers of another model or scope, or of none, and an answer without a figure above idle, are not split."""
    reckoning = reckoned(PLUG, seen=(PLUG,))
    run = replace(RUN, calibration=KNOWN)
    others = (replace(POWERS, model="sha256:1"), replace(POWERS, scope="platform"))
    second = replace(run, calibration=replace(KNOWN, splits=(*others, POWERS)))
    assert by_model(second, reckoning) == by_model(run, reckoning) is not None
    for unknown in (replace(KNOWN, splits=others), None):
        assert by_model(replace(run, calibration=unknown), reckoning) is None
    assert by_model(replace(run, model=None), reckoning) is None
    assert by_model(run, replace(reckoning, energy=replace(reckoning.energy, active=None))) is None


WALL = channel("energy", "wall")
SHORT = trace(series(WALL, work(10.0, 50.0, 30.0, 32.0), 34.0), calibration=KNOWN)


def phased(u: float | None, decode_u: float | None) -> Reckoning:
    """Phases measured so surely."""
    found = reckon(SHORT)
    phases = {
        name: PhaseFigure(j=50.0, u=one, s=1.0, method="measured")
        for name, one in (("prefill", u), ("decode", decode_u))
    }
    return replace(found, energy=replace(found.energy, phases=found.energy.phases | phases))


def test_phases_are_split_where_that_is_surer() -> None:
    """A split takes the place of phases that were not measured, or less surely; not of others."""
    split = with_split(SHORT, phased(None, None)).energy.phases
    prefill, decode = split["prefill"], split["decode"]
    assert (prefill.j, decode.j) == pytest.approx((5.0 + 32.0, 15.0 + 48.0), abs=0.02)
    assert (prefill.s, decode.s, prefill.method, decode.method) == (0.5, 1.5, *("calibrated_split",) * 2)
    assert prefill.u is not None
    assert decode.u is not None
    assert prefill.u < decode.u
    for u, taken in ((0.0, False), (prefill.u, False), (prefill.u * 1.0001, True), (decode.u, True)):
        found = with_split(SHORT, phased(u, 1.0)).energy.phases
        assert (found == phased(u, 1.0).energy.phases, found == split) == (not taken, taken)
    assert with_split(SHORT, phased(0.0, None)).energy.phases == split
    assert with_split(SHORT, phased(None, 0.0)).energy.phases == split


@pytest.mark.parametrize("first_s", [None, 30.0, 32.0, 33.0])
def test_an_answer_without_two_phases_is_not_split(first_s: float | None) -> None:
    """Without a token between its ends an answer has no two phases."""
    tokens = () if first_s is None else (TokenTime(t_ns=round(first_s * S), n=9),)
    reckoning = phased(None, None)
    assert with_split(replace(SHORT, tokens=tokens), reckoning) is reckoning


def test_nothing_and_models_are_not_split() -> None:
    """An answer without a figure stays so, and one that is modelled stays as it was modelled."""
    reckoning = phased(None, None)
    powers = CalibrationRef(id="c", at=KNOWN.at, splits=(POWERS, replace(POWERS, scope="modelled")))
    run = replace(SHORT, calibration=powers)
    for energy in (replace(reckoning.energy, answer=None), replace(reckoning.energy, scope="modelled")):
        bare = replace(reckoning, energy=energy)
        assert with_split(run, bare) is bare
