"""What if elsewhere, or later: only O moves, like is compared with like, and nothing is promised that is not known."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting.whatif import Move, Option, WhatIf, what_if, window
from joulebox.model import DatedIntensity, Intensity, Quality
from joulebox.server.grid.chain import GridValue
from joulebox.server.whatif_words import chart, sentences
from server_stage import Json, done, stage
from traces import factors

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def grid(g_per_kwh: float, quality: Quality = "yearly", **changes: object) -> Intensity:
    fields: dict[str, object] = {"g_per_kwh": g_per_kwh, "quality": quality, "zone": "DE"} | changes
    return replace(factors().intensity, **fields)  # type: ignore[arg-type]


def hours(
    *values: float, start: datetime = NOON, quality: Quality = "measured", **changes: object
) -> list[DatedIntensity]:
    return [
        DatedIntensity(
            start=(start + number * HOUR).isoformat(),
            until=(start + (number + 1) * HOUR).isoformat(),
            intensity=grid(value, quality, **changes),
        )
        for number, value in enumerate(values)
    ]


YEARLY = {"DE": grid(400.0), "FR": grid(40.0), "IS": grid(20.0), "PL": grid(700.0)}


def found(**changes: object) -> WhatIf:
    fields: dict[str, object] = {
        "ran": (0.001, 0.1, grid(400.0)),
        "zone": "DE",
        "hourly": {},
        "yearly": YEARLY,
        "now": NOON,
    }
    return what_if(**(fields | changes))  # type: ignore[arg-type]


def test_moving_by_hand() -> None:
    """An answer of 1 Wh is 0.4 g at 400 g/kWh and 0.02 g at 20: 0.38 of 0.5 g with its hardware are saved."""
    move = found().place
    assert move is not None
    assert (move.to.zone, move.instead.zone) == ("IS", "DE")
    assert move.saved_g == pytest.approx(0.38)
    assert move.saved_ratio == pytest.approx(0.76)
    assert [one.zone for one in found().places] == ["IS", "FR", "DE", "PL"]


def test_hardware_does_not_move() -> None:
    """The more of an answer is hardware, the smaller the share that moving saves; the grams stay."""
    light, heavy = found().place, found(ran=(0.001, 9.6, grid(400.0))).place
    assert light is not None
    assert heavy is not None
    assert light.saved_g == heavy.saved_g
    assert heavy.saved_ratio == pytest.approx(0.038)


@given(st.dictionaries(st.sampled_from(["DE", "FR", "IS", "PL"]), st.floats(0, 2000), min_size=1), st.floats(0, 2000))
def test_moving_never_costs(means: dict[str, float], g_per_kwh: float) -> None:
    """To stay is always possible: nothing is saved then, and never less than nothing."""
    move = found(ran=(0.001, 0.1, grid(g_per_kwh)), yearly={zone: grid(one) for zone, one in means.items()}).place
    assert move is not None
    assert 0 <= move.saved_ratio <= 1
    assert move.saved_g <= move.instead.O_g


def test_means_of_the_year_know_no_hours() -> None:
    """Without live values places are compared, no hour is named, and the words say so."""
    told = " ".join(sentences(found()))
    assert (found().by, found().hour, found().best) == ("yearly", None, None)
    assert "Iceland (IS)" in told
    assert "no hour can be named" in told
    assert "making the machine does not move" in told


def test_where_nothing_is_greener_nothing_is_promised() -> None:
    """In the greenest grid, and at the greenest hour, the words say that moving would have saved nothing."""
    here = found(ran=(0.001, 0.1, grid(20.0, "measured")), zone="IS", hourly={"IS": hours(20.0, 30.0)})
    told = " ".join(sentences(here))
    assert "No known grid is greener than Iceland (IS): moving would save nothing." in told
    assert "At no known hour in Iceland (IS) would it have been greener." in told


def test_hours_of_one_place() -> None:
    """Where this grid's hours are known the greenest is named with its saving against when it ran."""
    here = found(ran=(0.001, 0.1, grid(300.0, "measured")), hourly={"DE": hours(300.0, 200.0, 100.0, 250.0)})
    assert here.hour is not None
    assert here.hour.to.start == (NOON + 2 * HOUR).isoformat()
    assert here.hour.saved_g == pytest.approx(0.2)
    assert here.by == "yearly"
    assert "23 November, 14:00 to 15:00 UTC" in " ".join(sentences(here))


def test_everything_that_is_told_of_two_hours() -> None:
    """Of two hours of two grids every option, move and figure is as reckoned by hand; an hour is over at its end."""
    both = {"DE": hours(300.0, 200.0), "FR": hours(60.0, 250.0, quality="forecast")}
    later = NOON + HOUR
    told = what_if((0.5, 50.0, grid(400.0, "measured")), "DE", both, YEARLY, later)

    def option(zone: str, hour: int, g_per_kwh: float, quality: Quality) -> Option:
        times = [(NOON + (hour + more) * HOUR).isoformat() for more in (0, 1)]
        return Option(
            zone=zone, start=times[0], until=times[1], g_per_kwh=g_per_kwh, quality=quality, O_g=g_per_kwh / 2
        )

    here = Option(zone="DE", start=None, until=None, g_per_kwh=400.0, quality="measured", O_g=200.0)
    german = [option("DE", hour, value, "measured") for hour, value in enumerate((300.0, 200.0))]
    french = [option("FR", hour, value, "forecast") for hour, value in enumerate((60.0, 250.0))]
    assert told == WhatIf(
        here=here,
        M_g=50.0,
        E_kwh=0.5,
        by="hourly",
        place=Move(to=german[1], instead=german[1], saved_g=0.0, saved_ratio=0.0),
        hour=Move(to=german[1], instead=here, saved_g=100.0, saved_ratio=0.4),
        best=Move(to=french[0], instead=here, saved_g=170.0, saved_ratio=0.68),
        places=(german[1], french[1]),
        hours=tuple(german),
    )
    assert found(hourly={"DE": hours(300.0)}).hour is None


def test_means_of_the_year_are_told_whole() -> None:
    """A mean is an option without a time, of its own quality."""
    told = found(yearly={"FR": grid(40.0)}, ran=(0.5, 0.0, grid(400.0))).places
    assert told == (Option(zone="FR", start=None, until=None, g_per_kwh=40.0, quality="yearly", O_g=20.0),)


def test_of_equals_the_first() -> None:
    """Of equally green options the earliest is named, and of those the first by name; what drew and cost nothing saves
    nothing."""
    late = {"DE": hours(90.0, 50.0, 50.0), "FR": hours(90.0, 50.0), "AT": hours(50.0, start=NOON + 2 * HOUR)}
    best = found(hourly=late, ran=(0.0, 0.0, grid(90.0, "measured"))).best
    assert best is not None
    assert (best.to.zone, best.to.start) == ("DE", (NOON + HOUR).isoformat())
    assert (best.saved_g, best.saved_ratio) == (0.0, 0.0)


def test_a_day_back_and_a_day_ahead() -> None:
    """The hours that are looked at begin a day before now and end a day after it."""
    assert window(NOON) == (datetime(2026, 11, 22, 12, tzinfo=UTC), datetime(2026, 11, 24, 12, tzinfo=UTC))


def test_the_present_hour_of_many_places() -> None:
    """Where the present hour of several grids is known it is that hour that is compared, not the years' means."""
    both = {"DE": hours(300.0, 90.0), "FR": hours(60.0, 50.0, quality="forecast")}
    live = found(ran=(0.001, 0.1, grid(310.0, "measured")), hourly=both)
    assert live.by == "hourly"
    assert live.place is not None
    assert live.best is not None
    assert live.place.to.zone == "FR"
    assert live.place.saved_g == pytest.approx(0.24)
    assert (live.best.to.zone, live.best.to.g_per_kwh) == ("FR", 50.0)
    assert found(hourly=both, now=NOON + 9 * HOUR).by == "yearly"


def test_direct_and_life_cycle_are_never_compared() -> None:
    """A source that counts power stations alone is no greener place beside one that counts the life cycle."""
    both = {"DE": hours(300.0, 290.0), "GB": hours(10.0, 10.0, factor="direct")}
    live = found(ran=(0.001, 0.1, grid(310.0, "measured")), hourly=both)
    assert (live.by, live.best) == ("yearly", None)
    direct = found(ran=(0.001, 0.1, grid(310.0, "measured", factor="direct")), hourly=both)
    assert direct.places == ()
    assert direct.place is None


def test_the_operators_own_figure_stays() -> None:
    """What the operator set is what moving is compared with, and the words say that it is another kind of figure."""
    own = found(ran=(0.001, 0.1, grid(10.0, "static")))
    assert own.place is not None
    assert own.place.saved_g == 0
    assert any("nothing" in sentence for sentence in sentences(own))
    assert any("operator's figure" in sentence for sentence in sentences(own))


def test_drawings() -> None:
    """Grids are lines, hours are steps with their gaps; both are told in words for who does not see them."""
    from dataclasses import asdict

    places = chart(asdict(found()))
    gap = [*hours(300.0, 200.0), *hours(100.0, start=NOON + 5 * HOUR)]
    steps = chart(asdict(found(ran=(0.001, 0.1, grid(300.0, "measured")), hourly={"DE": gap})))
    assert places is not None
    assert steps is not None
    assert places["rest"].count("M") == 4
    assert "from 20.0 mg in Iceland (IS) to 0.700 g in Poland (PL); here 0.400 g" in places["label"]
    assert steps["rest"].count("M") == 2
    assert chart(asdict(found(yearly={}))) is None


async def test_from_the_service(tmp_path: Path) -> None:
    """A real receipt says what moving would have saved, on its page, by route and with the live hours once they are
    there."""
    async with stage(tmp_path) as scene:
        await scene.join()
        prompt = await scene.ask()
        lease = await scene.lease()
        await scene.finish(lease, done(lease, "yes"))
        receipt_id = (await scene.until(prompt["id"], "completed"))["receipt_id"]
        before: Json = (await scene.http.get(f"/api/v1/receipts/{receipt_id}/whatif")).json()["whatif"]
        page = (await scene.http.get(f"/receipts/{receipt_id}")).text
        start = window(datetime.now(UTC))[0].replace(minute=0, second=0, microsecond=0)
        live = [
            GridValue(
                zone="DE",
                source="energy-charts",
                start=start + number * HOUR,
                until=start + (number + 1) * HOUR,
                g_per_kwh=400.0 - number,
                quality="measured",
            )
            for number in range(40)
        ]
        await scene.store.keep_grid_values(live, datetime.now(UTC))
        await scene.grid.open()
        after: Json = (await scene.http.get(f"/api/v1/receipts/{receipt_id}/whatif")).json()["whatif"]
        missing = await scene.http.get("/api/v1/receipts/none/whatif")
    assert len(before["places"]) > 300
    assert before["place"]["saved_g"] == pytest.approx(before["place"]["instead"]["O_g"] - before["place"]["to"]["O_g"])
    assert before["sentences"][0].replace("'", "&#39;") in page
    assert 'role="img"' in page
    assert (len(after["hours"]), after["hour"]["to"]["g_per_kwh"]) == (40, 361.0)
    assert missing.status_code == 404
