"""The contract of the `Queue` port, on SQLite and Postgres, and what the database itself guards."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import databases
import postgres_server
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, AttemptState, JobState, Message, Problem, Prompt
from joulebox.server.control import Baseline, ControlRun, Entry, Subject
from joulebox.server.jobs import (
    LONGEST_EVERY,
    LOST_MAX,
    RANKS,
    RECENT,
    Claim,
    Delivery,
    Ending,
    NodeRecord,
    PastRun,
    Place,
    Plan,
    Queue,
    StoredReceipt,
    after,
    new_id,
)
from joulebox.server.store import Store
from server_stage import offer

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
PROMPT = Prompt(model="m", messages=(Message(role="user", content="hi"),))
CAUSE = Problem(code="engine_died", detail="The engine died.")
LOST = Ending(AttemptState.LOST, CAUSE)
FAILED = Ending(AttemptState.FAILED, CAUSE)
MAX = 3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(where: Path | str) -> AsyncIterator[Store]:
    store = Store(where if isinstance(where, str) else f"sqlite+aiosqlite:///{where / 'joulebox.db'}")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(where: Path | str) -> AsyncIterator[Store]:
    async with opened(where) as one:
        yield one


@pytest.fixture
async def queue(where: Path | str) -> AsyncIterator[Queue]:
    async with opened(where) as store:
        yield store


def delivery(receipt_id: str | None = None) -> Delivery:
    receipt = StoredReceipt(id=receipt_id or new_id(), factors={"pue": 1.0}, body=b'{"id":"r"}')
    return Delivery(
        answer="Hello",
        finish_reason="stop",
        chunks=((2, "Hel"), (3, "lo")),
        answer_seq=4,
        trace=b"trace",
        receipt=receipt,
    )


async def ask(queue: Queue, *, model: str = "m", placement: str = "fastest") -> str:
    record, new = await queue.enqueue(replace(PROMPT, model=model), placement, None, NOW)
    assert new
    return record.job.id


async def claim(queue: Queue, node: str = "n1", models: Sequence[str] = ("m",)) -> Claim | None:
    return await queue.claim(offer(node=node, models=models), lambda record: f"has {record.job.prompt.model}", NOW)


async def claimed(queue: Queue, node: str = "n1") -> Claim:
    claim_ = await claim(queue, node)
    assert claim_ is not None
    return claim_


async def line(queue: Queue) -> list[str]:
    """Who waits, in the order of who has fewest before him."""
    assert isinstance(queue, Store)
    ids = [one.job.id for one in (await queue.page(100, None)).records if one.job.state is JobState.AVAILABLE]
    before = await queue.before(ids)
    return sorted(ids, key=lambda job_id: sum(before[job_id].values()))


async def state(queue: Queue, job_id: str) -> JobState:
    record = await queue.record(job_id)
    assert record is not None
    return record.job.state


async def test_two_claimers_never_get_the_same_job(queue: Queue) -> None:
    """Twelve nodes that ask at the same moment for eight jobs get each job once."""
    asked = [await ask(queue) for _ in range(8)]
    claims = await asyncio.gather(*(claim(queue, f"n{number}") for number in range(12)))
    taken = Counter(one.attempt.job_id for one in claims if one is not None)
    assert taken == dict.fromkeys(asked, 1)
    assert len({one.attempt.token for one in claims if one is not None}) == 8


async def test_the_oldest_fitting_job_goes_first(queue: Queue) -> None:
    """A node gets the oldest job whose model it has and which may run on it."""
    other, placed, first, second = (
        await ask(queue, model="k"),
        await ask(queue, placement="node:n2"),
        await ask(queue),
        await ask(queue),
    )
    assert (await claimed(queue, "n1")).attempt.job_id == first
    assert (await claimed(queue, "n2")).attempt.job_id == placed
    assert (await claimed(queue, "n3")).attempt.job_id == second
    assert await claim(queue, "n4") is None
    assert await line(queue) == [other]


async def test_askers_take_turns(queue: Queue) -> None:
    """Who asks much at once waits behind the first prompts of others; classes go before turns, and the line says so."""
    order = []
    for asker, rank in [("a", 0), ("a", 0), ("a", 0), ("b", 0), ("c", 0), ("b", 0), ("d", 2), (None, 9), ("e", 1)]:
        record, _ = await queue.enqueue(PROMPT, "fastest", None, NOW, rank=rank, asker=asker)
        order.append(record.job.id)
    expected = [order[number] for number in (0, 3, 4, 1, 5, 2, 8, 6, 7)]
    assert await line(queue) == expected
    assert [(await claimed(queue, f"n{number}")).attempt.job_id for number in range(len(order))] == expected


async def test_nothing_starves(queue: Queue) -> None:
    """However many urgent first prompts come after it, the prompt that has waited longest is taken in time."""
    old = (await queue.enqueue(PROMPT, "fastest", None, NOW, rank=2, asker="a"))[0].job.id
    taken = []
    for number in range(LONGEST_EVERY):
        await queue.enqueue(PROMPT, "fastest", None, NOW, asker=f"b{number}")
        one = await claimed(queue)
        taken.append(one.attempt.job_id)
        await queue.complete(one.attempt.token, delivery(), NOW)
    assert taken.index(old) == LONGEST_EVERY - 1
    assert len(await line(queue)) == 1


async def test_the_loaded_model_goes_first_among_equals(queue: Queue) -> None:
    """A node stays with the model that it has loaded, but not when another prompt is more urgent."""
    other, same = await ask(queue, model="k"), await ask(queue)
    urgent = await ask(queue, model="k")
    later = (await queue.enqueue(PROMPT, "fastest", None, NOW, rank=1))[0].job.id
    order = []
    for number in range(4):
        request = offer(node=f"n{number}", models=("k", "m"), loaded="m")
        one = await queue.claim(request, lambda _: "", NOW)
        assert one is not None
        order.append(one.attempt.job_id)
    assert order == [same, other, urgent, later]


async def test_deferred_work(store: Store) -> None:
    """What begins later is in no line until it is placed there; a plan that somebody moved first is not moved again."""
    plan = Plan(policy="greenest", line="fastest", reason="greener then", asked=NOW, deadline=NOW + timedelta(hours=9))
    later = NOW + timedelta(hours=3)
    place = Place(line="node:n1", start=later, due=later, plan=plan)
    first, second = [
        (await store.enqueue(PROMPT, "fastest", None, NOW, rank=2, asker="a", place=place))[0] for _ in range(2)
    ]
    assert (first.job.state, first.job.available, first.due, first.plan) == (JobState.DEFERRED, later, later, plan)
    assert await claim(store, "n1") is None
    soon = later + timedelta(seconds=1)
    assert (await store.next_due(), await store.booked(later), await store.crowd()) == (later, {}, {})
    assert await store.booked(soon) == {("node:n1", later): 2}
    assert [one.job.id for one in await store.planned(first.number, 9)] == [second.job.id]
    assert [one.job.id for one in await store.due(later, 1)] == [first.job.id]
    assert await store.due(later - timedelta(seconds=1), 9) == []
    sooner = replace(place, start=NOW, due=None, urgent=True)
    moved = await store.replan(first, sooner, NOW)
    assert moved is not None
    assert (moved.job.state, moved.rank, moved.due, moved.placement) == (JobState.AVAILABLE, 0, None, "node:n1")
    assert await store.replan(first, sooner, NOW) is None
    await store.cancel(second.job.id, NOW)
    assert await store.replan(second, sooner, NOW) is None
    assert await store.crowd() == {("m", "node:n1"): 1}
    assert (await store.next_due(), await store.planned(0, 9)) == (None, [])
    assert (await claimed(store, "n1")).record.plan == plan


async def test_what_past_runs_took(store: Store) -> None:
    """The newest runs of a model on a node are kept, those of another file of the same name forgotten; what a plan
    saved stands with the job."""
    run = PastRun(scope="wall", energy_kwh=1e-6, reserved_s=2.0, output_tokens=3)
    plan = Plan(policy="greenest", line="fastest", reason="greener there", asked=NOW)
    place = Place(line="fastest", start=NOW, due=None, plan=plan)
    for number in range(RECENT + 1):
        await store.enqueue(PROMPT, "fastest", None, NOW, place=place)
        told = replace(delivery(), past_run=("d1", replace(run, output_tokens=number)), plan=replace(plan, saved_g=0.5))
        record = await store.complete((await claimed(store)).attempt.token, told, NOW)
        assert record is not None
        assert record.plan == replace(plan, saved_g=0.5)
    assert [one.output_tokens for one in (await store.past_runs("m"))["n1"]] == list(range(1, RECENT + 1))
    await ask(store)
    await store.complete((await claimed(store)).attempt.token, replace(delivery(), past_run=("d2", run)), NOW)
    assert await store.past_runs("m") == {"n1": [run]}
    assert await store.past_runs("k") == {}


async def test_a_zone_is_a_line(queue: Queue) -> None:
    """What is to run in a zone is taken by any node there, however the node spells it, and by no other."""
    placed = await ask(queue, placement="zone:DE")
    for zone in ("FR", None):
        assert await queue.claim(offer(node="n0", zone=zone), lambda _: "", NOW) is None
    one = await queue.claim(offer(zone=" de"), lambda record: record.placement, NOW)
    assert one is not None
    assert (one.attempt.job_id, one.attempt.reason) == (placed, "zone:DE")


async def test_a_stale_token_changes_nothing(queue: Queue) -> None:
    """Once an attempt has ended in any way, its token closes, completes and revives nothing."""
    job_id = await ask(queue)
    for ending in (LOST, FAILED):
        token = (await claimed(queue)).attempt.token
        assert await queue.close_attempt(token, ending, MAX, NOW) is not None
        assert await queue.close_attempt(token, ending, MAX, NOW) is None
        assert await queue.complete(token, delivery(), NOW) is None
        assert await state(queue, job_id) is JobState.AVAILABLE
    assert await queue.close_attempt("unknown", LOST, MAX, NOW) is None
    assert await queue.receipt("unknown") is None


async def test_done_once(queue: Queue) -> None:
    """Of two deliveries of one attempt one is taken; the job keeps its first answer and receipt."""
    job_id = await ask(queue)
    token = (await claimed(queue)).attempt.token
    both = await asyncio.gather(*(queue.complete(token, delivery(f"receipt{n}"), NOW) for n in range(2)))
    kept = [record for record in both if record is not None]
    assert len(kept) == 1
    assert await queue.record(job_id) == kept[0]
    assert await queue.receipt(str(kept[0].job.receipt_id)) == b'{"id":"r"}'
    attempt = await queue.attempt(token)
    assert attempt is not None
    assert attempt.state is AttemptState.DONE


async def test_a_delivery_is_kept_whole_or_not_at_all(queue: Queue) -> None:
    """When the last write of a delivery fails, nothing of it is there, and the attempt can still deliver."""
    await ask(queue)
    await queue.complete((await claimed(queue)).attempt.token, delivery("taken"), NOW)
    job_id = await ask(queue)
    token = (await claimed(queue)).attempt.token
    with pytest.raises(Exception, match=r"(?i)unique"):
        await queue.complete(token, delivery("taken"), NOW)
    assert await state(queue, job_id) is JobState.RUNNING
    assert await queue.replay(job_id) is None
    record = await queue.complete(token, delivery("free"), NOW)
    assert record is not None
    assert (record.job.answer, record.job.receipt_id) == ("Hello", "free")


async def test_a_lost_job_is_first_in_line_again(queue: Queue) -> None:
    """A rescued job goes before younger ones, as attempt 2; after ten losses it is given up, naming the cause."""
    job_id, younger = await ask(queue), await ask(queue)
    for number in range(1, LOST_MAX + 2):
        one = await claimed(queue)
        assert (one.attempt.job_id, one.attempt.number) == (job_id, number)
        await queue.close_attempt(one.attempt.token, LOST, MAX, NOW)
    record = await queue.record(job_id)
    assert record is not None
    assert record.job.error is not None
    assert (record.job.state, record.job.error.code) == (JobState.DISCARDED, "too_many_attempts")
    assert "The engine died." in record.job.error.detail
    assert (await claimed(queue)).attempt.job_id == younger


async def test_cancelling(queue: Queue) -> None:
    """A waiting job is cancelled, a running one is marked and not run again, a final one stays as it is."""
    waiting, running = await ask(queue), await ask(queue)
    assert (await queue.cancel(waiting, NOW)) is not None
    assert await state(queue, waiting) is JobState.CANCELLED
    one = await claimed(queue)
    marked = await queue.cancel(running, NOW)
    assert marked is not None
    assert (marked.job.state, marked.cancel) == (JobState.RUNNING, True)
    await queue.close_attempt(one.attempt.token, LOST, MAX, NOW)
    assert await state(queue, running) is JobState.CANCELLED
    assert await queue.cancel("unknown", NOW) is None


async def test_one_key_one_job(queue: Queue) -> None:
    """The same idempotency key at the same moment makes one job."""
    both = await asyncio.gather(*(queue.enqueue(PROMPT, "fastest", "k", NOW) for _ in range(4)))
    assert len({record.job.id for record, _ in both}) == 1
    assert sorted(new for _, new in both) == [False, False, False, True]
    assert await queue.by_key("k") == both[0][0]


async def test_everything_outlives_the_process(tmp_path: Path) -> None:
    """Jobs, attempts, nodes, answers and times are the same after the file was opened anew."""
    async with opened(tmp_path) as queue:
        done_id, running_id, waiting_id = await ask(queue), await ask(queue), await ask(queue)
        token = (await claimed(queue)).attempt.token
        later = NOW + timedelta(seconds=7.5)
        before = await queue.complete(token, delivery("r"), later)
        running = (await claimed(queue)).attempt
        node = NodeRecord(offer=offer(missing=("gpu0",), temperature_c=40.5), seen=NOW)
        await queue.save_node(node)
        await queue.save_node(replace(node, seen=later))
    async with opened(tmp_path) as queue:
        assert await queue.record(done_id) == before
        assert [(attempt, record.job.id) for attempt, record in await queue.running()] == [(running, running_id)]
        assert await line(queue) == [waiting_id]
        assert await queue.durations_s(20) == [("m", 7.5)]
        assert [(known.offer.missing, known.offer.channels, known.seen) for known in await queue.nodes()] == [
            (("gpu0",), node.offer.channels, later)
        ]
        replay = await queue.replay(done_id)
        assert replay is not None
        assert (replay.attempt, replay.chunks, replay.answer_seq) == (1, ((2, "Hel"), (3, "lo")), 4)


# --- the state machine ------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([AttemptState.FAILED, AttemptState.LOST, AttemptState.CANCELLED]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(1, 5),
)
def test_after(ended: AttemptState, retry: bool, cancel: bool, failed: int, lost: int, attempts_max: int) -> None:
    """A job is tried again only while it may be, is discarded only with a cause, and never comes back cancelled."""
    ending = Ending(ended, CAUSE, retry=retry)  # type: ignore[arg-type]
    job_state, problem = after(ending, cancel=cancel, failed=failed, lost=lost, attempts_max=attempts_max)
    assert (job_state is JobState.CANCELLED) == (cancel or ended is AttemptState.CANCELLED)
    assert (job_state is JobState.DISCARDED) == (problem is not None)
    if job_state is JobState.AVAILABLE:
        assert lost <= LOST_MAX if ended is AttemptState.LOST else (retry and failed < attempts_max)
    if problem is not None:
        assert CAUSE.detail in problem.detail


@dataclass
class Book:
    """What a test believes of the queue, kept beside it."""

    line: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    running: dict[str, tuple[str, str]] = field(default_factory=dict)
    final: dict[str, JobState] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "claim", "lose", "fail", "done", "cancel", "stale"]), st.integers(0, 3)),
    min_size=4,
    max_size=24,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_any_history_keeps_the_rules(steps: list[tuple[str, int]]) -> None:
    """After any sequence of steps each job is in exactly one place, final states stay, and no node has two jobs."""

    async def history() -> None:
        with TemporaryDirectory() as folder:
            databases.prepare(Path(folder))
            async with opened(Path(folder)) as queue:
                book = Book()
                for step, which in steps:
                    await _step(queue, book, step, which)
                    await _agrees(queue, book)

    asyncio.run(history())


async def _step(queue: Queue, book: Book, step: str, which: int) -> None:
    node = f"n{which}"
    if step == "ask":
        book.order.append(await ask(queue))
        book.line.append(book.order[-1])
    elif step == "claim" and node not in book.running:
        one = await claim(queue, node)
        assert (one.attempt.job_id if one else None) == (book.line[0] if book.line else None)
        if one is not None:
            book.running[node] = (book.line.pop(0), one.attempt.token)
            book.tokens.append(one.attempt.token)
    elif step == "cancel" and which < len(book.line):
        job_id = book.line.pop(which)
        await queue.cancel(job_id, NOW)
        book.final[job_id] = JobState.CANCELLED
    elif step == "stale":
        for token in book.tokens:
            if token not in {running for _, running in book.running.values()}:
                assert await queue.close_attempt(token, LOST, MAX, NOW) is None
                assert await queue.complete(token, delivery(), NOW) is None
    elif step in ("lose", "fail", "done") and node in book.running:
        await _end(queue, book, step, *book.running.pop(node))


async def _end(queue: Queue, book: Book, step: str, job_id: str, token: str) -> None:
    if step == "done":
        record = await queue.complete(token, delivery(), NOW)
    else:
        record = await queue.close_attempt(token, LOST if step == "lose" else FAILED, MAX, NOW)
    assert record is not None
    if record.job.state is JobState.AVAILABLE:
        book.line = sorted([*book.line, job_id], key=book.order.index)
    else:
        assert record.job.state is (JobState.COMPLETED if step == "done" else JobState.DISCARDED)
        book.final[job_id] = record.job.state


async def _agrees(queue: Queue, book: Book) -> None:
    assert await line(queue) == book.line
    running = {attempt.node: (record.job.id, attempt.token) for attempt, record in await queue.running()}
    assert running == book.running
    for job_id, final in book.final.items():
        record = await queue.record(job_id)
        assert record is not None
        assert record.job.state is final
        assert (record.job.finalized is not None) == (final in FINAL_STATES)


# --- what the database guards -----------------------------------------------------------------------------------------


SECOND = (
    "INSERT INTO attempts SELECT 'second', {}, instance, state, reason, leased, finished, problem, owner FROM attempts"
)
FORBIDDEN = [
    "UPDATE jobs SET state = 'lurking'",
    "UPDATE jobs SET state = 'completed'",
    "UPDATE jobs SET finalized = '2026-01-01 00:00:00'",
    "UPDATE attempts SET state = 'lurking'",
    "UPDATE attempts SET state = 'done'",
    SECOND.format("job_id, 2, 'n9'"),
    SECOND.format("'nobody', 1, 'n9'"),
    "INSERT INTO traces VALUES ('nobody', '', x'00')",
]


async def test_the_database_refuses_states_that_must_not_be(tmp_path: Path) -> None:
    """Unknown states, final jobs without an end, two running attempts, evidence of nothing: not even by hand."""
    async with opened(tmp_path) as queue:
        await ask(queue)
        await claimed(queue)
    with sqlite3.connect(tmp_path / "joulebox.db") as by_hand:
        by_hand.execute("PRAGMA foreign_keys=ON")
        for statement in FORBIDDEN:
            with pytest.raises(sqlite3.IntegrityError):
                by_hand.execute(statement)


async def test_one_schema(empty: Path | str) -> None:
    """The chain of migrations ends at the schema that the code knows, and makes exactly the tables it uses."""
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from joulebox.server.store.schema import HEAD
    from joulebox.server.store.tables import metadata

    config = Config()
    config.set_main_option("script_location", "joulebox.server.store:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]

    async with opened(empty) as queue, queue._database.read() as connection:
        differences = await connection.run_sync(
            lambda inner: compare_metadata(MigrationContext.configure(inner), metadata)
        )
    assert differences == []


async def test_durable_settings(tmp_path: Path) -> None:
    """Every connection writes through to the disk, keeps foreign keys, and shares the file with readers."""
    async with opened(tmp_path) as store, store._database.read() as connection:
        values = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert values == ["wal", 2, 1, 5000]


async def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    """A folder in its place, a file of another kind, a newer schema, a second server: one sentence each."""
    (tmp_path / "folder" / "joulebox.db").mkdir(parents=True)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "joulebox.db").write_bytes(b"no database at all" * 100)
    (tmp_path / "file").write_text("")
    async with opened(tmp_path / "newer"):
        pass
    with sqlite3.connect(tmp_path / "newer" / "joulebox.db") as by_hand:
        by_hand.execute("UPDATE alembic_version SET version_num = '9999'")
    for name, part in (
        ("folder", "cannot be opened"),
        ("text", "is not a database"),
        ("file", "cannot be opened"),
        ("newer", "newer Joulebox (schema 9999)"),
    ):
        with pytest.raises(JouleboxError, match="database") as refused:
            async with opened(tmp_path / name):
                pass
        assert refused.value.code == "database"
        assert part in refused.value.detail
    async with opened(tmp_path):
        with pytest.raises(JouleboxError, match="Another server is using"):
            async with opened(tmp_path):
                pass


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql+psycopg2://host/db", "sqlite+aiosqlite://", "rubbish"])
def test_an_address_that_is_no_database(url: str) -> None:
    """A file of SQLite or a server of Postgres: any other address is refused as a setting."""
    with pytest.raises(JouleboxError, match="database_url") as refused:
        Store(url)
    assert refused.value.code == "bad_setting"


async def test_one_sentence_for_a_postgres_that_cannot_be_used() -> None:
    """No server at the address, no such database: one sentence each, which never shows the password."""
    with postgres_server.database() as url:
        absent = url.replace("?", "_absent?")
        for address, part in (
            ("postgresql://me:secret@127.0.0.1:9/joulebox", "does not answer"),
            (absent, "There is no database"),
        ):
            with pytest.raises(JouleboxError, match="database") as refused:
                async with opened(address):
                    pass
            assert refused.value.code == "database"
            assert part in refused.value.detail
            assert "secret" not in refused.value.detail


@pytest.mark.parametrize("name", ["ssl", "sslmode"])
async def test_the_address_says_whether_to_encrypt(name: str) -> None:
    """Either spelling in the address of a Postgres is understood on each of the connections that a server makes."""
    with databases.postgres() as url:
        async with opened(f"{url}&{name}=prefer") as store:
            await store.join("http://here", lambda _: None, NOW)
            assert await store.by_key("none") is None
            assert await store.nodes() == []


async def test_a_transaction_that_fails_changes_nothing(where: Path | str) -> None:
    """A transaction that ends in an error leaves everything as it was, on either database."""
    from sqlalchemy import text

    async def fail(store: Store) -> None:
        async with store._database.write() as connection:
            await connection.execute(text("DELETE FROM nodes"))
            raise ZeroDivisionError

    async with opened(where) as store:
        await store.save_node(NodeRecord(offer=offer(), seen=NOW))
        with pytest.raises(ZeroDivisionError):
            await fail(store)
        assert len(await store.nodes()) == 1


def test_what_is_under_way_is_kept_when_the_server_ends(where: Path | str) -> None:
    """A transaction whose asker has gone is carried out before the database is closed."""

    async def leave() -> None:
        async with opened(where) as store:
            asking = asyncio.create_task(ask(store))
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    async def kept() -> int:
        async with opened(where) as store:
            return len((await store.page(10, None)).records)

    asyncio.run(leave())
    assert asyncio.run(kept()) == 1


async def test_changes_kept_together_fail_alone(tmp_path: Path) -> None:
    """Of the changes that one commit keeps, one that fails is undone alone."""
    async with opened(tmp_path) as queue:
        job_id = await ask(queue)
        token = (await claimed(queue)).attempt.token
        wrong = replace(delivery(), trace=cast("bytes", "no bytes"))
        changes = queue.complete(token, wrong, NOW), queue.complete(token, delivery(), NOW), ask(queue)
        failed, _, asked = await asyncio.gather(*changes, return_exceptions=True)
        assert isinstance(failed, TypeError)
        assert await state(queue, job_id) is JobState.COMPLETED
        assert await state(queue, str(asked)) is JobState.AVAILABLE


async def test_nobody_sees_what_is_not_kept_yet(tmp_path: Path) -> None:
    """While the disk takes its time over a prompt, whoever looks finds all that was kept, and not that prompt."""
    async with opened(tmp_path) as queue:
        first = await ask(queue)
        disk = queue._database._busy.disk  # type: ignore[attr-defined]
        done = threading.Event()
        disk.submit(done.wait, 10.0)
        asked = asyncio.create_task(queue.enqueue(PROMPT, "fastest", "key", NOW))
        try:
            while not queue._database._busy.writer.in_transaction:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert (await queue.by_key("key"), await state(queue, first)) == (None, JobState.AVAILABLE)
        finally:
            done.set()
        record, _ = await asked
        assert await queue.by_key("key") == record


async def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """When the file cannot grow, the write is refused in one sentence and all that was there is still there."""
    async with opened(tmp_path) as queue:
        job_id = await ask(queue)
        token = (await claimed(queue)).attempt.token
        writer = queue._database._busy.writer  # type: ignore[attr-defined]
        pages = writer.execute("PRAGMA page_count").fetchone()[0]
        writer.execute(f"PRAGMA max_page_count = {pages}")
        large = replace(delivery(), trace=bytes(200_000))
        with pytest.raises(JouleboxError, match="is full") as refused:
            await queue.complete(token, large, NOW)
        assert refused.value.code == "database"
        assert await state(queue, job_id) is JobState.RUNNING
        writer.execute("PRAGMA max_page_count = 1000000")
        assert await queue.complete(token, large, NOW) is not None


async def test_control_prompts_and_their_book(queue: Queue) -> None:
    """A control prompt waits behind everybody, stands in no line, is not tried again; its runs and references are kept,
    and a reference that is fixed stays as it is."""
    subject = Subject(model="m", digest="d", engine="e 1", scope="cpu", output_tokens=64)
    control, _ = await queue.enqueue(PROMPT, "node:n1", None, NOW, "control", rank=RANKS["control"])
    asked = await ask(queue)
    assert await line(queue) == [asked]
    assert (await claimed(queue)).attempt.job_id == asked
    token = (await queue.running())[0][0].token
    assert await queue.complete(token, delivery(), NOW) is not None
    first = await claimed(queue)
    assert (first.attempt.job_id, first.record.purpose) == (control.job.id, "control")
    run = ControlRun(job_id=control.job.id, receipt_id="r", at=NOW, answer_j=50.0, u_j=1.0, temperature_c=41.0)
    begun = Baseline(node="n1", at=NOW, why="the first control run", subject=subject)
    kept = replace(delivery(), control=Entry(baseline=begun, run=run))
    assert await queue.complete(first.attempt.token, kept, NOW) is not None
    book = await queue.control("n1")
    assert book.baseline is not None
    assert (book.runs, book.asked, book.prompts_since) == ((run,), NOW, 1)
    assert replace(book.baseline, number=None) == begun
    for mean_j in (50.0, 99.0):
        again, _ = await queue.enqueue(PROMPT, "node:n1", None, NOW, "control", rank=RANKS["control"])
        taken = await claimed(queue)
        fixed = replace(book.baseline, mean_j=mean_j, spread_j=1.0)
        later = replace(run, job_id=again.job.id, at=NOW + timedelta(hours=1), high=0.0, low=0.0)
        entered = replace(delivery(), control=Entry(baseline=fixed, run=later))
        assert await queue.complete(taken.attempt.token, entered, NOW) is not None
    book = await queue.control("n1")
    assert book.baseline is not None
    assert (book.baseline.mean_j, len(book.runs), book.prompts_since) == (50.0, 3, 0)
    await queue.rebaseline(Baseline(node="n1", at=NOW, why="new fan"))
    assert (await queue.control("n1")).runs == ()
    assert (await queue.control("n2")).baseline is None
    failing, _ = await queue.enqueue(PROMPT, "node:n1", None, NOW, "control", rank=RANKS["control"])
    assert await queue.close_attempt((await claimed(queue)).attempt.token, LOST, MAX, NOW) is not None
    assert await state(queue, failing.job.id) is JobState.DISCARDED
