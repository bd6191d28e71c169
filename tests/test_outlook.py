"""What a waiting person is told: place, expected start, and the cause."""

import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from joulebox.client import ServerEvent
from joulebox.console import Progress, follow
from joulebox.model import Job, JobState, Message, Prompt
from joulebox.server.jobs import Plan, Reaches, Record, reach_of
from joulebox.server.outlook import Pace, Scene, outlook, settling, shared, wait_s
from server_stage import offer

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
PROMPT = Prompt(model="m", messages=(Message(role="user", content="hi"),))
REACH = Reaches({name: reach_of(offer(node=name, zone=zone)) for name, zone in (("a", "DE"), ("b", "DE"), ("c", "SE"))})


def record(
    job_id: str = "j1", placement: str = "fastest", state: JobState = JobState.AVAILABLE, **fields: Any
) -> Record:
    job = Job(id=job_id, state=state, prompt=PROMPT, created=NOW, available=NOW)
    return Record(job=job, number=1, placement=placement, cancel=False, **fields)


def scene(**changes: Any) -> Scene:
    """Three nodes, the first two of which work since a moment ago; an answer takes 20 s."""
    busy = {"a": NOW - timedelta(seconds=5), "b": NOW - timedelta(seconds=15)}
    return replace(Scene(before={}, reach=REACH, present=list(REACH), busy=busy, pace=Pace([("m", 20.0)])), **changes)


def test_a_zone_has_its_own_nodes() -> None:
    """Who waits for a zone counts the prompts that its nodes would take before, and starts when one of them is free."""
    mine = record("me", "zone:DE")
    before = {("m", where): 1 for where in ("node:c", "zone:SE", "fastest", "node:a")}
    told = outlook(mine, None, scene(before=before), NOW)
    assert (told.position, told.reason) == (2, "2 prompts are before yours")
    assert told.expected_start == NOW + timedelta(seconds=5 + 20)


def test_why_not_now() -> None:
    """The cause is named: a node that cools, a node that was chosen, a greener hour."""
    cools = settling("b", {"target_c": 45.0, "expected_s": 39.6})
    assert cools == "b cools to 45 °C, about 40 s"
    assert settling("b", {"target_c": 45.0, "now_c": 30.0}) == "b is warmed up to 45 °C"
    assert settling("b", {}) == "b settles"
    plan = Plan(policy="greenest", line="fastest", reason="b is greener", asked=NOW)
    mine = record(placement="node:b", plan=plan)
    told = outlook(mine, None, scene(settling={"b": cools}), NOW)
    assert told.reason == "next in line; b cools to 45 °C, about 40 s; b is greener"
    deferred = record(state=JobState.DEFERRED, plan=replace(plan, reason="deferred to 09:00 UTC"))
    late = replace(deferred, job=replace(deferred.job, available=NOW + timedelta(hours=2)))
    told = outlook(late, None, scene(), NOW)
    assert (told.position, told.expected_start) == (None, NOW + timedelta(hours=2))
    assert told.reason == "deferred to 09:00 UTC"
    running = record(state=JobState.RUNNING)
    on_b = replace(running, job=replace(running.job, node="b"))
    assert outlook(on_b, "the first", scene(settling={"b": cools}), NOW).reason == cools
    assert outlook(on_b, "the first", scene(), NOW).reason == "the first"


def test_how_long_a_node_would_let_one_wait() -> None:
    """What it works on, and its share of what waits; unknown where no answer was seen yet, unless it is idle."""

    def wait(node: str, typical_s: float | None = 20.0, **crowd: int) -> float | None:
        lines: Mapping[tuple[str, str], int] = {("m", where.replace("_", ":")): n for where, n in crowd.items()}
        pace = Pace([("m", typical_s)] if typical_s is not None else [])
        return wait_s(node, shared(REACH, set("abc"), lines), scene().busy.get(node), pace, NOW)

    assert (wait("a"), wait("c")) == (15.0, 0.0)
    assert wait("a", fastest=3, zone_DE=4) == 15.0 + 20.0 * (1 + 2)
    assert wait("c", fastest=3, zone_DE=4) == 20.0
    assert [share.each for share in shared(REACH, {"a", "c"}, {("m", "zone:DE"): 4, ("m", "node:b"): 1})] == [4.0]
    assert (wait("a", None), wait("c", None), wait("c", None, fastest=1)) == (None, 0.0, None)


def test_the_terminal_shows_place_cause_and_time() -> None:
    """Who waits with `joulebox ask` sees how many are before, why, and when the answer is expected to begin."""
    queued: list[dict[str, Any]] = [
        {"position": 2, "expected_start": "2026-11-23T07:00:45+00:00", "reason": "2 prompts are before yours"},
        {"position": 1, "expected_start": None, "reason": "waiting for b: no connected node has m"},
        {"position": None, "expected_start": "2026-11-24T02:00:00+00:00", "reason": "deferred to 02:00 UTC on 24 Nov"},
    ]
    events = [ServerEvent(name="queued", id=None, data=data) for data in queued]
    shown = io.StringIO()
    follow([*events, ServerEvent(name="receipt", id=None, data={})], Progress(shown), None)
    assert shown.getvalue().splitlines() == [
        "waiting: 2 prompts are before yours; begins about 2026-11-23 07:00:45 UTC",
        "waiting: 1 before yours; waiting for b: no connected node has m",
        "waiting: deferred to 02:00 UTC on 24 Nov",
    ]


def test_each_model_takes_its_own_time() -> None:
    """The start is expected after what is before, each prompt as long as its model usually takes, and one of a model
    that never ran as long as prompts usually take."""
    pace = Pace([("m", 4.0), ("big", 100.0), ("m", 6.0), ("big", 120.0), ("m", 5.0)])
    assert (pace.typical_s("m"), pace.typical_s("big"), pace.typical_s("new"), pace.typical_s()) == (5, 110, 6, 6)
    assert pace.each_s({"m": 3, "big": 1}) == (3 * 5 + 110) / 4
    assert (pace.each_s({}), Pace().each_s({"m": 1})) == (6, None)
    reach = Reaches({"a": reach_of(offer(node="a", models=("m", "big")))})
    alone = scene(reach=reach, present=["a"], busy={"a": NOW}, pace=pace)
    told = outlook(record(), None, replace(alone, before={("m", "fastest"): 1, ("big", "fastest"): 1}), NOW)
    assert told.expected_start == NOW + timedelta(seconds=6 + 5 + 110)
    shares = shared(reach, {"a"}, {("big", "fastest"): 2, ("m", "node:a"): 1})
    assert wait_s("a", shares, None, pace, NOW) == 225


def test_a_pace_forgets() -> None:
    """Only the newest twenty prompts of a model tell how long the next takes."""
    pace = Pace([("m", 100.0)] * 20)
    for _ in range(20):
        pace.add("m", 1.0)
    assert pace.typical_s("m") == 1.0
