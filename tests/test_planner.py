"""Prompts that wait for a greener node or hour, through the real server with a clock that is handed in."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import databases
from joulebox.console import show_receipt
from joulebox.server.grid.chain import GridValue
from server_stage import WOKEN_S, Ahead, Json, Stage, done, stage

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Ahead:
    """A clock at the beginning of an hour."""
    return Ahead.at_the_hour()


@pytest.fixture
async def scene(tmp_path: Path, clock: Ahead) -> AsyncIterator[Stage]:
    async with stage(tmp_path, clock=clock) as one:
        yield one


async def forecast(scene: Stage, clock: Ahead, *g_per_kwh: float, zone: str = "DE") -> datetime:
    """A source tells these intensities for the present hour and those after it; when the present one began."""
    first = clock.utc().replace(minute=0, second=0, microsecond=0)
    values = [
        GridValue(
            zone=zone,
            source="energy-charts",
            start=first + n * HOUR,
            until=first + (n + 1) * HOUR,
            g_per_kwh=g,
            quality="forecast",
        )
        for n, g in enumerate(g_per_kwh)
    ]
    await scene.grid._take(values, clock.utc())
    return first


async def answer(scene: Stage, asked: Json, clock: Ahead, node: str = "n1", zone: str = "DE") -> Json:
    """A node of that zone answers what it was given; the receipt."""
    lease = await scene.lease(node=node, instance=node, zone=zone)
    assert lease["job_id"] == asked["id"]
    told = done(lease, "x", node=node, zone=zone, origin=clock.utc())
    assert (await scene.finish(lease, told)).status_code == 200
    receipt: Json = (await scene.all_events(asked["id"]))[-1].data
    return receipt


async def test_the_greenest_of_two_nodes(scene: Stage, clock: Ahead) -> None:
    """What is known of past runs sends a prompt to the cleaner grid; receipt and status say why and what it saved."""
    for node, zone in (("n1", "DE"), ("n2", "SE")):
        await scene.join(node=node, instance=node, zone=zone)
        if node == "n1":
            unknown = await scene.ask(placement="greenest")
            assert "nothing is known yet" in unknown["placement"]["reason"]
            await answer(scene, unknown, clock)
    first = await scene.ask(placement="node:n2")
    await answer(scene, first, clock, "n2", "SE")
    asked = await scene.ask(placement="greenest")
    assert asked["placement"]["policy"] == "greenest"
    assert asked["placement"]["reason"].startswith("n2 is expected to emit the least: ")
    assert asked["reason"] == f"next in line; {asked['placement']['reason']}"
    reply = await scene.http.post("/node/v1/lease", content=lease_request("n1", "DE"))
    assert reply.status_code == 204
    receipt = await answer(scene, asked, clock, "n2", "SE")
    placed, kwh = receipt["placement"], receipt["sci"]["answer"]["E_kwh"]
    spared = scene.grid.now("DE").g_per_kwh - receipt["carbon"]["intensity"]["g_per_kwh"]
    assert (placed["policy"], placed["reason"]) == ("greenest", asked["placement"]["reason"])
    assert placed["saved_g"] == pytest.approx(kwh * spared)
    assert placed["saved_g"] > 0
    assert (await scene.status(asked["id"]))["placement"]["saved_g"] == placed["saved_g"]
    page = (await scene.http.get(f"/receipts/{receipt['id']}")).text
    assert "CO2e less than the grid of the first free node." in page
    shown = StringIO()
    show_receipt(receipt, shown)
    assert "Why there and then: n2 is expected to emit the least" in " ".join(shown.getvalue().replace("│", "").split())


def lease_request(node: str, zone: str) -> bytes:
    from joulebox.protocol import to_json
    from server_stage import offer

    return to_json(offer(node=node, instance=node, zone=zone, wait_s=0.0))


async def test_a_node_that_is_not_free_in_time(scene: Stage, clock: Ahead) -> None:
    """When the greener node does not take a prompt within the bound, any node does, and the receipt says so."""
    await test_the_greenest_of_two_nodes(scene, clock)
    asked = await scene.ask(placement="greenest")
    clock.hours += 599 / 3600
    await scene.planner.turn(everything=False)
    assert (await scene.http.post("/node/v1/lease", content=lease_request("n1", "DE"))).status_code == 204
    clock.hours += 2 / 3600
    await scene.planner.turn(everything=False)
    receipt = await answer(scene, asked, clock)
    assert receipt["placement"]["reason"] == ("no greener node was free within 10 minutes: the first free one takes it")
    assert receipt["placement"]["saved_g"] == 0.0


async def test_deferred_to_a_greener_hour(scene: Stage, clock: Ahead) -> None:
    """Work with a deadline waits for the greenest hour, says so to who asks and who watches, and saves what differs."""
    await scene.join(instance="n1")
    first = await forecast(scene, clock, 400, 380, 390, 210, 300, 100)
    asked = await scene.ask(deadline=(first + 4.5 * HOUR).isoformat())
    when = first + 3 * HOUR
    assert (asked["state"], asked["priority"], asked["position"]) == ("deferred", "deferrable", None)
    assert asked["expected_start"] == when.isoformat(timespec="seconds")
    assert asked["reason"].startswith(f"deferred to {when:%H:%M} UTC")
    assert asked["reason"].endswith("when the grid of DE is expected at 210 g/kWh instead of 400 now")
    async with scene.watch(asked["id"]) as events:
        told = await anext(events)
    assert (told.name, told.data["expected_start"]) == ("queued", asked["expected_start"])
    assert await scene.planner.turn(everything=False) == pytest.approx(3 * 3600, abs=60)
    assert (await scene.http.post("/node/v1/lease", content=lease_request("n1", "DE"))).status_code == 204
    clock.hours += 3
    await scene.planner.turn(everything=False)
    assert (await scene.status(asked["id"]))["state"] == "available"
    receipt = await answer(scene, asked, clock)
    assert receipt["carbon"]["intensity"]["g_per_kwh"] == pytest.approx(210)
    assert receipt["placement"]["saved_g"] == pytest.approx(receipt["sci"]["answer"]["E_kwh"] * (400 - 210))
    assert await scene.planner.turn(everything=True) is None


async def test_another_forecast_another_hour(scene: Stage, clock: Ahead) -> None:
    """When the forecast changes, what is deferred is planned again; what is cancelled is not."""
    await scene.join(instance="n1")
    first = await forecast(scene, clock, 400, 380, 200, 300)
    deadline = (first + 4 * HOUR).isoformat()
    asked, dropped = await scene.ask(deadline=deadline), await scene.ask(deadline=deadline)
    assert asked["expected_start"] == (first + 2 * HOUR).isoformat(timespec="seconds")
    assert (await scene.http.delete(f"/api/v1/prompts/{dropped['id']}")).json()["state"] == "cancelled"
    await forecast(scene, clock, 400, 380, 390, 150)
    await scene.planner.turn(everything=True)
    moved = await scene.status(asked["id"])
    assert moved["expected_start"] == (first + 3 * HOUR).isoformat(timespec="seconds")
    await forecast(scene, clock, 90, 380, 390, 150)
    await scene.planner.turn(everything=True)
    assert (await scene.status(asked["id"]))["state"] == "available"
    assert (await scene.status(dropped["id"]))["state"] == "cancelled"


async def test_many_plans_few_looks(scene: Stage, clock: Ahead, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many prompts are planned again at once, what they have in common is looked up once."""
    await scene.join(instance="n1")
    first = await forecast(scene, clock, 400, 380, 200, 300)
    asked = [await scene.ask(deadline=(first + 4 * HOUR).isoformat()) for _ in range(6)]
    assert {one["state"] for one in asked} == {"deferred"}
    looks: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        look = getattr(scene.store, name)

        async def looked(*given: Any) -> Any:
            looks.append(name)
            return await look(*given)

        return looked

    for name in ("crowd", "past_runs"):
        monkeypatch.setattr(scene.store, name, counted(name))
    await forecast(scene, clock, 400, 380, 390, 150)
    await scene.planner.turn(everything=True)
    assert (await scene.status(asked[-1]["id"]))["expected_start"] == (first + 3 * HOUR).isoformat(timespec="seconds")
    assert sorted(looks) == ["crowd", "past_runs"]


async def test_a_deadline_that_comes_near(scene: Stage, clock: Ahead) -> None:
    """Deferrable work that still waits when its deadline is near goes before others of its turn."""
    await scene.join(instance="n1")
    await forecast(scene, clock, 100, 380)
    late = await scene.ask(deadline=(clock.utc() + HOUR).isoformat())
    assert (late["state"], late["priority"]) == ("available", "deferrable")
    other = await scene.ask()
    assert (await scene.status(late["id"]))["position"] == 1
    clock.hours += 0.9
    await scene.planner.turn(everything=False)
    urgent = await scene.status(late["id"])
    assert (urgent["position"], urgent["priority"]) == (0, "interactive")
    assert "its deadline is near" in urgent["reason"]
    assert (await scene.lease(instance="n1"))["job_id"] == late["id"]
    assert (await scene.status(other["id"]))["position"] == 0


@pytest.fixture
def url() -> Iterator[str]:
    with databases.postgres() as database_url:
        yield database_url


async def test_what_a_dead_server_deferred(tmp_path: Path, url: str, clock: Ahead) -> None:
    """Work that one server deferred is put into the line by another when the first is gone; one at a time plans."""
    settings: dict[str, Any] = {"database_url": url, "clock": clock}
    async with stage(tmp_path, **settings) as survivor:
        async with stage(tmp_path, **settings) as leaving:
            await leaving.join()
            first = await forecast(leaving, clock, 400, 380, 200, 300)
            asked = await leaving.ask(deadline=(first + 4 * HOUR).isoformat())
            assert asked["state"] == "deferred"
            async with leaving.store.planning() as one, survivor.store.planning() as two:
                assert (one, two) == (True, False)
        clock.hours += 2
        working = asyncio.create_task(survivor.lease(node="n2", instance="n2"))
        await survivor.until(asked["id"], "deferred")
        await survivor.planner.turn(everything=False)
        assert (await asyncio.wait_for(working, WOKEN_S))["job_id"] == asked["id"]
