"""Where and when a prompt runs: the decision and its words, over every fleet and forecast."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting import account
from joulebox.server.jobs import PastRun, Place
from joulebox.server.placement import Expected, Option, Slot, Wish, expected_of, past_run, place
from server_stage import COUNTER
from traces import PLACEMENT, factors, series, trace, work

NOW = datetime(2026, 11, 23, 22, 30, tzinfo=UTC)
FIRST = NOW.replace(minute=0)
WAIT = timedelta(minutes=10)
HOUR = timedelta(hours=1)
USUAL = Expected(scope="wall", kwh_per_token=1e-6, s_per_token=0.1, run_s=30.0)


def slots(*g_per_kwh: float, **changes: Any) -> list[Slot]:
    """Hours of a forecast, the present one first."""
    one = Slot(start=NOW, until=NOW, g_per_kwh=0.0, factor="lifecycle", quality="forecast")
    return [
        replace(one, start=FIRST + n * HOUR, until=FIRST + (n + 1) * HOUR, g_per_kwh=g, **changes)
        for n, g in enumerate(g_per_kwh)
    ]


def option(node: str = "n1", zone: str | None = "DE", *g_per_kwh: float, **changes: Any) -> Option:
    """A node, idle and known, on a grid with that forecast."""
    one = Option(
        node=node,
        zone=zone,
        wait_s=0.0,
        expected=USUAL,
        embodied_g_per_s=1e-6,
        slots=slots(*(g_per_kwh or (400.0,))),
    )
    return replace(one, **changes)


def now_(*options: Option, at: datetime = NOW) -> Place:
    return place(Wish(policy="greenest"), options, NOW, at, WAIT, {})


def by(hours: float, *options: Option, **changes: Any) -> Place:
    wish = Wish(policy="greenest", deadline=NOW + hours * HOUR)
    return place(wish, options, NOW, changes.pop("at", NOW), WAIT, changes.pop("booked", {}))


def test_the_greenest_node() -> None:
    """The node with the least O + M takes it, the reason says by how much, and the first free one is what it spares."""
    near, far = option("near", "DE", 400.0), option("far", "SE", 40.0, wait_s=60.0)
    chosen = now_(near, far)
    assert (chosen.line, chosen.start, chosen.due, chosen.plan.zone) == ("node:far", NOW, NOW + WAIT, "DE")
    assert chosen.plan.reason == (
        "far is expected to emit the least: 0.04 mg CO2e a token, 90 % less than near, which is free sooner"
    )
    thirsty = replace(far, expected=replace(USUAL, kwh_per_token=2e-5))
    assert now_(near, thirsty).line == "node:near"
    heavy = replace(far, embodied_g_per_s=0.1)
    assert now_(near, heavy).line == "node:near"


def test_no_greener_node_is_worth_any_wait() -> None:
    """One that is not free in time is left out; when the time is up, the first free one takes it."""
    near, far = option("near", "DE", 400.0), option("far", "SE", 40.0, wait_s=601.0)
    assert now_(near, far).line == "node:near"
    late = now_(replace(near, wait_s=1.0), at=NOW + WAIT)
    assert (late.line, late.due) == ("fastest", None)
    assert late.plan.reason == "no greener node was free within 10 minutes: the first free one takes it"


def test_what_is_not_known_is_not_guessed() -> None:
    """A node without past runs is left out by name; where there is none with any, the first free node takes it."""
    known, new = option("known", "DE", 400.0), option("new", "SE", 1.0, expected=None)
    chosen = now_(known, new)
    assert chosen.line == "node:known"
    assert "(not compared: new, of which too little is known" in chosen.plan.reason
    assert now_(new).line == "fastest"
    assert "nothing is known yet" in now_(new).plan.reason
    assert now_().line == "fastest"


def test_only_like_is_compared_with_like() -> None:
    """Energies of another scope, and intensities that count less, are left out and named."""
    wall = [option(f"w{n}", "DE", 400.0) for n in range(2)]
    cpu = option("cpu", "DE", 400.0, expected=replace(USUAL, scope="cpu", kwh_per_token=1e-9))
    chosen = now_(*wall, cpu)
    assert chosen.line == "node:w0"
    assert chosen.plan.reason.endswith("(not compared: cpu, metered otherwise)")
    direct = option("gb", "GB", slots=slots(10.0, factor="direct"))
    assert now_(wall[0], direct).line == "node:w0"
    assert "direct emissions only" in now_(wall[0], direct).plan.reason


def test_the_greenest_hour() -> None:
    """Work with a deadline waits for the greenest hour before it, and the reason says when and what is expected."""
    one = option("n1", "DE", 400, 380, 390, 300, 210, 350, 90)
    chosen = by(5, one)
    assert (chosen.line, chosen.start) == ("node:n1", FIRST + 4 * HOUR)
    assert chosen.due == chosen.start
    assert chosen.plan.shifted
    assert chosen.plan.reason == (
        "deferred to 02:00 UTC on 24 Nov, when the grid of DE is expected at 210 g/kWh instead of 400 now"
    )
    soon = by(1, one)
    assert (soon.start, soon.due) == (FIRST + HOUR, FIRST + HOUR)
    falling = by(6, option("n1", "DE", 100, 380, 390, 300))
    assert (falling.start, falling.due) == (NOW, NOW + 6 * HOUR - timedelta(seconds=60))


def test_no_forecast_no_wait() -> None:
    """Where only a year's mean is known there is nothing to wait for; near its deadline work goes before the rest."""
    year = option(slots=[replace(slots(400.0)[0], until=NOW + 100 * HOUR, quality="yearly")])
    chosen = by(6, year)
    assert (chosen.line, chosen.start, chosen.urgent) == ("fastest", NOW, False)
    assert "no forecast of the grid of DE is known" in chosen.plan.reason
    late = by(6, year, at=NOW + 6 * HOUR - timedelta(seconds=59))
    assert (late.line, late.urgent, late.due) == ("fastest", True, None)
    assert "its deadline 04:30 UTC" in late.plan.reason


def test_an_hour_has_room_for_so_many() -> None:
    """What is already deferred to an hour, for this node or for any of its zone, fills it; what does not fit goes to
    the next best."""
    one = option("n1", "DE", 400, 300, 100, 200)
    best, second = (FIRST + n * HOUR for n in (2, 3))
    assert by(4, one, booked={("node:n1", best): 119}).start == best
    assert by(4, one, booked={("node:n1", best): 120}).start == second
    assert by(4, one, booked={("node:n1", best): 60, ("zone:DE", best): 60, ("zone:SE", best): 9}).start == second


def test_of_equals_the_sooner() -> None:
    """Differences that no meter and no forecast can tell decide nothing."""
    assert now_(option("a", "DE", 399.0, wait_s=30.0), option("b", "DE", 400.0)).line == "node:b"
    assert by(3, option("n1", "DE", 400, 101, 100)).start == FIRST + HOUR


FORECAST = st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=30)
FLEET = st.lists(
    st.tuples(
        FORECAST,
        st.one_of(st.none(), st.floats(0.0, 5000.0)),
        st.one_of(st.none(), st.floats(1e-8, 1e-4)),
        st.sampled_from(["wall", "cpu"]),
    ),
    max_size=5,
)


@given(FLEET, st.one_of(st.none(), st.floats(0.01, 48.0)), st.floats(0.0, 48.0))
def test_any_fleet(fleet: Sequence[Any], deadline_h: float | None, later_h: float) -> None:
    """Whatever is known, there is a place with a reason: never after the deadline, and never looked at in the past."""
    options = []
    for number, (forecast, wait_s, kwh, scope) in enumerate(fleet):
        known = replace(USUAL, kwh_per_token=kwh, scope=scope) if kwh is not None else None
        options.append(option(f"n{number}", "DE", *forecast, wait_s=wait_s, expected=known))
    at = NOW + later_h * HOUR
    wish = Wish(policy="greenest", deadline=None if deadline_h is None else NOW + deadline_h * HOUR)
    chosen = place(wish, options, NOW, at, WAIT, {})
    assert chosen.plan.reason
    assert chosen.line == "fastest" or chosen.line.removeprefix("node:") in {one.node for one in options}
    assert chosen.start >= at
    assert chosen.due is None or chosen.due >= at
    if chosen.start > at:
        assert wish.deadline is not None
        assert chosen.start < wish.deadline
        assert chosen.due == chosen.start
    if wish.deadline is not None and at >= wish.deadline:
        assert chosen.urgent


def test_what_past_runs_tell() -> None:
    """Medians by token of the runs with the newest one's scope; a receipt without energy or tokens tells nothing."""
    runs = [PastRun(scope="cpu", energy_kwh=9.0, reserved_s=9.0, output_tokens=1)]
    assert expected_of([]) is None
    runs += [PastRun(scope="wall", energy_kwh=k * 1e-6, reserved_s=10.0 * k, output_tokens=10) for k in (1, 2, 9)]
    told = expected_of(runs)
    assert told is not None
    assert (told.scope, told.s_per_token, told.run_s) == ("wall", 2.0, 20.0)
    assert told.kwh_per_token == pytest.approx(2e-7)
    made = account(
        trace(series(COUNTER, work(10.0, 30.0, 30.0, 32.0), 34.0)), factors(), receipt_id="r", placement=PLACEMENT
    )
    one = past_run(made)
    assert one is not None
    assert (one.energy_kwh, one.reserved_s) == (made.sci.reserved.E_kwh, made.sci.reserved.TiR_s)
    assert past_run(replace(made, verdict="invalid")) is None
    assert past_run(replace(made, usage=replace(made.usage, output_tokens=None))) is None
