"""Live grid data in a running server: prompts flow whatever sources do, receipts say what was used, better data make a
further revision."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from grid_peers import BAD_KEY, KEY, NOT_IN_PLAN, TEN, Answer, Peer, latest, past, peer, row, zones
from joulebox.clock import SimulatedClock
from joulebox.server.grid.feeds import feeds_of
from joulebox.server.grid.live import Grid
from joulebox.server.keeper import AGES, Keeper
from joulebox.server.store import Store
from joulebox.settings import Settings
from joulebox.units import nanoseconds
from server_stage import WAIT_S, Stage, done, stage, story

pytestmark = pytest.mark.anyio
HALF_PAST = TEN + timedelta(minutes=30)
RUN = {"origin": HALF_PAST - timedelta(seconds=40)}
"""The scripted node's run ends shortly before half past ten."""
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(HALF_PAST)


def forward(clock: SimulatedClock, lasts: timedelta) -> None:
    clock.sleep_until(clock.now_ns() + nanoseconds(lasts.total_seconds()))


def mapped(told: Peer, **more: object) -> Json:
    return {"electricity_maps_key": KEY, "electricity_maps_url": told.url, "grace_s": 9.0, **more}


async def answered(scene: Stage, *, after: Any = None, node: str = "n1", **changes: Any) -> Json:
    """The receipt of a prompt; `after` is awaited once the prompt is asked."""
    await scene.join(node=node)
    asked = await scene.ask(placement=f"node:{node}")
    lease = await scene.lease(node=node)
    if after is not None:
        await after
    async with scene.hold(lease):
        await scene.send(lease, story("Hi"))
        reply = await scene.finish(lease, done(lease, "Hi", node=node, **(RUN | changes)))
        assert reply.status_code == 200, reply.text
    return await receipt(scene, (await scene.until(asked["id"], "completed"))["receipt_id"])


async def receipt(scene: Stage, receipt_id: str, revision: int | None = None) -> Json:
    named = {"revision": revision} if revision else {}
    found: Json = (await scene.http.get(f"/api/v1/receipts/{receipt_id}", params=named)).json()
    return found


async def until(condition: Any) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - looked at from outside
            await asyncio.sleep(0.005)


# --- prompts flow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"zones": Answer(401, BAD_KEY)}, "refused"),
        ({"zones": Answer(data={}), "latest": Answer(401, NOT_IN_PLAN)}, "asked"),
        ({"zones": zones(), "latest": Answer(404, {"status": "no-data"})}, "asked"),
        ({"zones": zones(), "latest": Answer(429, {}, headers=(("Retry-After", "600"),))}, "throttled"),
        ({"zones": Answer(500, {})}, "broken"),
        ({"zones": zones(), "latest": Answer(raw=b"\x00garbage")}, "broken"),
        ({"zones": zones(), "latest": Answer(raw=b" " * 5_000_000)}, "broken"),
        ({"zones": zones(), "latest": Answer(wait_s=60.0)}, "asked"),
    ],
    ids=["bad-key", "not-in-plan", "no-data", "429", "500", "garbage", "huge", "slow"],
)
async def test_a_prompt_flows_whatever_the_source_does(
    tmp_path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture, answers: dict[str, Answer], outcome: str
) -> None:
    """The prompt is answered at once, its receipt names the yearly table, and the key stands in no log."""
    caplog.set_level(logging.DEBUG)
    with peer(**answers) as told:
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            counted = until(lambda: scene.grid.counts[f"electricity-maps {outcome}"])
            async with asyncio.timeout(9):
                grid = (await answered(scene, after=counted))["carbon"]["intensity"]
            assert (grid["quality"], grid["g_per_kwh"], grid["zone"]) == ("yearly", 342.0, "DE")
            assert grid["source"].startswith("Electricity Maps (ODbL), mean of 2025")
            assert scene.grid.counts["electricity-maps asked"] == 1
    assert KEY not in caplog.text


async def test_a_source_that_is_down(tmp_path: Path, clock: SimulatedClock) -> None:
    """Where nobody answers at the address the prompt is answered from the table."""
    settings = {"electricity_maps_key": KEY, "electricity_maps_url": "http://127.0.0.1:9"}
    async with stage(tmp_path, clock=clock, **settings) as scene:
        grid = (await answered(scene))["carbon"]["intensity"]
        assert grid["quality"] == "yearly"
        await until(lambda: scene.grid.counts["electricity-maps broken"])


async def test_without_a_key_nothing_runs(tmp_path: Path, clock: SimulatedClock) -> None:
    """Without a live source there is no task, nothing is asked, and nothing waits to be looked at again."""
    async with stage(tmp_path, clock=clock) as scene:
        names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
        assert "Keeper._run" not in names
        assert (await answered(scene))["carbon"]["intensity"]["quality"] == "yearly"
        assert await scene.store.next_recheck() is None
        assert not scene.grid.counts


async def test_the_next_source_is_asked_where_one_fails(tmp_path: Path, clock: SimulatedClock) -> None:
    """A keyless source that is turned on stands in, and the receipt names it and what it counts."""
    rows = [{"from": "2026-11-23T10:00Z", "to": "2026-11-23T10:30Z", "intensity": {"forecast": 150, "actual": 140}}]
    with peer(zones=Answer(500, {}), intensity=Answer(data={"data": rows})) as told:
        settings = mapped(told, grid_live=(f"gb={told.url}",))
        async with stage(tmp_path, clock=clock, **settings) as scene:
            await scene.join(node="n2", zone="GB")
            asked = await scene.ask(placement="node:n2")
            lease = await scene.lease(node="n2", zone="GB")
            just_before = HALF_PAST - timedelta(minutes=1)
            await until(lambda: scene.grid.series("GB", just_before, HALF_PAST)[0].intensity.quality == "measured")
            async with scene.hold(lease):
                await scene.finish(lease, done(lease, "Hi", node="n2", first_seq=0, zone="GB", **RUN))
            receipt_id = (await scene.until(asked["id"], "completed"))["receipt_id"]
            grid = (await receipt(scene, receipt_id))["carbon"]["intensity"]
            assert (grid["quality"], grid["factor"], grid["g_per_kwh"]) == ("measured", "direct", 140.0)
            assert "NESO" in grid["source"]


# --- better data ------------------------------------------------------------------------------------------------------


async def test_an_estimate_is_taken_and_later_made_a_measurement(tmp_path: Path, clock: SimulatedClock) -> None:
    """The receipt is made with what is known; when the hour is measured a further revision changes its grams alone."""
    with peer(zones=zones(), latest=latest(300), past_range=past(row(0, 250, estimated=False))) as told:
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            known = until(lambda: scene.grid.now("DE").quality == "estimated")
            one = await answered(scene, after=known)
            first = one["carbon"]["intensity"]
            assert (first["quality"], first["g_per_kwh"]) == ("estimated", 300.0)
            assert "TIME_SLICER_AVERAGE" in first["source"]
            told.answers["latest"] = latest(200, hour=3)
            forward(clock, timedelta(hours=3))
            scene.grid.bell.set()
            await _revised(scene, one["id"])
            two = await receipt(scene, one["id"])
            assert {key for key in one if one[key] != two[key]} == {"revision", "carbon", "sci"}
            second = two["carbon"]["intensity"]
            assert (second["quality"], second["g_per_kwh"], len(second["slots"])) == ("measured", 250.0, 1)
            assert two["carbon"]["operational"]["g"] == pytest.approx(one["carbon"]["operational"]["g"] * 250 / 300)
            assert await receipt(scene, one["id"], 1) == one
            await _nothing_waits(scene)
            again = (await scene.http.post(f"/api/v1/receipts/{one['id']}/recompute")).json()
            assert (again["identical"], again["changed"]) == (True, [])


async def _revised(scene: Stage, receipt_id: str, revision: int = 2) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await receipt(scene, receipt_id))["revision"] < revision:  # noqa: ASYNC110 - another task does it
            await asyncio.sleep(0.01)


async def _nothing_waits(scene: Stage) -> None:
    async with asyncio.timeout(WAIT_S):
        while await scene.store.next_recheck() is not None:  # noqa: ASYNC110 - another task does it
            await asyncio.sleep(0.01)


async def test_a_slow_answer_makes_a_revision_at_once(tmp_path: Path, clock: SimulatedClock) -> None:
    """A value that comes after the delivery does not delay it, and the receipt is made again when it is there."""
    with peer(zones=zones(), latest=latest(300, estimated=False)) as told:
        told.answers["latest"] = Answer(data=told.answers["latest"].data, wait_s=0.7)
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            one = await answered(scene)
            assert one["carbon"]["intensity"]["quality"] == "yearly"
            await _revised(scene, one["id"])
            assert (await receipt(scene, one["id"]))["carbon"]["intensity"]["g_per_kwh"] == 300.0
            assert told.count("latest") == 1


async def test_what_is_known_survives_a_restart(tmp_path: Path, clock: SimulatedClock) -> None:
    """A value of this hour is still there after a restart, and is not asked for again."""
    with peer(zones=zones(), latest=latest(300)) as told:
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            await answered(scene, after=until(lambda: scene.grid.now("DE").quality == "estimated"))
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            assert (await answered(scene))["carbon"]["intensity"]["quality"] == "estimated"
        assert told.count("latest") == 1


async def test_many_prompts_ask_once(tmp_path: Path, clock: SimulatedClock) -> None:
    """Sixteen prompts at the same moment make one probe of the plan and one request for the hour."""
    with peer(zones=zones(), latest=latest(300)) as told:
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            await scene.join()
            await asyncio.gather(*(scene.ask() for _ in range(16)))
            await until(lambda: scene.grid.now("DE").quality == "estimated")
            await asyncio.gather(*(scene.ask() for _ in range(4)))
            assert [one.path for one in told.asked] == ["/zones", "/carbon-intensity/latest"]


# --- the task itself, turn by turn ------------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(f"sqlite+aiosqlite:///{tmp_path / 'joulebox.db'}")
    await store.open()
    yield store
    await store.close()


def grid_of(told: Peer, clock: SimulatedClock, store: Store, **more: object) -> Grid:
    settings = Settings.model_validate(mapped(told, **more))
    return Grid(settings, clock, store, feeds_of(settings))


async def test_a_broken_source_is_left_alone_longer_and_longer(store: Store, clock: SimulatedClock) -> None:
    """Asked for every minute of six hours, a source that fails is tried at 1, 3, 7, 15, 31, 63 minutes, then hourly."""
    with peer(zones=Answer(500, {})) as told:
        grid = grid_of(told, clock, store)
        tried: list[float] = []
        for minute in range(360):
            grid.expect("DE")
            await grid.fetch_wanted()
            tried += [minute] * (told.count("zones") - len(tried))
            forward(clock, timedelta(minutes=1))
        assert tried == [0, 5, 10, 15, 23, 39, 71, 131, 191, 251, 311]
        assert grid.counts["electricity-maps broken"] == len(tried)
        await grid.close()


async def test_patience_is_kept_as_asked(store: Store, clock: SimulatedClock) -> None:
    """After 429 with `Retry-After` nothing is asked before that time, and then the value comes."""
    with peer(zones=zones(), latest=Answer(429, {}, headers=(("Retry-After", "1800"),))) as told:
        grid = grid_of(told, clock, store)
        for _ in range(29):
            grid.expect("DE")
            await grid.fetch_wanted()
            forward(clock, timedelta(minutes=1))
        assert (told.count("latest"), grid.counts["electricity-maps throttled"]) == (1, 1)
        told.answers["latest"] = latest(300)
        forward(clock, timedelta(minutes=2))
        grid.expect("DE")
        await grid.fetch_wanted()
        assert told.count("latest") == 2
        await grid.close()


async def test_a_refused_key_is_not_tried_again(store: Store, clock: SimulatedClock) -> None:
    """A key that the source refuses is asked with once, whatever time passes."""
    with peer(zones=Answer(401, BAD_KEY)) as told:
        grid = grid_of(told, clock, store)
        for _ in range(5):
            grid.expect("DE")
            await grid.fetch_wanted()
            forward(clock, timedelta(days=1))
        assert told.count("zones") == 1
        await grid.close()


async def test_the_day_ahead(store: Store, clock: SimulatedClock) -> None:
    """Who plans gets the hours to come from the cache, without waiting; others are not made to fetch them."""
    ahead = past(*(row(hour, 300 + hour) for hour in range(1, 25)), key="forecast")
    with peer(zones=zones(), latest=latest(300), forecast=ahead) as told:
        grid = grid_of(told, clock, store)
        assert [one.intensity.quality for one in _day(grid)] == ["yearly"]
        grid.expect("DE")
        await grid.fetch_wanted()
        assert told.count("forecast") == 0
        grid.expect("DE", ahead=True)
        await grid.fetch_wanted()
        day = _day(grid)
        assert [one.intensity.quality for one in day] == ["estimated"] + ["forecast"] * 24
        assert day[-1].intensity.g_per_kwh == 324.0
        grid.expect("DE", ahead=True)
        await grid.fetch_wanted()
        assert told.count("forecast") == 1
        for nowhere in (None, "QQ", "FR"):
            grid.expect(nowhere)
        await grid.close()


def _day(grid: Grid) -> Any:
    now: datetime = grid.clock.utc()
    return grid.series("DE", now, now + timedelta(hours=24))


async def test_a_measured_hour_is_never_made_an_estimate(store: Store, clock: SimulatedClock) -> None:
    """What a source said to be measured stays, whatever it says later."""
    with peer(zones=zones(), latest=latest(300, estimated=False)) as told:
        grid = grid_of(told, clock, store)
        await grid.fetch("DE", HALF_PAST, HALF_PAST)
        told.answers["latest"] = latest(310)
        forward(clock, timedelta(minutes=6))
        await grid.fetch("DE", HALF_PAST, HALF_PAST)
        assert told.count("latest") == 2
        assert (grid.now("DE").g_per_kwh, grid.now("DE").quality) == (300.0, "measured")
        await grid.close()


async def test_looking_again_ends_after_two_days(tmp_path: Path, clock: SimulatedClock) -> None:
    """A receipt whose hour stays estimated is looked at a few times, then never more; in between the task sleeps."""
    with peer(zones=zones(), latest=latest(300), past_range=past(row(0, 300, estimated=True))) as told:
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            one = await answered(scene, after=until(lambda: scene.grid.now("DE").quality == "estimated"))
            store, grid = scene.store, scene.grid
            keeper = Keeper(grid, store)
            turns = 0
            while (wait_s := await keeper.turn()) is not None:
                turns += 1
                forward(clock, timedelta(seconds=wait_s))
            assert turns <= len(AGES)
            assert clock.utc() - HALF_PAST >= timedelta(hours=47)
            assert (await receipt(scene, one["id"]))["revision"] == 1


async def test_the_last_look_takes_what_has_changed(tmp_path: Path, clock: SimulatedClock) -> None:
    """An estimate that was refined but never measured is taken at the end of the two days."""
    with peer(zones=zones(), latest=latest(300), past_range=past(row(0, 280, estimated=True))) as told:
        async with stage(tmp_path, clock=clock, **mapped(told)) as scene:
            one = await answered(scene, after=until(lambda: scene.grid.now("DE").quality == "estimated"))
            keeper = Keeper(scene.grid, scene.store)
            revisions = []
            while (wait_s := await keeper.turn()) is not None:
                revisions.append((await receipt(scene, one["id"]))["revision"])
                forward(clock, timedelta(seconds=wait_s))
            assert set(revisions) == {1}
            two = json.loads(await scene.store.receipt(one["id"]) or b"")
            assert (two["revision"], two["carbon"]["intensity"]["g_per_kwh"]) == (2, 280.0)
