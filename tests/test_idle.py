"""What machines draw between jobs: told by nodes, kept once, nothing guessed."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.clock import SimulatedClock
from joulebox.host import own_cpu_s, running_host
from joulebox.metering import counted
from joulebox.model import Counted, IdleStretch, ReadingKind, Sampling
from joulebox.node.idle import CLOSE_S, IdleBook
from joulebox.protocol import LeaseRequest, to_json
from joulebox.server.idle import STRETCH_MAX, NodeIdle, OwnTime, continued, entered, told
from joulebox.units import nanoseconds
from server_stage import COUNTER, offer, stage
from test_node import Counter, recording
from test_queue import opened
from traces import S, channel, series, work

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def book(clock: SimulatedClock, *meters: Counter) -> IdleBook:
    found = IdleBook(recording(clock, *meters, until_s=5.0), clock)
    found.begin()
    return found


def pass_s(clock: SimulatedClock, wait_s: float) -> None:
    clock.sleep_until(clock.now_ns() + nanoseconds(wait_s))


def joules(stretches: Sequence[IdleStretch]) -> float:
    return sum(one.amount for stretch in stretches for one in stretch.counted)


# --- the node ---------------------------------------------------------------------------------------------------------


def test_idle_and_runs_share_out_all_that_the_meter_counted() -> None:
    """Between two jobs every joule of the meter is in a stretch, and the jobs' own are in none."""
    clock = SimulatedClock()
    machine = Counter(clock, busy_s=[(40.0, 50.0)])
    mine = book(clock, machine)
    pass_s(clock, 30.0)
    first = mine.stretches()
    assert joules(first) == pytest.approx(30 * 8.0, abs=0.02)
    mine.heard(first)
    pass_s(clock, 3.0)
    mine.end()
    pass_s(clock, 20.0)
    mine.begin()
    pass_s(clock, 25.0)
    found = (*first, *mine.stretches())
    assert joules(found) == pytest.approx((30 + 3 + 25) * 8.0, abs=0.02)
    assert found[0].until == found[1].start
    assert (found[2].start - found[1].until).total_seconds() == pytest.approx(20.0)


def test_what_no_server_heard_is_told_again() -> None:
    """A stretch is told with every request until one is answered, and then never again."""
    clock = SimulatedClock()
    mine = book(clock, Counter(clock))
    pass_s(clock, CLOSE_S)
    first = mine.stretches()
    pass_s(clock, CLOSE_S)
    assert mine.stretches() == first
    pass_s(clock, 100.0)
    both = mine.stretches()
    assert both[:1] == first
    assert both[0].until == both[1].start
    mine.heard(both)
    assert mine.stretches() == ()
    pass_s(clock, CLOSE_S)
    assert mine.stretches()[0].start == both[1].until


@pytest.mark.parametrize("kind", ["gap", "reset", "none"])
def test_what_a_meter_does_not_tell_is_no_stretch(kind: str) -> None:
    """Behind a meter that is silent, starts anew or is not there, the time is unknown and never zero joules."""
    clock = SimulatedClock()
    machine = Counter(clock, channels=() if kind == "none" else (channel(),))
    mine = book(clock, machine)
    machine.says = lambda t_s, raw: None if kind == "gap" and t_s > 10 else raw % 100_000_000 if t_s > 10 else raw + 9
    pass_s(clock, CLOSE_S)
    assert mine.stretches() == ()
    machine.says = lambda _, raw: raw
    pass_s(clock, 200.0)
    assert len(mine.stretches()) == (kind != "none")


def test_a_slow_plug_is_counted_to_within_its_ticks() -> None:
    """Of a plug that ticks each second the lacking ends are taken at the mean, and its edge says how unsure that is."""
    plug = channel(name="apower", scope="wall", kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, step=0.1, tick_s=1.0)
    watts = [80 if t % 2 else 82 for t in range(60)]
    seen = series(replace(plug, step=1.0), lambda t_s: watts[min(int(t_s), 59)], 59.0, 0.236)
    found = counted(seen, 20 * S, 50 * S)
    assert found is not None
    assert found.amount == pytest.approx(30 * 81.0, abs=2 * found.edge)
    assert 0 < found.edge < 81


def test_a_stretch_beyond_the_readings_is_unknown() -> None:
    """Readings that end five ticks early tell nothing of the rest."""
    plug = channel(tick_s=0.1)
    seen = series(plug, work(10.0, 10.0, 0.0, 0.0), 10.0)
    assert counted(seen, 1 * S, 10 * S) is not None
    assert counted(seen, 1 * S, 12 * S) is None


# --- the books --------------------------------------------------------------------------------------------------------


def row(start_s: float, until_s: float, amount: float = 10.0, **changes: object) -> NodeIdle:
    fields: dict[str, object] = {
        "node": "n1",
        "start": NOON + timedelta(seconds=start_s),
        "until": NOON + timedelta(seconds=until_s),
        "zone": "DE",
        "cores": 4,
        "memory_bytes": 8,
        "host": "h",
        "counted": (Counted(channel=COUNTER, amount=amount, edge=0.3),),
    }
    return NodeIdle(**(fields | changes))  # type: ignore[arg-type]


def kept(told_in: Sequence[Sequence[NodeIdle]]) -> list[NodeIdle]:
    rows: dict[datetime, NodeIdle] = {}
    last: NodeIdle | None = None
    for stretches in told_in:
        for one in entered(last, stretches):
            rows[one.start] = last = one
    return list(rows.values())


@given(st.lists(st.floats(0.5, 900), min_size=1, max_size=40), st.data())
def test_told_twice_counts_once(lengths: list[float], data: st.DataObject) -> None:
    """However often the stretches of a node are told again, the books hold each joule and each second once."""
    marks = [0.0]
    for length in lengths:
        marks.append(marks[-1] + length)
    every = [row(start, until) for start, until in pairwise(marks)]
    told_in, heard = [], 0
    while heard < len(every):
        begin = data.draw(st.integers(0, heard))
        end = data.draw(st.integers(heard + 1, len(every)))
        told_in.append(every[begin:end])
        heard = end
    rows = kept(told_in)
    assert sum(one.counted[0].amount for one in rows) == pytest.approx(10.0 * len(lengths))
    assert sum((one.until - one.start).total_seconds() for one in rows) == pytest.approx(marks[-1], abs=1e-3)
    last = timedelta(microseconds=1)  # a row may end with the very hour, like 0 to 3600 s
    assert all(
        (one.until - last).hour == one.start.hour or one.until - one.start < timedelta(seconds=901) for one in rows
    )


def test_a_row_ends_with_its_hour_and_its_meters() -> None:
    """What continues a row within the hour makes it longer; another hour, meter, zone or a gap begins a new one."""
    other = (Counted(channel=replace(COUNTER, scope="wall"), amount=1.0, edge=0.0),)
    assert [one.counted[0].amount for one in kept([[row(0, 25), row(25, 50)], [row(50, 60)]])] == [30.0]
    assert len(kept([[row(3590, 3599), row(3599, 3601), row(3601, 3650)]])) == 3
    assert len(kept([[row(0, 25), row(26, 50)]])) == 2
    assert len(kept([[row(0, 25), row(25, 50, counted=other)]])) == 2
    assert len(kept([[row(0, 25), row(25, 50, zone="FR")]])) == 2


def test_impossible_stretches_are_left_out() -> None:
    """A stretch that ends before it begins, is longer than an hour or tells nothing is not believed."""
    fine = IdleStretch(start=NOON, until=NOON + timedelta(seconds=9), counted=row(0, 9).counted)
    wrong = [
        replace(fine, until=NOON),
        replace(fine, until=NOON + 2 * STRETCH_MAX),
        replace(fine, counted=()),
        replace(fine, start=NOON.replace(tzinfo=None)),
    ]
    assert [one.until for one in told(offer(idle=(fine, *wrong)))] == [fine.until]


def test_the_servers_own_time_adds_up() -> None:
    """The server's processor seconds are those between two looks; a new process begins a new row."""
    own = OwnTime(NOON, 5.0)
    first = own.until(NOON + timedelta(seconds=10), 5.5)
    second = own.until(NOON + timedelta(seconds=30), 5.75)
    joined = continued(first, second)
    assert (joined.cpu_s, joined.start, joined.until) == (0.75, NOON, NOON + timedelta(seconds=30))
    other = OwnTime(NOON + timedelta(seconds=30), 0.0).until(NOON + timedelta(seconds=40), 1.0)
    assert continued(joined, other) == other


def test_programs_of_one_machine_know_it() -> None:
    """Server and node on one running machine name it alike, and nobody reads the machine's number from the name."""
    name = running_host()
    assert name == running_host()
    assert name is None or len(name) == 16
    assert own_cpu_s() > 0


@pytest.mark.anyio
async def test_idle_is_kept_with_the_request_for_work(where: Path | str) -> None:
    """Both databases keep a stretch once, longer when it goes on, and the server's own time beside it."""
    own = OwnTime(NOON, 0.0)
    async with opened(where) as store:
        await store.keep_idle([row(0, 25)], own.until(NOON + timedelta(seconds=25), 0.25))
        await store.keep_idle([row(0, 25), row(25, 50)], own.until(NOON + timedelta(seconds=50), 0.5))
        rows = await store.node_idle(NOON, NOON + timedelta(hours=1))
        used = await store.server_time(NOON, NOON + timedelta(hours=1))
        assert [(one.until, one.counted[0].amount, one.counted[0].channel) for one in rows] == [
            (NOON + timedelta(seconds=50), 20.0, COUNTER)
        ]
        assert [(one.cpu_s, one.until) for one in used] == [(0.5, NOON + timedelta(seconds=50))]
        assert await store.node_idle(NOON + timedelta(seconds=50), NOON + timedelta(hours=1)) == []


@pytest.mark.anyio
async def test_a_node_tells_and_an_older_one_need_not(tmp_path: Path) -> None:
    """A request that tells of idle time has it kept; one of a node that knows nothing of it is as welcome."""
    at = datetime.now(UTC)
    stretch = IdleStretch(start=at - timedelta(seconds=25), until=at, counted=row(0, 9).counted)
    async with stage(tmp_path) as scene:
        await scene.join(idle=(stretch,), cores=4, host="h")
        await scene.join(idle=(stretch,), cores=4, host="h")
        older = to_json(offer(wait_s=0.0))
        for name in (b"idle", b"cores", b"host"):
            older = older.replace(b'"' + name + b'":null', b'"x":0').replace(b'"' + name + b'":[]', b'"x":0')
        assert (await scene.http.post("/node/v1/lease", content=older)).status_code == 204
        rows = await scene.store.node_idle(at - timedelta(minutes=1), at)
        assert [(one.node, one.start, one.until, one.cores, one.host) for one in rows] == [
            ("n1", stretch.start, stretch.until, 4, "h")
        ]
        await asyncio.sleep(0)


def test_the_request_travels_as_it_is() -> None:
    """Idle stretches come out of the JSON as they went in."""
    from pydantic import TypeAdapter

    stretch = IdleStretch(start=NOON, until=NOON + timedelta(seconds=9), counted=row(0, 9).counted)
    sent = offer(idle=(stretch,), cores=4, host="h")
    assert TypeAdapter(LeaseRequest).validate_json(to_json(sent)) == sent
