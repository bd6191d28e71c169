"""Every statement, named. Changes of state carry the state they start from, so that a stale one changes nothing."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    table,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from joulebox.model import AttemptState, JobState
from joulebox.server.jobs import BEFORE_MAX, NODE_PREFIX, RANKS
from joulebox.server.store.tables import (
    attempts,
    audit,
    baselines,
    control_runs,
    grid_values,
    jobs,
    node_idle,
    node_sleep,
    nodes,
    past_runs,
    receipts,
    rechecks,
    replicas,
    secrets,
    server_time,
    tokens,
    traces,
)

JOB = (
    jobs.c.number,
    jobs.c.id,
    jobs.c.state,
    jobs.c.placement,
    jobs.c.prompt,
    jobs.c.created,
    jobs.c.available,
    jobs.c.attempt,
    jobs.c.node,
    jobs.c.cancel,
    jobs.c.finalized,
    jobs.c.answer,
    jobs.c.tool_calls,
    jobs.c.finish_reason,
    jobs.c.receipt_id,
    jobs.c.error_code,
    jobs.c.error_detail,
    jobs.c.purpose,
    jobs.c.rank,
    jobs.c.plan,
    jobs.c.due,
    jobs.c.owner,
    jobs.c.shared,
    jobs.c.erased,
    jobs.c.traceparent,
)
"""What a `Record` is made of: everything but the pieces of the answer."""

TURN = (jobs.c.rank, jobs.c.turn, jobs.c.number)
"""The order of the line: more urgent classes first; then of each asker the first prompt before anybody's second; then
the order of asking."""
Rows = Select[Any]
Asked = Select[Any] | ReturningUpdate[Any] | ReturningInsert[Any]
"""What gives rows: a look, or a change that says what it changed."""
CLAIMERS_MAX: Final = 32
"""As many heads of each line are looked at, so that so many may claim from it at the same moment."""
_LOCKS: Final = table("pg_locks", *map(column, ("locktype", "objsubid", "granted", "database", "classid", "objid")))
_DATABASES: Final = table("pg_database", column("oid"), column("datname"))
REPLICAS: Final = 0x4A42
"""The class of the advisory locks that tell which servers live."""
PLANNING: Final = 0x4A42504C
"""The advisory lock of the server that plans."""
CHANNEL: Final = "joulebox"
"""What servers that share a database tell one another goes through this channel of Postgres."""
ASKED = jobs.c.purpose == "prompt"
_PLANNED: Final = jobs.c.due.is_not(None) & jobs.c.state.in_(
    [literal_column("'available'"), literal_column("'deferred'")]  # as the index says it, so that it is used
)
RUNS_KEPT = 200
"""So many of a node's newest control runs are looked at."""


def job(job_id: str) -> Rows:
    """One job."""
    return select(*JOB).where(jobs.c.id == job_id)


def job_by_key(key: str) -> Rows:
    """The job asked with this idempotency key."""
    return select(*JOB).where(jobs.c.idempotency_key == key)


def job_page(limit: int, before: int | None, owner: str | None = None) -> Rows:
    """Prompts of people, newest first; one more than `limit`, to know whether there is a next page."""
    rows = select(*JOB).where(ASKED).order_by(jobs.c.number.desc()).limit(limit + 1)
    rows = rows if owner is None else rows.where(jobs.c.owner == owner)
    return rows if before is None else rows.where(jobs.c.number <= before)


def _lines() -> CTE:
    """What anybody waits for (model and placement), each found by one step through the index, however many wait."""
    waits = jobs.c.state == JobState.AVAILABLE
    kind = (jobs.c.model, jobs.c.placement)
    first = select(*kind).where(waits).order_by(*kind).limit(1).subquery()
    lines = select(first.c.model, first.c.placement).cte("lines", recursive=True)

    def following(what: ColumnElement[str]) -> ColumnElement[Any]:
        later = tuple_(*kind) > tuple_(lines.c.model, lines.c.placement)
        return select(what).where(waits, later).order_by(*kind).limit(1).correlate(lines).scalar_subquery()

    following_line = select(following(jobs.c.model), following(jobs.c.placement))
    return lines.union_all(following_line.where(lines.c.model.is_not(None)))


def before(job_ids: Collection[str]) -> Rows:
    """How many prompts of people wait before each of these jobs, by what they wait for."""
    lines, mine, other = _lines(), jobs.alias("mine"), jobs.alias("other")
    earlier = (
        select(other.c.number)
        .where(
            other.c.state == JobState.AVAILABLE,
            other.c.model == lines.c.model,
            other.c.placement == lines.c.placement,
            tuple_(other.c.rank, other.c.turn, other.c.number) < tuple_(mine.c.rank, mine.c.turn, mine.c.number),
            other.c.rank < RANKS["control"],
        )
        .limit(BEFORE_MAX)
        .correlate(lines, mine)
        .subquery()
    )
    count = select(func.count()).select_from(earlier).scalar_subquery()
    return (
        select(mine.c.id, lines.c.model, lines.c.placement, count.label("count"))
        .select_from(mine.join(lines, true()))
        .where(mine.c.id.in_(job_ids), mine.c.state == JobState.AVAILABLE, lines.c.model.is_not(None))
    )


def outstanding(asker: str) -> Rows:
    """How many prompts of this asker wait."""
    return select(func.count()).where(jobs.c.asker == asker, jobs.c.state == JobState.AVAILABLE)


def unfinished(asker: str) -> Rows:
    """How many prompts of this asker are not over, by model."""
    mine = (jobs.c.asker == asker, jobs.c.finalized.is_(None))
    return select(jobs.c.model, func.count().label("count")).where(*mine).group_by(jobs.c.model)


def answered_since(asker: str, since: datetime) -> Rows:
    """What each prompt of this asker took that was answered since, oldest first."""
    mine = (jobs.c.asker == asker, jobs.c.finalized >= since, jobs.c.state == JobState.COMPLETED)
    return select(jobs.c.finalized, jobs.c.charged_j).where(*mine).order_by(jobs.c.finalized)


def asked_since(asker: str, since: datetime) -> Rows:
    """How many prompts this asker asked since, and when the first of them."""
    wanted: tuple[ColumnElement[Any], ...] = (func.count().label("count"), func.min(jobs.c.created).label("first"))
    return select(*wanted).where(jobs.c.asker == asker, jobs.c.created >= since)


def next_job(models: Sequence[str], lines: Sequence[str], loaded: str | None = None, *, longest: bool = False) -> Rows:
    """The waiting job for one of these models, in one of these lines, whose turn it is, or the one that has waited
    `longest`. Among equals one for the model that is `loaded` goes first. On Postgres, rows that another claimer holds
    are stepped over.

    The head of each line is looked up in the index, so that what waits for others costs nothing. The database decides
    again whether the job still waits, once it holds the row.
    """
    order = (jobs.c.number,) if longest else TURN
    heads = union_all(
        *(
            select(
                select(jobs.c.number)
                .where(jobs.c.state == JobState.AVAILABLE, jobs.c.model == model, jobs.c.placement == placement)
                .order_by(*order)
                .limit(CLAIMERS_MAX)
                .subquery()
            )
            for model in models
            for placement in lines
        )
    ).subquery()
    ready = (
        select(jobs.c.number)
        .where(jobs.c.number.in_(select(heads.c.number)), jobs.c.state == JobState.AVAILABLE)
        .limit(1)
        .with_for_update(skip_locked=True, of=jobs)
    )
    if longest:
        return ready.order_by(case((ASKED, 0), else_=1), jobs.c.number)
    return ready.order_by(jobs.c.rank, jobs.c.turn, case((jobs.c.model == loaded, 0), else_=1), jobs.c.number)


def waiting(lines: Collection[tuple[str, str]]) -> Rows:
    """Those of these models and lines in which something waits: the head of each is looked up in the index."""
    heads = (
        select(jobs.c.model, jobs.c.placement)
        .where(jobs.c.state == JobState.AVAILABLE, jobs.c.model == model, jobs.c.placement == placement)
        .limit(1)
        .subquery()
        for model, placement in sorted(lines)
    )
    return select(union_all(*(select(head) for head in heads)).subquery())


def sleeps() -> Rows:
    """Every node that ever slept."""
    return select(node_sleep)


def save_sleep(dialect: str, values: dict[str, Any]) -> Insert:
    """How a node sleeps, in place of what was known."""
    added = insert_into(dialect, node_sleep).values(values)
    saved: Insert = added.on_conflict_do_update(index_elements=["node"], set_=values)
    return saved


def take_job(number: Rows, node: str) -> ReturningUpdate[Any]:
    """The waiting job of that number, if there is one, now runs on a node."""
    mine = jobs.c.number == number.correlate(None).scalar_subquery()
    moved = update(jobs).where(mine, jobs.c.state == JobState.AVAILABLE)
    return moved.values(state=JobState.RUNNING, attempt=jobs.c.attempt + 1, node=node).returning(*JOB)


def crowd() -> Rows:
    """How many jobs wait, by what they wait for, each line counted up to `BEFORE_MAX`."""
    lines = _lines()
    waiting = (
        select(jobs.c.number)
        .where(jobs.c.state == JobState.AVAILABLE, jobs.c.model == lines.c.model, jobs.c.placement == lines.c.placement)
        .limit(BEFORE_MAX)
        .correlate(lines)
        .subquery()
    )
    count = select(func.count()).select_from(waiting).scalar_subquery()
    return select(lines.c.model, lines.c.placement, count.label("count")).where(lines.c.model.is_not(None))


def planned(after: int, limit: int) -> Rows:
    """Jobs that wait by a plan, in the order of asking."""
    return select(*JOB).where(_PLANNED, jobs.c.number > after).order_by(jobs.c.number).limit(limit)


def due(now: datetime, limit: int) -> Rows:
    """Jobs whose plan is to be looked at by now."""
    return select(*JOB).where(_PLANNED, jobs.c.due <= now).order_by(jobs.c.due).limit(limit)


def next_due() -> Rows:
    """When the next plan is to be looked at."""
    return select(func.min(jobs.c.due).label("due")).where(_PLANNED)


def booked(until: datetime) -> Rows:
    """How many jobs are deferred to a moment before `until`, by line and beginning."""
    return (
        select(jobs.c.placement, jobs.c.due, func.count().label("count"))
        .where(_PLANNED, jobs.c.state == JobState.DEFERRED, jobs.c.due < until)
        .group_by(jobs.c.placement, jobs.c.due)
    )


def outstanding_with(job_id: str) -> Rows:
    """How many prompts wait of who asked this one."""
    own, others = jobs.alias(), jobs.alias()
    asker = select(own.c.asker).where(own.c.id == job_id).scalar_subquery()
    return select(func.count()).where(others.c.asker == asker, others.c.state == JobState.AVAILABLE)


def past_runs_of(model: str, node: str | None = None) -> Rows:
    """What past runs of a model took, by node."""
    rows = select(past_runs).where(past_runs.c.model == model)
    return rows if node is None else rows.where(past_runs.c.node == node)


def save_past_runs(dialect: str, values: dict[str, Any]) -> Insert:
    """What past runs of a model on a node took, in place of what was known before."""
    return _instead(dialect, past_runs, values, "model", "node")


def plan_alone() -> Select[Any]:
    """Be the one server that plans, until the transaction ends; false where another one is."""
    return select(func.pg_try_advisory_xact_lock(PLANNING).label("alone"))


def move_job(job_id: str, start: JobState, **values: Any) -> ReturningUpdate[Any]:
    """Change a job that is in state `start`."""
    return update(jobs).where(jobs.c.id == job_id, jobs.c.state == start).values(**values).returning(*JOB)


def mark_cancel(job_id: str) -> Update:
    """Ask a running job to stop."""
    return update(jobs).where(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING).values(cancel=True)


def share(job_id: str, *, shared: bool) -> Update:
    """Let others read the texts, or not."""
    return update(jobs).where(jobs.c.id == job_id).values(shared=shared)


def erase_text(job_id: str, prompt: dict[str, Any], now: datetime) -> Update:
    """Forget what was asked and answered; an idempotency key is a text of the asker's too."""
    gone = {
        "prompt": prompt,
        "answer": None,
        "tool_calls": None,
        "chunks": None,
        "idempotency_key": None,
        "traceparent": None,
    }
    return update(jobs).where(jobs.c.id == job_id).values(gone | {"erased": now})


def shorten(job_id: str, prompt: dict[str, Any]) -> Update:
    """A prompt keeps this of what it said."""
    return update(jobs).where(jobs.c.id == job_id).values(prompt=prompt)


def outdated(finalized: datetime, limit: int) -> Rows:
    """Jobs that were over by then and still have texts."""
    return (
        select(jobs.c.id, jobs.c.prompt)
        .where(jobs.c.erased.is_(None), jobs.c.finalized < finalized)
        .order_by(jobs.c.finalized)
        .limit(limit)
    )


def job_of_receipt(receipt_id: str) -> Rows:
    """The job that a receipt is of."""
    return select(*JOB).join(receipts, receipts.c.job_id == jobs.c.id).where(receipts.c.id == receipt_id).limit(1)


def attempt(token: str) -> Rows:
    """One attempt."""
    return select(attempts).where(attempts.c.token == token)


def close_attempt(token: str, **values: Any) -> ReturningUpdate[Any]:
    """End an attempt that runs."""
    running = (attempts.c.token == token) & (attempts.c.state == AttemptState.RUNNING)
    return update(attempts).where(running).values(**values).returning(attempts.c.job_id, attempts.c.node)


def running_attempts() -> Rows:
    """All attempts that run."""
    return select(attempts).where(attempts.c.state == AttemptState.RUNNING)


def alive(number: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether the server of that number lives: it holds an advisory lock with its number on a connection of its own,
    which Postgres lets go the moment that connection ends."""
    here = select(_DATABASES.c.oid).where(_DATABASES.c.datname == func.current_database()).scalar_subquery()
    return exists().where(
        _LOCKS.c.locktype == "advisory",
        _LOCKS.c.objsubid == 2,  # a lock of two numbers
        _LOCKS.c.granted,
        _LOCKS.c.database == here,
        cast(_LOCKS.c.classid, BigInteger) == REPLICAS,
        cast(_LOCKS.c.objid, BigInteger) == number,
    )


def orphans() -> ColumnElement[bool]:
    """Running attempts that no living server looks after."""
    nobody = or_(attempts.c.owner.is_(None), ~alive(attempts.c.owner))
    return (attempts.c.state == AttemptState.RUNNING) & nobody


def adopt(replica: int, which: ColumnElement[bool]) -> Update:
    """Running attempts get another server."""
    return update(attempts).where(which).values(owner=replica).returning(*attempts.c)


def held(token: str) -> Rows:
    """A running attempt with the address of its server."""
    return (
        select(attempts, replicas.c.url)
        .join(replicas, replicas.c.id == attempts.c.owner, isouter=True)
        .where(attempts.c.token == token, attempts.c.state == AttemptState.RUNNING)
    )


def token_of(job_id: str) -> Rows:
    """What runs of a job."""
    return select(attempts.c.token).where(attempts.c.job_id == job_id, attempts.c.state == AttemptState.RUNNING)


def working(replica: int | None) -> Rows:
    """Which nodes work for other servers, each since when."""
    others = attempts.c.owner.is_distinct_from(replica)
    return select(attempts.c.node, attempts.c.leased).where(attempts.c.state == AttemptState.RUNNING, others)


def running_on(node: str) -> Rows:
    """What runs on a node."""
    return select(attempts.c.token).where(attempts.c.node == node, attempts.c.state == AttemptState.RUNNING)


def join(replica: int, url: str, now: datetime) -> Insert:
    """A server joins those that share this database."""
    return replicas.insert().values(id=replica, url=url, joined=now)


def forget_dead_nodes() -> Update:
    """Nodes on the line of servers that are gone are on nobody's."""
    gone = nodes.c.replica.is_not(None) & ~alive(nodes.c.replica)
    return update(nodes).where(gone).values(replica=None)


def forget_dead_replicas(own: int) -> Delete:
    """Servers that are gone and look after nothing."""
    busy = select(attempts.c.owner).where(attempts.c.state == AttemptState.RUNNING, attempts.c.owner.is_not(None))
    return delete(replicas).where(~alive(replicas.c.id), replicas.c.id != own, replicas.c.id.not_in(busy))


def attempt_counts(job_id: str) -> Rows:
    """How many attempts at a job ended how."""
    return (
        select(attempts.c.state, func.count().label("count"))
        .where(attempts.c.job_id == job_id)
        .group_by(attempts.c.state)
    )


def earlier_evidence(job_id: str, number: int) -> Rows:
    """The attempts at a job before `number`, with what evidence they left."""
    return (
        select(attempts.c.number, traces.c.blob)
        .outerjoin(traces, traces.c.token == attempts.c.token)
        .where(attempts.c.job_id == job_id, attempts.c.number < number)
        .order_by(attempts.c.number)
    )


def recent_done(count: int) -> Rows:
    """Model, begin and end of the newest completed attempts at people's prompts."""
    return (
        select(jobs.c.model, attempts.c.leased, attempts.c.finished)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.state == AttemptState.DONE, ASKED)
        .order_by(attempts.c.finished.desc())
        .limit(count)
    )


def replay(job_id: str) -> Rows:
    """The pieces of a completed answer and the attempt they came from."""
    return (
        select(attempts.c.number, jobs.c.chunks, jobs.c.answer_seq)
        .join(attempts, attempts.c.job_id == jobs.c.id)
        .where(jobs.c.id == job_id, attempts.c.state == AttemptState.DONE)
    )


def receipt(receipt_id: str, revision: int | None = None) -> Rows:
    """A receipt as it was made: its newest revision, or the one named."""
    rows = select(receipts).where(receipts.c.id == receipt_id).order_by(receipts.c.revision.desc()).limit(1)
    return rows if revision is None else rows.where(receipts.c.revision == revision)


def kept_receipt(receipt_id: str) -> Rows:
    """The newest revision with the evidence it was made of."""
    return (
        select(receipts, traces.c.blob, attempts.c.number)
        .join(traces, traces.c.token == receipts.c.trace_token)
        .join(attempts, attempts.c.token == traces.c.token)
        .where(receipts.c.id == receipt_id)
        .order_by(receipts.c.revision.desc())
        .limit(1)
    )


def receipt_page(since: datetime | None, limit: int, after: int, owner: str | None = None) -> Rows:
    """Receipts in the order of asking, or those finished from `since` on in the order of finishing; after the one of
    number `after`, one more than `limit`."""
    rows = select(jobs.c.number, jobs.c.receipt_id).where(jobs.c.receipt_id.is_not(None)).limit(limit + 1)
    rows = rows if owner is None else rows.where(jobs.c.owner == owner)
    if since is None:
        return rows.where(jobs.c.number > after).order_by(jobs.c.number)
    rows = rows.where(jobs.c.finalized >= since).order_by(jobs.c.finalized, jobs.c.number)
    if after:
        last = jobs.alias()
        finished = select(last.c.finalized).where(last.c.number == after).scalar_subquery()
        later = tuple_(jobs.c.finalized, jobs.c.number) > tuple_(finished, after)
        rows = rows.where(jobs.c.finalized >= finished, later)
    return rows


def trace_of_receipt(receipt_id: str) -> Rows:
    """The evidence behind a receipt."""
    return (
        select(traces.c.blob)
        .join(receipts, receipts.c.trace_token == traces.c.token)
        .where(receipts.c.id == receipt_id)
        .limit(1)
    )


def all_nodes() -> Rows:
    """Every node that ever joined."""
    return select(nodes).order_by(nodes.c.name)


def some_nodes(names: Collection[str]) -> Rows:
    """The nodes of these names."""
    return all_nodes().where(nodes.c.name.in_(names))


def add_job(dialect: str, values: dict[str, Any]) -> ReturningInsert[Any]:
    """A new job, unless one was asked with the same idempotency key."""
    added = insert_into(dialect, jobs).values(values).on_conflict_do_nothing(index_elements=["idempotency_key"])
    new: ReturningInsert[Any] = added.returning(*JOB)
    return new


def drain(node: str, at: datetime | None, why: str | None) -> Update:
    """A node takes no more prompts, or takes them again."""
    return update(nodes).where(nodes.c.name == node).values(drained=at, drained_why=why)


def save_node(dialect: str, values: dict[str, Any], replica: int | None) -> Insert:
    """A node as it last described itself, new or again; not over another process of that name on another's line."""
    free = None
    if replica is not None:
        same = nodes.c.instance == values["instance"]
        free = or_(nodes.c.replica.is_(None), nodes.c.replica == replica, same, ~alive(nodes.c.replica))
    saved: Insert = (
        insert_into(dialect, nodes)
        .values(values)
        .on_conflict_do_update(index_elements=["name"], set_=values, where=free)
    )
    return saved


def add_revision(dialect: str, values: dict[str, Any]) -> Insert:
    """A further revision of a receipt, unless somebody else has just made it."""
    added: Insert = insert_into(dialect, receipts).values(values).on_conflict_do_nothing()
    return added


def save_grid_value(dialect: str, values: dict[str, Any]) -> Insert:
    """What a source says of a slot, in place of what it said before."""
    return _instead(dialect, grid_values, values, "zone", "source", "start")


def grid_values_of(zone: str | None, start: datetime, until: datetime) -> Rows:
    """What is known of a zone, or of all, between two moments."""
    rows = select(grid_values).where(grid_values.c.start < until, grid_values.c.until > start)
    return rows if zone is None else rows.where(grid_values.c.zone == zone)


def due_rechecks(now: datetime) -> Rows:
    """Receipts to look at again by now."""
    return select(rechecks).where(rechecks.c.due <= now).order_by(rechecks.c.due)


def next_recheck() -> Rows:
    """When the next receipt is to be looked at."""
    return select(func.min(rechecks.c.due).label("due"))


def move_recheck(receipt_id: str, due: datetime) -> Update:
    """Look at a receipt later."""
    return update(rechecks).where(rechecks.c.receipt_id == receipt_id).values(due=due)


def drop_recheck(receipt_id: str) -> Delete:
    """Look at a receipt no more."""
    return delete(rechecks).where(rechecks.c.receipt_id == receipt_id)


def _instead(dialect: str, table: Table, values: dict[str, Any], *key: str) -> Insert:
    """A row, in place of what was there by the same key."""
    added = insert_into(dialect, table).values(values)
    new: Insert = added.on_conflict_do_update(
        index_elements=list(key), set_={name: added.excluded[name] for name in values}
    )
    return new


def insert_into(dialect: str, table: Table) -> Any:
    """Each dialect has an `ON CONFLICT` of its own, with the same words."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def baseline_in_force(node: str) -> Rows:
    """The newest baseline of a node."""
    return select(baselines).where(baselines.c.node == node).order_by(baselines.c.number.desc()).limit(1)


def control_runs_of(node: str, baseline: int | None) -> Rows:
    """The newest control runs of a node since its baseline began, newest first."""
    rows = select(control_runs).where(control_runs.c.node == node).order_by(control_runs.c.at.desc()).limit(RUNS_KEPT)
    return rows if baseline is None else rows.where(control_runs.c.baseline == baseline)


def control_asked(node: str) -> Rows:
    """When the control prompt of a node was last asked, and its number."""
    return (
        select(jobs.c.created, jobs.c.number)
        .where(jobs.c.purpose == "control", jobs.c.placement == NODE_PREFIX + node)
        .order_by(jobs.c.number.desc())
        .limit(1)
    )


def prompts_since(node: str, number: int) -> Rows:
    """How many prompts of people a node has answered since this one."""
    return select(func.count().label("count")).where(
        jobs.c.node == node, jobs.c.number > number, jobs.c.state == JobState.COMPLETED, ASKED
    )


def fix_baseline(number: int, **values: Any) -> Update:
    """What a baseline has learnt; one that is fixed stays as it is."""
    return update(baselines).where(baselines.c.number == number, baselines.c.mean_j.is_(None)).values(**values)


def newest_idle(node: str) -> Rows:
    """The newest stretch of a node between jobs."""
    return select(node_idle).where(node_idle.c.node == node).order_by(node_idle.c.until.desc()).limit(1)


def save_idle(dialect: str, values: dict[str, Any]) -> Insert:
    """A stretch of a node between jobs, in place of its shorter self."""
    return _instead(dialect, node_idle, values, "node", "start")


def newest_server_time(instance: str) -> Rows:
    """The newest processor time of one run of the server program."""
    mine = server_time.c.instance == instance
    return select(server_time).where(mine).order_by(server_time.c.until.desc()).limit(1)


def save_server_time(dialect: str, values: dict[str, Any]) -> Insert:
    """Processor time of the server, in place of its shorter self."""
    return _instead(dialect, server_time, values, "instance", "start")


def idle_within(start: datetime, until: datetime, node: str | None = None) -> Rows:
    """What nodes drew between jobs, or one of them, as far as it lies within a period."""
    rows = select(node_idle).where(node_idle.c.start < until, node_idle.c.until > start)
    if node is not None:
        rows = rows.where(node_idle.c.node == node)
    return rows.order_by(node_idle.c.node, node_idle.c.start)


def server_time_within(start: datetime, until: datetime) -> Rows:
    """What servers used, as far as it lies within a period."""
    rows = select(server_time).where(server_time.c.start < until, server_time.c.until > start)
    return rows.order_by(server_time.c.instance, server_time.c.start)


def finished_within(start: datetime, until: datetime, after: int, limit: int) -> Rows:
    """Jobs that came to their end in a period, in the order of asking, each with the newest revision of its receipt."""
    newest = select(func.max(receipts.c.revision)).where(receipts.c.id == jobs.c.receipt_id).scalar_subquery()
    body = receipts.alias()
    return (
        select(
            jobs.c.number,
            jobs.c.id,
            jobs.c.purpose,
            jobs.c.model,
            jobs.c.state,
            jobs.c.attempt.label("tries"),
            body.c.body,
        )
        .select_from(jobs)
        .outerjoin(body, (body.c.id == jobs.c.receipt_id) & (body.c.revision == newest))
        .where(jobs.c.finalized >= start, jobs.c.finalized < until, jobs.c.number > after)
        .order_by(jobs.c.number)
        .limit(limit)
    )


def evidence_of(job_id: str) -> Rows:
    """All attempts at a job, with what evidence they left."""
    return (
        select(attempts.c.number, attempts.c.node, attempts.c.state, traces.c.blob)
        .outerjoin(traces, traces.c.token == attempts.c.token)
        .where(attempts.c.job_id == job_id)
        .order_by(attempts.c.number)
    )


def under_way(start: datetime, until: datetime) -> Rows:
    """Attempts in a period at jobs that come to their end after it."""
    over = or_(jobs.c.finalized.is_(None), jobs.c.finalized >= until)
    inside = or_(attempts.c.finished.is_(None), attempts.c.finished > start)
    return (
        select(attempts.c.node, attempts.c.leased, attempts.c.finished)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.leased < until, inside, over)
    )


def first_leases() -> Rows:
    """When each node took its first job."""
    return select(attempts.c.node, func.min(attempts.c.leased).label("at")).group_by(attempts.c.node)


def first_idle() -> Rows:
    """When each node first told of waiting."""
    return select(node_idle.c.node, func.min(node_idle.c.start).label("at")).group_by(node_idle.c.node)


def add_secret(dialect: str, name: str, value: str) -> Insert:
    """A secret, unless there is one of that name."""
    added: Insert = insert_into(dialect, secrets).values(name=name, value=value).on_conflict_do_nothing()
    return added


def secret(name: str) -> Rows:
    """A secret by its name."""
    return select(secrets.c.value).where(secrets.c.name == name)


def token(token_id: str) -> Rows:
    """One token."""
    return select(tokens).where(tokens.c.id == token_id)


def all_tokens() -> Rows:
    """Every token, oldest first."""
    return select(tokens).order_by(tokens.c.created, tokens.c.id)


def revoke(token_id: str, now: datetime) -> Update:
    """A token that is not revoked yet."""
    return update(tokens).where(tokens.c.id == token_id, tokens.c.revoked.is_(None)).values(revoked=now)


def use(token_id: str, now: datetime) -> Update:
    """A token was used."""
    earlier = tokens.c.used.is_(None) | (tokens.c.used < now)
    return update(tokens).where(tokens.c.id == token_id, earlier).values(used=now)


def acts(limit: int, before: int | None) -> Rows:
    """Lines of the audit log, newest first; one more than `limit`."""
    rows = select(audit).order_by(audit.c.number.desc()).limit(limit + 1)
    return rows if before is None else rows.where(audit.c.number <= before)
