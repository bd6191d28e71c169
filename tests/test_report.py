"""The SCI report of a period: parts that add up to the last digit, everything once, what is unknown called unknown."""

import gc
import json
import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from math import hypot
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting.attempts import Spent
from joulebox.accounting.fleet import (
    ASKED,
    ORDER,
    Drawn,
    Piece,
    Work,
    electricity,
    fleet,
    idle_energy,
    made,
    making_method,
    mean_intensity,
    server_energy,
)
from joulebox.accounting.power_model import profile_of
from joulebox.clock import SimulatedClock
from joulebox.errors import JouleboxError
from joulebox.model import Counted, EmbodiedPart, Grams, IdleStretch, Problem, ReadingKind
from joulebox.protocol import Finish, pack_trace
from joulebox.server.jobs import FinishedJob
from joulebox.server.pages import render_report
from joulebox.server.period import Gathered, Period, gather, node_times, parts_of
from joulebox.server.report import asked
from joulebox.server.report_words import as_markdown
from page_stage import RECEIPTS, as_json
from server_stage import COUNTER, Json, Stage, done, evidence, stage
from traces import factors

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- the sum ----------------------------------------------------------------------------------------------------------


def piece(part: str, g: float = 1.0, **changes: Any) -> Piece:
    made = {"making", "making-control", "waiting"}
    fields: Json = {
        "part": part,
        "method": "measured",
        "node": "n1",
        "zone": "DE",
        "grams": Grams(g=g, low=g / 2, high=g * 2),
        "kwh": None if part in made else g / 400,
    }
    return Piece(**(fields | changes))


nodes_of = st.sampled_from([("n1", "DE"), ("n2", "DE"), ("n3", "FR")])
drawn = st.builds(
    lambda part, g, place, model: piece(
        part,
        g,
        node=place[0],
        zone=place[1],
        model=model if part in ASKED else None,
    ),
    st.sampled_from(ORDER),
    st.floats(0, 1e4),
    nodes_of,
    st.sampled_from("ab"),
)
work_of = st.builds(
    lambda place, model, worked_s: Work(node=place[0], zone=place[1], model=model, worked_s=worked_s),
    nodes_of,
    st.sampled_from("ab"),
    st.floats(0.1, 1e4),
)


@given(st.lists(drawn, max_size=30), st.lists(work_of, min_size=1, max_size=8))
def test_models_and_zones_add_up_to_the_fleet(pieces: list[Piece], work: list[Work]) -> None:
    """The reports of every model add up to that of the fleet, and so do those of every zone: nothing is lost or told
    twice by asking for a part."""
    every = fleet(pieces, work, 3, (10, 20))
    models = [fleet(pieces, work, 1, (1, 1), model=model).total.g for model in "ab"]
    zones = [fleet(pieces, work, 1, (1, 1), zone=zone).total.g for zone in ("DE", "FR")]
    both = [fleet(pieces, work, 1, (1, 1), zone=zone, model=model).kwh for zone in ("DE", "FR") for model in "ab"]
    assert sum(models) == pytest.approx(every.total.g)
    assert sum(zones) == pytest.approx(every.total.g)
    assert sum(both) == pytest.approx(every.kwh)
    assert every.total.g == pytest.approx(sum(one.grams.g for one in pieces))
    assert sum(one.grams.high for one in every.components) == pytest.approx(every.total.high)


def test_a_score_is_sum_by_sum() -> None:
    """600 g for 2 answers of 300 tokens together are 2 g a token, 300 g an answer; of no tokens there is no score."""
    pieces = [piece("answer", 100.0), piece("idle", 200.0), piece("waiting", 300.0)]
    found = fleet(pieces, [], 2, (100, 200))
    assert found.score.per_token == Grams(g=2.0, low=1.0, high=4.0)
    assert found.score.per_output_token == Grams(g=3.0, low=1.5, high=6.0)
    assert found.score.per_answer == Grams(g=300.0, low=150.0, high=600.0)
    assert (found.waiting.g, found.waiting_kwh) == (500.0, 0.5)
    nothing = fleet([], [], 0, (0, 0))
    assert (nothing.total, nothing.score.per_token, nothing.score.per_answer) == (
        Grams(g=0.0, low=0.0, high=0.0),
        None,
        None,
    )
    assert fleet(pieces, [], 2, (None, 5)).score.per_token is None


def test_the_server_is_in_the_sum_of_a_quiet_period() -> None:
    """What the server drew while nobody asked is in the report of everything, and in that of no zone or model: nobody
    worked whose it could be."""
    server = [piece("server", 8.0, zone=None)]
    found = [fleet(server, [], 0, (0, 0), **only).kwh for only in ({}, {"zone": "DE"}, {"model": "a"})]
    assert found == [0.02, 0.0, 0.0]


def test_a_model_has_the_share_of_each_node_that_it_worked_there() -> None:
    """Of the waiting of a node that worked a quarter of its time at a model that model has a quarter, range and all,
    whatever other nodes did; of one that did nothing, what it has of all nodes."""
    work = [
        Work(node="n1", zone="DE", model="a", worked_s=1.0),
        Work(node="n1", zone="DE", model="b", worked_s=3.0),
        Work(node="n2", zone="DE", model="a", worked_s=4.0),
    ]
    (own,) = fleet([piece("idle", 8.0)], work, 1, (1, 1), model="a").components
    (idler,) = fleet([piece("idle", 8.0, node="n3")], work, 1, (1, 1), model="a").components
    assert (own.grams, own.kwh) == (Grams(g=2.0, low=1.0, high=4.0), 0.005)
    assert idler.grams.g == 5.0


def test_making_a_machine_is_no_electricity() -> None:
    """Lines of hardware have no kilowatt hours; a machine that drew nothing has none of them, not an unknown number."""
    pieces = [piece("idle", 0.0), piece("making"), piece("making-control"), piece("waiting")]
    assert [one.kwh for one in fleet(pieces, [], 1, (1, 1)).components] == [0.0, None, None, None]


def test_making_by_hand() -> None:
    """A year of a machine of 400 kg that lives four is 100 kg of its own footprint, not of the zone's usual machine; it
    is modelled where parts were added up."""
    te = replace(factors().embodied, low_kg=200.0, central_kg=400.0, high_kg=800.0)
    assert made(te, 365 * 86400.0, factors()) == Grams(g=100_000.0, low=50_000.0, high=200_000.0)
    part = EmbodiedPart(part="board", low_kg=1.0, central_kg=1.0, high_kg=1.0, source="test")
    assert [making_method(one) for one in (te, replace(te, parts=(part,)))] == ["sourced", "modelled"]


@pytest.mark.parametrize(
    ("j", "u", "kwh", "low", "high"),
    [(3.6e6, 1.8e6, 2.0, 1.0, 3.0), (0.36, 0.36, 2e-7, 0.0, 4e-7), (-0.36, 0.18, 0.0, 0.0, 0.0)],
    ids=["a kilowatt hour", "hardly anything", "less than nothing"],
)
def test_electricity_is_never_below_nothing(j: float, u: float, kwh: float, low: float, high: float) -> None:
    """Figure and both ends of its range are scaled alike, and none is below zero."""
    grid = replace(factors().intensity, g_per_kwh=1.0, low=1.0, high=1.0)
    found_kwh, grams = electricity(Drawn(scope="wall", j=j, u=u), grid, 2.0)
    assert (found_kwh, grams.g, grams.low, grams.high) == pytest.approx((kwh, kwh, low, high))


def test_idle_electricity_by_hand() -> None:
    """An hour at 36 W under 400 g/kWh and a PUE of 1.5 is 54 Wh and 21.6 g; a gain of 2 % widens the range."""
    counted = (Counted(channel=replace(COUNTER, scope="wall", gain_u_ratio=0.02), amount=129_600.0, edge=0.0),)
    found = idle_energy(counted, 3600.0, 4, 8)
    grid = replace(factors().intensity, g_per_kwh=400.0, low=300.0, high=500.0)
    kwh, grams = electricity(found, grid, 1.5)
    assert (found.scope, found.method) == ("wall", "measured")
    assert kwh == pytest.approx(0.054)
    assert grams.g == pytest.approx(21.6)
    assert grams.low == pytest.approx(0.054 * 0.98 * 300)
    assert grams.high == pytest.approx(0.054 * 1.02 * 500)


def test_idle_uncertainty_by_hand() -> None:
    """Gains, offsets and ticks of two plugs of one machine add up; those of different scopes are independent, save the
    ticks."""
    one = replace(COUNTER, scope="wall", gain_u_ratio=0.1, offset_u=0.4)
    plugs = [Counted(channel=one, amount=j, edge=edge) for j, edge in ((100.0, 3.0), (-20.0, 4.0))]
    assert idle_energy(plugs, 10.0, 4, 8).u == pytest.approx(2 * hypot(6.0, 4.0, 7.0))
    assert idle_energy(plugs, 10.0, 4, 8).j == 80.0
    parts = [
        replace(one, channel=replace(one.channel, scope=scope))
        for one, scope in zip(plugs, ("dram", "cpu"), strict=True)
    ]
    found = idle_energy(parts, 10.0, 4, 8)
    assert found.scope == "cpu+dram"
    assert found.u == pytest.approx(2 * hypot(5.0, 1.0, 2.0, 2.0, 7.0))


def test_idle_without_a_meter_is_modelled() -> None:
    """Behind busy cores stand the model's watts, for an idle machine and for what was busy; the server's own time is
    worth what a busy core adds."""
    busy = replace(COUNTER, kind=ReadingKind.BUSY_RATIO, scope="machine")
    found = idle_energy((Counted(channel=busy, amount=7.0, edge=3.0),), 100.0, 4, 8_000_000_000)
    profile = profile_of(4, 8_000_000_000)
    assert found.method == "modelled"
    assert found.j == pytest.approx(100 * profile.idle_w + 7 * profile.busy_core_w)
    assert found.u == pytest.approx(hypot(100 * profile.idle_u_w, 7 * profile.busy_core_u_w, 6 * profile.busy_core_w))
    server = server_energy(10.0)
    assert server.method == "modelled"
    assert server.j == pytest.approx(10 * profile.busy_core_w)
    assert server.u == pytest.approx(10 * min(profile.busy_core_w, profile.busy_core_u_w))


def test_an_intensity_over_time_is_by_seconds() -> None:
    """Half an hour at 100 and a quarter at 400 g/kWh are 200 for a machine that draws evenly; the mean is as sure as
    the less sure, and names both sources, and a stretch of no length is what it began under."""
    live = replace(
        factors().intensity, g_per_kwh=100.0, low=50.0, high=200.0, quality="measured", source="grid", at="10"
    )
    usual = replace(live, g_per_kwh=400.0, low=350.0, high=500.0, quality="yearly", source="table", at="2025")
    mean = replace(usual, g_per_kwh=200.0, low=150.0, high=300.0, source="grid; table", at="10")
    assert mean_intensity([(1800.0, live), (900.0, usual)]) == mean
    assert mean_intensity([(900.0, usual), (1800.0, live)]) == replace(mean, source="table; grid", at="2025")
    assert mean_intensity([(0.0, live), (0.0, usual)]) == mean_intensity([(900.0, live)]) == live


def test_a_run_in_parts() -> None:
    """Answer, loading and the rest add up to what the run itself drew; attempts before it are told apart."""
    energy = {
        "scope": "wall",
        "full": {"j": 100.0, "u": 10.0},
        "answer": {"j": 50.0, "u": 5.0},
        "phases": {"load": {"j": 12.0}},
    }
    parts = dict(parts_of(energy, Spent(j=20.0, u=2.0), "prompt"))
    assert {name: one.j for name, one in parts.items()} == {"answer": 50.0, "load": 12.0, "around": 18.0}
    assert sum(one.u for one in parts.values()) == pytest.approx(8.0)
    assert [(name, one.j) for name, one in parts_of(energy, Spent(), "control")] == [("control", 100.0)]


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_periods_in_words() -> None:
    """A day as the end is part of the period, nothing reaches beyond now, and seven days are the default."""
    wanted = asked("2026-11-20", "2026-11-21", "de", None, NOW)
    assert (wanted.period.start.isoformat(), wanted.period.until.isoformat(), wanted.zone) == (
        "2026-11-20T00:00:00+00:00",
        "2026-11-22T00:00:00+00:00",
        "DE",
    )
    assert asked(None, "2026-11-23", None, None, NOW).period.until == NOW
    assert asked(None, None, None, None, NOW).period.start == NOW - timedelta(days=7)
    assert asked("2026-11-23T09:00+01:00", None, None, None, NOW).period.start == NOW - timedelta(hours=4)


@pytest.mark.parametrize(("start", "until"), [("yesterday", None), ("2026-11-23", "2026-11-20"), (None, "2026-13-01")])
def test_periods_that_are_none(start: str | None, until: str | None) -> None:
    """What is no day, or ends before it begins, is refused with a sentence."""
    with pytest.raises(JouleboxError, match=r"day|begins"):
        asked(start, until, None, None, NOW)


# --- from the service -------------------------------------------------------------------------------------------------


def waiting(start: datetime, lasted_s: float, watts: float) -> IdleStretch:
    counted = (Counted(channel=COUNTER, amount=watts * lasted_s, edge=0.0),)
    return IdleStretch(start=start, until=start + timedelta(seconds=lasted_s), counted=counted)


async def report(scene: Stage, **query: str) -> Json:
    reply = await scene.http.get("/api/v1/report/sci", params=query)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


def component(found: Json, part: str) -> Json | None:
    return next((one for one in found["components"] if one["part"] == part), None)


async def a_day(scene: Stage, clock: SimulatedClock) -> None:
    """A node idles, answers, fails, idles again, answers what failed, and checks itself."""
    begin = clock.utc()
    await scene.join(idle=(waiting(begin - timedelta(seconds=600), 600, 10.0),), cores=4, host="elsewhere")
    await scene.ask()
    lease = await scene.lease()
    await scene.finish(lease, done(lease, "yes", origin=begin, zone="DE"))
    asked_again = await scene.ask("again")
    lease = await scene.lease()
    broken = Problem(code="engine_died", detail="It died.")
    left = pack_trace(evidence(lease, origin=begin + timedelta(seconds=100), spans=()))
    await scene.finish(lease, Finish(outcome="failed", problem=broken, retry=True, trace_b64=left))
    lease = await scene.lease()
    await scene.finish(lease, done(lease, "yes", origin=begin + timedelta(seconds=200)))
    await scene.until(asked_again["id"], "completed")
    lost = await scene.ask("never")
    lease = await scene.lease()
    await scene.finish(lease, Finish(outcome="failed", problem=broken, retry=False, trace_b64=None))
    await scene.until(lost["id"], "discarded")


async def test_everything_counts_once(where: Path | str, tmp_path: Path) -> None:
    """Answers, a failed attempt, idle time and hardware add up to the sum, each once, and the sum to its own digits."""
    clock = SimulatedClock(NOW)
    database = {} if isinstance(where, Path) else {"database_url": where}
    async with stage(tmp_path, clock=clock, **database) as scene:
        await a_day(scene, clock)
        clock.sleep_until(clock.now_ns() + 1000 * 1_000_000_000)
        found = await report(scene, **{"from": "2026-11-23T11:50Z"})
    receipts_j = 2 * (10.0 * 3.2 + 20.0 * 2.0)
    failed_j = 10.0 * 3.2 + 20.0 * 2.0
    whole_j = receipts_j + failed_j + 6000.0
    assert found["energy_kwh"] * 3.6e6 == pytest.approx(whole_j, rel=1e-3)
    assert component(found, "failed")["kwh"] * 3.6e6 == pytest.approx(failed_j, rel=1e-3)  # type: ignore[index]
    assert component(found, "idle")["kwh"] * 3.6e6 == pytest.approx(6000.0)  # type: ignore[index]
    assert found["total"]["g"] == pytest.approx(sum(one["g"] for one in found["components"]))
    assert (found["counts"]["answers"], found["counts"]["fruitless"]) == (2, 1)
    te_g_per_s = sum(one["value"] for one in found["coefficients"] if one["symbol"] == "TE") * 1000 / (4 * 365 * 86400)
    made_g = sum(one["g"] for one in found["components"] if one["term"] == "M")
    assert made_g == pytest.approx(te_g_per_s * found["counts"]["service_s"], rel=1e-6)
    for name in ("g", "low", "high", "energy"):
        shown = [Decimal(one[name]) for one in found["shown"]["components"] if one[name] is not None]
        assert sum(shown) == Decimal(found["shown"]["total"][name])


async def test_what_nobody_told_is_unknown(tmp_path: Path) -> None:
    """Time without a reading is named as unknown, adds no joule, and makes the score a lower bound."""
    clock = SimulatedClock(NOW)
    async with stage(tmp_path, clock=clock) as scene:
        await a_day(scene, clock)
        clock.sleep_until(clock.now_ns() + 400 * 1_000_000_000)
        before = await report(scene, **{"from": "2026-11-23T11:50Z"})
        clock.sleep_until(clock.now_ns() + 7200 * 1_000_000_000)
        found = await report(scene, **{"from": "2026-11-23T11:50Z"})
    assert found["energy_kwh"] == pytest.approx(before["energy_kwh"])
    assert found["counts"]["unknown_s"] - before["counts"]["unknown_s"] == pytest.approx(7200)
    assert found["at_least"]
    assert any("unknown, not zero" in sentence and "modelled" in sentence for sentence in found["unknown"])
    assert any("1 attempts left no evidence" in sentence for sentence in found["unknown"])
    assert "at least" in as_markdown(found)


async def test_a_report_of_nothing(tmp_path: Path) -> None:
    """Before anybody has asked anything there is a report, and no score in it."""
    async with stage(tmp_path) as scene:
        found = await report(scene)
        assert (found["score"]["per_token"], found["components"], found["nodes"]) == (None, [], [])
        assert "not measured" in as_markdown(found)
        assert "not measured" in render_report(found, standalone=True)


async def test_the_three_forms_say_the_same(tmp_path: Path) -> None:
    """JSON, Markdown and HTML hold the same figures, and the HTML file asks nobody for anything."""
    clock = SimulatedClock(NOW)
    async with stage(tmp_path, clock=clock) as scene:
        await a_day(scene, clock)
        clock.sleep_until(clock.now_ns() + 400 * 1_000_000_000)
        found = await report(scene)
        markdown = (await scene.http.get("/api/v1/report/sci?format=markdown")).text
        html = (await scene.http.get("/api/v1/report/sci?format=html")).text
        page = await scene.http.get("/report/sci?model=m")
        wrong = await scene.http.get("/report/sci?from=tomorrow")
    for row in (*found["shown"]["components"], found["shown"]["total"]):
        assert f"| {row['g']} |" in markdown.replace("*", "")
        assert f">{row['g']}<" in html
    for sentence in (found["boundary"], found["unit"]):
        assert sentence in markdown
        assert sentence in unescape(html)
    assert "http" not in html.replace("http-equiv", "").replace("xmlns='http://www.w3.org/2000/svg'", "")
    assert "<script" not in html
    assert page.status_code == 200
    assert "model m" in page.text
    assert wrong.status_code == 422


async def test_zone_and_model(tmp_path: Path) -> None:
    """A report of another zone holds nothing of this one; that of the only model holds everything that is here."""
    clock = SimulatedClock(NOW)
    async with stage(tmp_path, clock=clock) as scene:
        await a_day(scene, clock)
        clock.sleep_until(clock.now_ns() + 400 * 1_000_000_000)
        whole, mine = await report(scene), await report(scene, model="m", zone="de")
        other, none = await report(scene, zone="FR"), await report(scene, model="x")
        unknown = await scene.http.get("/api/v1/report/sci?zone=QQ")
    assert mine["total"]["g"] == pytest.approx(whole["total"]["g"])
    assert (other["counts"]["answers"], other["total"]["g"], none["total"]["g"]) == (0, 0.0, 0.0)
    assert unknown.status_code == 422
    assert json.loads(unknown.text)["code"] == "unknown_zone"


def names(rows: Sequence[Json]) -> list[str]:
    return [one["symbol"] for one in rows]


async def test_a_simulated_machine_is_not_called_measured(tmp_path: Path) -> None:
    """What meters of a simulated machine told is called simulated in every line and at the top."""
    clock = SimulatedClock(NOW)
    told = Counted(channel=replace(COUNTER, simulated=True), amount=600.0, edge=0.0)
    stretch = IdleStretch(start=NOW - timedelta(seconds=60), until=NOW, counted=(told,))
    async with stage(tmp_path, clock=clock) as scene:
        await scene.join(idle=(stretch,), cores=4)
        clock.sleep_until(clock.now_ns() + 1_000_000_000)
        found = await report(scene)
    assert found["simulated"]
    assert [one["method"] for one in found["components"] if one["part"] == "idle"] == ["simulated"]
    assert "Simulated" in as_markdown(found)


async def test_every_factor_names_its_source(tmp_path: Path) -> None:
    """Intensity, hardware, building and share stand in the table, each with value, source and licence."""
    clock = SimulatedClock(NOW)
    async with stage(tmp_path, clock=clock) as scene:
        await a_day(scene, clock)
        clock.sleep_until(clock.now_ns() + 400 * 1_000_000_000)
        found = await report(scene)
    assert set(names(found["coefficients"])) >= {"I", "TE", "PUE", "RR/ToR"}
    assert all(one["source"] and one["licence"] and one["method"] for one in found["coefficients"])
    grid = next(one for one in found["coefficients"] if one["symbol"] == "I")
    assert (grid["quality"], grid["licence"]) == ("yearly", "ODbL 1.0")


async def test_the_page_speaks_the_readers_language(tmp_path: Path) -> None:
    """In German every heading, column, sentence and figure of the report is German; the file and Markdown stay
    English."""
    clock = SimulatedClock(NOW)
    async with stage(tmp_path, clock=clock) as scene:
        await a_day(scene, clock)
        clock.sleep_until(clock.now_ns() + 7200 * 1_000_000_000)
        page = (await scene.http.get("/report/sci", headers={"Accept-Language": "de"})).text
        markdown = (await scene.http.get("/api/v1/report/sci?format=markdown")).text
    told = unescape(page.partition("<article")[2].partition("</article>")[0])
    for words in ("Woraus es sich zusammensetzt", "mindestens", "Herstellung der Maschinen: Warten", "In Betrieb",
                  "Stromnetz DE", "über den Lebensweg", "ist unbekannt, nicht null", "Grenze „Consumer“"):  # fmt: skip
        assert words in told
    english = r"\b(the|answers|waiting|energy|unknown|factors|licence|making|their)\b"
    assert (
        re.findall(english, re.sub(r"<[^>]+>|(generic desktop|world mean)[^<]*", " ", told)) == []
    )  # a source is cited as it is
    assert not re.search(r"\d\.\d+ (mg|g|kg|Wh|mWh|kWh)\b", told)
    assert "## What it adds up from" in markdown


# --- a long period ----------------------------------------------------------------------------------------------------


class Many:
    """Books of as many answers as wanted, each a second long and a minute after the one before, all alike but for
    their moment."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.receipt = as_json(RECEIPTS["powercap"]())
        self.receipt["sci"]["reserved"]["TiR_s"] = 1.0

    async def finished_jobs(self, start: datetime, until: datetime, after: int, limit: int) -> list[FinishedJob]:
        numbers = range(after + 1, min(after + limit, self.count) + 1)
        return [self._job(number, start) for number in numbers]

    def _job(self, number: int, start: datetime) -> FinishedJob:
        body = self.receipt | {"created": (start + timedelta(minutes=number)).isoformat()}
        return FinishedJob(
            number=number,
            id=f"job{number}",
            purpose="prompt",
            model="m",
            state="completed",
            tries=1,
            body=json.dumps(body).encode(),
        )

    async def nothing(self, *_: object) -> tuple[()]:
        return ()

    evidence = under_way = node_idle = server_time = nothing

    async def first_signs(self) -> dict[str, datetime]:
        return {}


async def _gathered(count: int) -> tuple[Gathered, int]:
    """What comes of so many answers, and the bytes that are held for it."""
    books, period = Many(count), Period(NOW, NOW + timedelta(days=30))
    tracemalloc.start()
    try:
        found = await gather(books, None, period)  # type: ignore[arg-type]  # nothing here has to be looked up
        gc.collect()
        return found, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


async def test_a_long_period_is_summed_up_as_it_is_read() -> None:
    """Ten times the answers are ten times the energy and the time, and hold sixteen bytes an answer more (and what a
    growing row keeps free), not all of their pieces: a report of a year must not fill the server's memory."""
    await _gathered(1)  # what is kept once
    (few, few_bytes), (many, many_bytes) = await _gathered(200), await _gathered(2_000)
    assert (many_bytes - few_bytes) / 1_800 <= 64
    assert {key: one.kwh for key, one in many.pieces.items()} == {
        key: pytest.approx(10 * (one.kwh or 0.0), rel=1e-9) for key, one in few.pieces.items()
    }
    node, zone = Many(1).receipt["node"], Many(1).receipt["zone"]
    assert many.answers[zone, "m"].count == 2_000
    assert [one.worked_s for one in many.work()] == [pytest.approx(2_000.0)]
    [time] = node_times(many, [], {node: NOW})
    assert time.zone == zone
    assert time.asked_s == pytest.approx(2_000.0)
    assert time.unknown_s == pytest.approx(time.service_s - 2_000.0)
