"""An idle machine that is another one after the answer makes what lies above idle doubtful."""

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest

from agreeing import PLUGS, Lab
from by_hand import curve, metered
from joulebox.accounting import account
from joulebox.accounting.figures import reckon
from joulebox.accounting.idle_drift import _back, _change_w, _spread, drift
from joulebox.accounting.surroundings import Finding
from joulebox.model import Figure, Reason, Trace
from joulebox.rig.physics import Machine, MachineParameters
from joulebox.units import nanoseconds
from test_closure import traces_of
from traces import PLACEMENT, S, channel, factors, series, trace


def found_in(run: Trace) -> list[Reason]:
    """What the receipt says of it."""
    reasons = account(run, factors(), receipt_id="r", placement=PLACEMENT).reasons
    return [one for one in reasons if one.code == "idle_drift"]


def drawn(before_w: float, busy_w: float, after_w: float) -> Callable[[float], float]:
    """Joules of a machine that works from 30 s to 32 s, and idles at another power afterwards."""
    return lambda t_s: before_w * min(t_s, 30) + busy_w * min(max(t_s - 30, 0), 2) + after_w * max(t_s - 32, 0)


@pytest.mark.parametrize(
    ("after_w", "level"), [(10.0, None), (9.95, None), (8.0, "suspect"), (12.0, "note"), (10.05, None)]
)
def test_another_idle_power_afterwards(after_w: float, level: str | None) -> None:
    """Lower afterwards is suspect, higher may be fans and is a note, and what does not matter is not told."""
    counter = channel(gain_u_ratio=0.01)
    (*found,) = found_in(trace(series(counter, drawn(10.0, 40.0, after_w), 33.2)))
    assert [one.level for one in found] == ([level] if level else [])
    if found:
        assert f"cpu: 10.0 W before, {after_w:.1f} W after" in found[0].sentence


def test_a_short_idle_record_tells_nothing() -> None:
    """Where the idle record cannot say what noise does, nothing is called drift."""
    run = trace(series(channel(gain_u_ratio=0.01), drawn(10.0, 40.0, 8.0), 33.2))
    short = replace(run.spans[0], start_ns=run.spans[0].end_ns - 5_000_000_000)
    assert found_in(run) != []
    assert found_in(replace(run, spans=(short, *run.spans[1:]))) == []


@pytest.mark.parametrize("name", PLUGS)
@pytest.mark.parametrize("tail_s", [0.3, 0.8, 2.0])
def test_noise_and_tails_are_no_drift(tmp_path: Path, name: str, tail_s: float) -> None:
    """On a machine that is only noisy, and whose power comes down after the work, no receipt is suspect for it."""
    for seed in range(2):
        lab = Lab(seed, PLUGS[name])
        lab.machine = Machine(seed, parameters=MachineParameters(tail_s=tail_s))
        lab.zones.machine = lab.wall.machine = lab.machine
        for run in traces_of(lab, tmp_path, [lab.zones, lab.plug], (), (1.0, 5.0, 1.0, 5.0), 60.0):
            assert [one for one in found_in(run) if one.level != "note"] == []


# --- at the bounds ----------------------------------------------------------------------------------------------------

PLUG = channel("p", "wall", tick_s=1.0, step=1e-3)


def changed(change_w: float, *, quiet_s: float = 36.0, first_s: float = 30.0, early_w: float = 0.0) -> float | None:
    """The change that is told of a plug whose idle power rises by an eighth of a watt each second until 60 s: the guard
    of 2 s and what comes 6 s later always differ by 0.75 W. The answer lasts until 62 s, `early_w` until 64 s."""
    times = [first_s + n for n in range(round(66 - first_s) + 1)]
    rates = [t_s / 8 if t_s < 60 else 50.0 if t_s < 62 else 5.0 for t_s in times[:-1]]
    rates[-4:] = [5.0 + change_w + early_w] * 2 + [5.0 + change_w] * 2
    one = metered(PLUG, curve(times, rates), start_s=60.0, end_s=62.0, guard_s=2.0, idle_rate=5.0)
    return _change_w(one, nanoseconds(quiet_s), 66 * S)


@pytest.mark.parametrize(("change_w", "told"), [(3.0, False), (3.125, True), (-3.0, False), (-3.125, True)])
def test_what_noise_never_does(change_w: float, told: bool) -> None:
    """Four times the usual difference is no noise any more."""
    assert changed(change_w) == (change_w if told else None)


@pytest.mark.parametrize(("quiet_s", "first_s", "told"), [(36.0, 30.0, True), (36.5, 30.0, False), (0.0, 36.0, True)])
def test_how_long_the_idle_record_must_be(quiet_s: float, first_s: float, told: bool) -> None:
    """Three stretches of 8 s are enough, from where the machine was quiet and the record begins."""
    assert changed(-5.0, quiet_s=quiet_s, first_s=first_s) == (-5.0 if told else None)


@pytest.mark.parametrize(
    ("change_w", "early_w", "told"), [(4.0, 0.75, True), (4.0, 0.875, False), (-4.0, 2.0, True), (3.5, 1.0, False)]
)
def test_a_power_that_still_falls_is_a_tail(change_w: float, early_w: float, told: bool) -> None:
    """Above the old idle power, what falls by more than noise does is no other idle power yet."""
    assert changed(change_w, early_w=early_w) == (change_w if told else None)


def test_a_small_change_of_a_falling_power() -> None:
    """A rise of less than a watt may be a tail as well."""
    times = [float(n) for n in range(67)]
    for early_w, told in ((0.5, 0.5), (1.0, None)):
        rates = [5.0] * 62 + [early_w + 5.0] * 2 + [5.5] * 2
        rates[10] += 0.125
        one = metered(PLUG, curve(times, rates), start_s=60.0, end_s=62.0, guard_s=2.0, idle_rate=5.0)
        assert _change_w(one, 0, 66 * S) == told


@pytest.mark.parametrize(
    ("times_s", "released_s", "found"),
    [
        ([13.0, 14.0, 15.0, 15.5, 16.0, 18.0], 18.5, None),
        ([13.0, 14.0, 15.0, 16.5, 18.0], 18.0, (15.0, 16.5, 18.0)),
        ([14.0, 15.0, 16.0], 17.0, None),
        ([14.0, 15.0], 17.0, None),
        ([15.0, 15.000000001], 17.0, None),
        ([12.0, 13.0], 17.0, None),
        ([16.0, 17.0, 18.0], 15.0, None),
        ([13.0, 14.0, 15.0, 17.0, 18.0], 14.5, None),
        ([15.0, 16.0, 17.0, 17.000000001], 18.0, (15.0, 16.0, 17.000000001)),
    ],
)
def test_two_halves_of_the_quiet_after(
    times_s: list[float], released_s: float, found: tuple[float, float, float] | None
) -> None:
    """What comes after the answer, its ticks' slack and the doubt about the lag is halved at a reading; with none in
    the middle there are no halves."""
    totals = [n * n for n in range(len(times_s))]
    shown = replace(curve(times_s, [], slack_s=0.5, margin_s=0.5), total=tuple(totals))
    told = _back(metered(PLUG, shown), nanoseconds(released_s))
    if found is None:
        assert told is None
    else:
        start_ns, middle_ns, end_ns = map(nanoseconds, found)
        assert told == (shown.rate(start_ns, middle_ns), shown.rate(middle_ns, end_ns), end_ns - middle_ns)


@pytest.mark.parametrize(
    ("quiet_ns", "pulse_s", "square"),
    [
        ((0, 60 * S), 10, 4 * 16.0 / 53),
        ((0, 400 * S), 300, 2 * 16.0 / 197),
        ((35 * S, 60 * S), 59, 16.0 / 18),
        ((35 * S + 1, 60 * S), 59, 0.0),
    ],
)
def test_the_usual_difference(quiet_ns: tuple[int, int], pulse_s: int, square: float) -> None:
    """One second at 8 W is half of a guard of 2 s or of what comes 4 s after it: of the stretches that begin each
    second, or two hundred times in the record, and end within it, those differ by 4 W."""
    shown = curve([float(n) for n in range(410)], [8.0 * (n == pulse_s) for n in range(409)])
    assert _spread(shown, quiet_ns, 2.0, 4 * S, 2 * S) == pytest.approx(sqrt(square), abs=1e-6)


def told(change_w: float, u: float, **changes: object) -> list[Finding]:
    """What is told of two plugs, 1 W and two for each they show, whose idle power of 5 W is another one after 62 s."""
    times = [float(n) for n in range(67)]
    rates = [5.0] * 60 + [50.0] * 2 + [5.0 + change_w] * 4
    one = metered(PLUG, curve(times, rates), start_s=60.0, end_s=62.0, guard_s=2.0, idle_rate=5.0)
    one = replace(one, scale=replace(one.scale, offset_w=1.0, slope=2.0))
    run = trace(series(channel(), drawn(10.0, 40.0, 10.0), 70.0), start_s=60.0, end_s=62.0, released_ns=66 * S)
    found = reckon(run)
    active = changes.get("active", Figure(j=90.0, u=u, grade="C"))
    energy = replace(found.energy, active=active)  # type: ignore[arg-type]
    spans = changes.get("spans", run.spans)
    run = replace(run, spans=spans)  # type: ignore[arg-type]
    return list(drift(run, replace(found, energy=energy, metered=(one, one))))


@pytest.mark.parametrize(
    ("change_w", "u", "level"),
    [(-2.0, 4.0, None), (-2.0, 3.9, "suspect"), (-2.0, 15.0, None), (0.25, 0.4, "note"), (0.25, 0.5, None)],
)
def test_a_change_that_matters(change_w: float, u: float, level: str | None) -> None:
    """Half of the change over the answer's 2 s is told once, where it is more than `active` leaves open."""
    words = ("wall", "11.0", f"{11.0 + 2 * change_w:.1f}")
    assert told(change_w, u) == ([Finding("idle_drift", level, words)] if level else [])  # type: ignore[arg-type]


def test_nothing_drifts_where_nothing_is_known() -> None:
    """Without a figure above idle, or an idle record, there is nothing that could be doubted."""
    assert told(-2.0, 1.0, active=None) == []
    assert told(-2.0, 1.0, spans=trace(start_s=60.0, end_s=62.0).spans[1:]) == []
