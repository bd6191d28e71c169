"""What live sources are asked and how their documented answers and errors read, over real HTTP."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from grid_peers import BAD_KEY, KEY, NOT_IN_PLAN, TEN, Answer, Peer, latest, past, peer, row, zones
from joulebox.client import Web
from joulebox.server.grid.chain import GridValue
from joulebox.server.grid.feeds import ElectricityMaps, EnergyCharts, GreatBritain, Trouble

pytestmark = pytest.mark.anyio
NOW = TEN + timedelta(minutes=30)
HOUR = timedelta(hours=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    web = Web(timeout_s=0.5)
    yield web
    await web.close()


def maps(web: Web, told: Peer) -> ElectricityMaps:
    return ElectricityMaps(web, told.url, KEY)


def brief(values: Any) -> list[tuple[int, float, str]]:
    """Hours after ten, grams, quality."""
    return [((one.start - TEN) // HOUR, one.g_per_kwh, one.quality) for one in values]


async def test_the_present_hour(web: Web) -> None:
    """`latest` is asked with the key in its header and no look at the caller; an estimate names its method."""
    with peer(zones=zones(), latest=latest(302)) as told:
        (value,) = await maps(web, told).values("DE", NOW, NOW, NOW)
        assert value == GridValue(
            zone="DE",
            source="electricity-maps",
            start=TEN,
            until=TEN + HOUR,
            g_per_kwh=302.0,
            quality="estimated",
            note="estimated by TIME_SLICER_AVERAGE",
        )
        asked = told.asked[-1]
        assert asked.path == "/carbon-intensity/latest"
        assert asked.query["zone"] == "DE"
        assert all(one.query.get("disableCallerLookup") == "true" for one in told.asked if "intensity" in one.path)
        assert all(one.headers["auth-token"] == KEY for one in told.asked)


async def test_hours_past_and_to_come(web: Web) -> None:
    """Past hours come from `past-range` in a bounded window, coming ones from `forecast`, each with its quality."""
    hours = past(row(-2, 280, estimated=False), row(-1, 290, estimated=True))
    ahead = past(row(1, 310), row(2, 320), key="forecast")
    with peer(zones=zones(), latest=latest(), past_range=hours, forecast=ahead) as told:
        found = await maps(web, told).values("DE", NOW - 2 * HOUR, NOW + 24 * HOUR, NOW)
        assert sorted(brief(found)) == [
            (-2, 280, "measured"),
            (-1, 290, "estimated"),
            (0, 300, "estimated"),
            (1, 310, "forecast"),
            (2, 320, "forecast"),
        ]
        window = next(one.query for one in told.asked if one.path.endswith("past-range"))
        assert (window["start"], window["end"]) == ("2026-11-23T08:00Z", "2026-11-23T10:00Z")


async def test_a_plan_without_past_range_looks_at_the_last_day(web: Web) -> None:
    """Where the plan lacks `past-range`, `history` tells the last 24 hours, and what lies before is not asked for."""
    plan = ["carbon-intensity/latest", "carbon-intensity/history"]
    with peer(zones=zones(plan), history=past(row(-3, 200, estimated=False), key="history")) as told:
        feed = maps(web, told)
        assert brief(await feed.values("DE", NOW - 3 * HOUR, NOW - 3 * HOUR, NOW)) == [(-3, 200, "measured")]
        assert await feed.values("DE", NOW - 30 * HOUR, NOW - 30 * HOUR, NOW) == []
        assert [told.count(ending) for ending in ("history", "past-range", "zones")] == [1, 0, 1]


async def test_the_plan_is_asked_for_once(web: Web) -> None:
    """Zones are probed once; a zone outside the plan is never asked about."""
    with peer(zones=zones(zone="FR"), latest=latest(30, zone="FR")) as told:
        feed = maps(web, told)
        assert feed.serves("DE")
        for _ in range(3):
            assert await feed.values("DE", NOW, NOW, NOW) == []
            assert brief(await feed.values("FR", NOW, NOW, NOW)) == [(0, 30, "estimated")]
        assert (feed.serves("DE"), feed.serves("FR")) == (False, True)
        assert told.count("zones") == 1
        assert "DE" not in [one.query.get("zone") for one in told.asked]


async def test_not_in_the_plan_is_no_bad_key(web: Web) -> None:
    """A 401 that names zone and request switches that request off, and the key goes on being used for others."""
    with peer(zones=Answer(data={}), latest=Answer(401, NOT_IN_PLAN), history=past(key="history")) as told:
        feed = maps(web, told)
        for _ in range(3):
            assert await feed.values("DE", NOW, NOW, NOW) == []
        assert told.count("latest") == 1
        assert feed.serves("DE")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where", ["zones", "latest"])
async def test_a_bad_key(web: Web, where: str, status: int) -> None:
    """A key that is refused is `refused`, whether the plan or the first value says so."""
    told_zones = Answer(status, BAD_KEY) if where == "zones" else Answer(data={})
    with peer(zones=told_zones, latest=Answer(status, BAD_KEY)) as told:
        with pytest.raises(Trouble) as trouble:
            await maps(web, told).values("DE", NOW, NOW, NOW)
        assert trouble.value.kind == "refused"
        assert KEY not in str(trouble.value)


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        (Answer(429, {}, headers=(("Retry-After", "120"),)), "throttled", "429"),
        (Answer(500, {"error": "oops"}), "broken", "500"),
        (Answer(raw=b"<html>maintenance"), "broken", "not JSON"),
        (Answer(raw=b"[" * 100_000), "broken", "not JSON"),
        (Answer(raw=b'{"zone":"DE"' + b" " * 5_000_000), "broken", "bytes"),
        (Answer(data=[1, 2]), "broken", "zone DE"),
        (latest(zone="FR"), "broken", "zone DE"),
        (Answer(302, {}, headers=(("Location", "http://127.0.0.1:9/"),)), "broken", "302"),
        (Answer(raw=b"x", headers=(("Content-Encoding", "gzip"),)), "broken", "packed"),
        (Answer(wait_s=5.0), "broken", "within 0.5 s"),
    ],
    ids=["429", "500", "html", "deep", "huge", "list", "other-zone", "redirect", "packed", "slow"],
)
async def test_what_is_wrong_is_named(web: Web, answer: Answer, kind: str, part: str) -> None:
    """Each failure of a source is told apart, bounded in time and size, and never shows the key."""
    with peer(zones=zones(), latest=answer) as told:
        with pytest.raises(Trouble, match=part) as trouble:
            await maps(web, told).values("DE", NOW, NOW, NOW)
        assert trouble.value.kind == kind
        assert trouble.value.retry_s == (120.0 if kind == "throttled" else None)
        assert KEY not in str(trouble.value)


async def test_nobody_is_there(web: Web) -> None:
    """A source that does not answer at all is broken."""
    with pytest.raises(Trouble) as trouble:
        await ElectricityMaps(web, "http://127.0.0.1:9", KEY).values("DE", NOW, NOW, NOW)
    assert trouble.value.kind == "broken"


@pytest.mark.parametrize("status", [400, 404])
async def test_no_data_is_no_trouble(web: Web, status: int) -> None:
    """A zone of which nothing is known gives nothing."""
    with peer(zones=zones(), latest=Answer(status, {"status": "no-data", "message": "none"})) as told:
        assert await maps(web, told).values("DE", NOW, NOW, NOW) == []


@pytest.mark.parametrize("wrong", [None, "300", True, -5, 1e9, float("inf")])
async def test_what_is_no_intensity_is_left_out(web: Web, wrong: object) -> None:
    """Null, text, negative and impossible figures are absent, never zero."""
    with peer(zones=zones(), latest=latest(wrong)) as told:
        assert await maps(web, told).values("DE", NOW, NOW, NOW) == []


async def test_great_britain(web: Web) -> None:
    """Half hours that are over are measured, the others forecast; the zone is GB alone."""
    rows = [
        {"from": "2026-11-23T09:30Z", "to": "2026-11-23T10:00Z", "intensity": {"forecast": 266, "actual": 263}},
        {"from": "2026-11-23T10:00Z", "to": "2026-11-23T10:30Z", "intensity": {"forecast": 270, "actual": None}},
        {"from": "2026-11-23T10:30Z", "to": "never", "intensity": {"forecast": 1, "actual": 1}},
    ]
    with peer(intensity=Answer(data={"data": rows})) as told:
        feed = GreatBritain(web, told.url)
        values = await feed.values("GB", TEN - HOUR / 3, TEN + HOUR / 6, NOW)
        assert [(one.g_per_kwh, one.quality, one.until - one.start) for one in values] == [
            (263.0, "measured", HOUR / 2),
            (270.0, "forecast", HOUR / 2),
        ]
        assert told.asked[0].path == "/intensity/2026-11-23T09:30Z/2026-11-23T10:30Z"
        assert (feed.serves("GB"), feed.serves("DE")) == (True, False)


async def test_energy_charts(web: Web) -> None:
    """Quarters of an hour with a figure are measured, later ones forecast, empty ones absent."""
    start = int(TEN.timestamp())
    data = {
        "unix_seconds": [start, start + 900, start + 1800],
        "co2eq": [350.5, None, None],
        "co2eq_forecast": [340.0, 360.0, None],
    }
    with peer(co2eq=Answer(data=data)) as told:
        feed = EnergyCharts(web, told.url)
        values = await feed.values("DE", NOW, NOW, NOW)
        assert [(one.start, one.g_per_kwh, one.quality) for one in values] == [
            (TEN, 350.5, "measured"),
            (TEN + HOUR / 4, 360.0, "forecast"),
        ]
        assert told.asked[0].query["country"] == "de"
        assert (feed.serves("FR"), feed.serves("US")) == (True, False)
        told.answers["co2eq"] = Answer(data={"unix_seconds": [start], "co2eq": [1, 2]})
        with pytest.raises(Trouble):
            await feed.values("DE", NOW, NOW, NOW)


async def test_an_old_window_does_not_hide_a_young_one(web: Web) -> None:
    """A window that begins before the plan's last day still gets what that day holds."""
    plan = ["carbon-intensity/history"]
    with peer(zones=zones(plan), history=past(row(-3, 200, estimated=False), key="history")) as told:
        assert brief(await maps(web, told).values("DE", NOW - 40 * HOUR, NOW - 3 * HOUR, NOW)) == [
            (-3, 200, "measured")
        ]
