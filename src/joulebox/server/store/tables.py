"""The tables. The database guards the states: which exist, what goes with them, one running attempt a job and node."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

from joulebox.model import FINAL_STATES, AttemptState, JobState

NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMES)


class UtcTime(TypeDecorator[datetime]):
    """A calendar time, aware and in UTC on both sides; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _one_of(column: str, states: list[str]) -> str:
    return f"{column} IN ({', '.join(repr(state) for state in sorted(states))})"


JOB_STATES: Final = _one_of("state", [state.value for state in JobState])
JOB_FINAL: Final = f"({_one_of('state', [state.value for state in FINAL_STATES])}) = (finalized IS NOT NULL)"
ATTEMPT_STATES: Final = _one_of("state", [state.value for state in AttemptState])
ATTEMPT_FINAL: Final = "(state != 'running') = (finished IS NOT NULL)"
# The migrations say the same for Postgres; naming that dialect here would import it at every start.
AVAILABLE: Final = text("state = 'available'")
COMPLETED: Final = text("state = 'completed'")
CONTROL: Final = text("purpose = 'control'")
RUNNING: Final = text("state = 'running'")
DONE: Final = text("state = 'done'")
PLANNED: Final = text("due IS NOT NULL AND state IN ('available', 'deferred')")
KNOWN_ASKER: Final = text("asker IS NOT NULL")
UNFINISHED: Final = text("finalized IS NULL AND asker IS NOT NULL")
ENDED: Final = text("finalized IS NOT NULL AND asker IS NOT NULL")
OWNED: Final = text("owner IS NOT NULL")
TEXTS: Final = text("erased IS NULL")

nodes = Table(
    "nodes",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("instance", String(64), nullable=False),
    Column("zone", String(32)),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("engine", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("channels", JSON, nullable=False),
    Column("missing", JSON, nullable=False),
    Column("unfit", JSON, nullable=False, server_default="[]"),
    Column("tools", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("loaded", String(200)),
    Column("temperature_c", Float),
    Column("parts", JSON(none_as_null=True)),
    Column("policy", JSON(none_as_null=True)),
    Column("unloaded_at", UtcTime),
    Column("seen", UtcTime, nullable=False),
    # Which server has it on the line, where several share the database.
    Column("replica", BigInteger),
    # Since when and why it is to take no more prompts.
    Column("drained", UtcTime),
    Column("drained_why", String(200)),
    # Since when an operator wants to see it no more, unless it comes back.
    Column("forgotten", UtcTime),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("url", String(200), nullable=False),
    Column("joined", UtcTime, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    # The order of asking: the place in the queue and the cursor of lists. Never shown as an address.
    Column("number", Integer, primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("model", String(200), nullable=False),
    Column("placement", String(100), nullable=False),
    Column("prompt", JSON, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("available", UtcTime, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("node", String(64)),
    Column("cancel", Boolean(create_constraint=False), nullable=False),
    Column("finalized", UtcTime),
    Column("answer", Text),
    Column("tool_calls", JSON(none_as_null=True)),
    Column("finish_reason", String(32)),
    Column("chunks", JSON(none_as_null=True)),
    Column("answer_seq", Integer),
    Column("receipt_id", String(32)),
    Column("error_code", String(40)),
    Column("error_detail", Text),
    Column("idempotency_key", String(200), unique=True),
    # The place in the line: the class (lower is sooner), then how many prompts of the same asker waited before it.
    Column("rank", Integer, nullable=False, server_default="0"),
    Column("turn", Integer, nullable=False, server_default="0"),
    # Who asked, as far as fairness and quotas must know: a key's id or a hashed address; never shown.
    Column("asker", String(64)),
    Column("purpose", String(16), nullable=False, server_default="prompt"),
    # What was decided of where and when it runs, and when to decide again.
    Column("plan", JSON(none_as_null=True)),
    Column("due", UtcTime),
    # Whose texts these are (a token's id or a hash of the secret that a browser keeps), whether everybody with the link
    # may read them, and since when they are gone.
    Column("owner", String(64)),
    Column("shared", Boolean(create_constraint=False), nullable=False, server_default=false()),
    Column("erased", UtcTime),
    # What it costs its asker, where that is known.
    Column("charged_j", Float),
    # The trace that it belongs to, where the request named one (W3C traceparent).
    Column("traceparent", String(55)),
    CheckConstraint(JOB_STATES, name="state"),
    CheckConstraint(JOB_FINAL, name="finalized"),
    CheckConstraint("attempt >= 0", name="attempt"),
    Index("ix_jobs_waiting", "model", "placement", "rank", "turn", "number", sqlite_where=AVAILABLE),
    Index("ix_jobs_longest", "model", "placement", "number", sqlite_where=AVAILABLE),
    Index("ix_jobs_finalized", "finalized"),
    Index("ix_jobs_node", "node", "number", sqlite_where=COMPLETED),
    Index("ix_jobs_control", "placement", "number", sqlite_where=CONTROL),
    Index("ix_jobs_asker", "asker", sqlite_where=AVAILABLE),
    Index("ix_jobs_due", "due", sqlite_where=PLANNED),
    Index("ix_jobs_planned", "number", sqlite_where=PLANNED),
    Index("ix_jobs_asked", "asker", "created", sqlite_where=KNOWN_ASKER),
    Index("ix_jobs_unfinished", "asker", sqlite_where=UNFINISHED),
    Index("ix_jobs_ended", "asker", "finalized", sqlite_where=ENDED),
    Index("ix_jobs_owner", "owner", "number", sqlite_where=OWNED),
    Index("ix_jobs_texts", "finalized", sqlite_where=TEXTS),
)

attempts = Table(
    "attempts",
    metadata,
    Column("token", String(64), primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("node", String(64), nullable=False),
    Column("instance", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("leased", UtcTime, nullable=False),
    Column("finished", UtcTime),
    Column("problem", JSON(none_as_null=True)),
    # Which server looks after it, where several share the database.
    Column("owner", BigInteger),
    CheckConstraint(ATTEMPT_STATES, name="state"),
    CheckConstraint(ATTEMPT_FINAL, name="finished"),
    UniqueConstraint("job_id", "number"),
    Index("uq_attempts_running_job", "job_id", unique=True, sqlite_where=RUNNING),
    Index("uq_attempts_running_node", "node", unique=True, sqlite_where=RUNNING),
    Index("uq_attempts_done_job", "job_id", unique=True, sqlite_where=DONE),
    Index("ix_attempts_finished", "finished"),
)

past_runs = Table(
    "past_runs",
    metadata,
    # The newest runs of a model on a node, oldest first: what the next one is expected to take.
    Column("model", String(200), primary_key=True),
    Column("node", String(64), primary_key=True),
    Column("digest", String(100), nullable=False),
    Column("runs", JSON, nullable=False),
)

traces = Table(
    "traces",
    metadata,
    Column("token", ForeignKey("attempts.token"), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("blob", LargeBinary, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    # A receipt keeps its id; what is newer is a further revision, and none is ever changed.
    Column("id", String(32), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("trace_token", ForeignKey("traces.token"), nullable=False),
    Column("factors", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created", UtcTime, nullable=False),
    UniqueConstraint("job_id", "revision"),
)

grid_values = Table(
    "grid_values",
    metadata,
    Column("zone", String(32), primary_key=True),
    Column("source", String(32), primary_key=True),
    Column("start", UtcTime, primary_key=True),
    Column("until", UtcTime, nullable=False),
    Column("g_per_kwh", Float, nullable=False),
    Column("quality", String(16), nullable=False),
    Column("note", String(64), nullable=False),
    Column("fetched", UtcTime, nullable=False),
)

rechecks = Table(
    "rechecks",
    metadata,
    Column("receipt_id", String(32), primary_key=True),
    Column("zone", String(32), nullable=False),
    Column("start", UtcTime, nullable=False),
    Column("until", UtcTime, nullable=False),
    Column("due", UtcTime, nullable=False),
    Index("ix_rechecks_due", "due"),
)
"""Receipts for whose minutes better grid data may still come, and when to look."""

baselines = Table(
    "baselines",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("node", String(64), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("why", Text, nullable=False),
    Column("subject", JSON(none_as_null=True)),
    Column("mean_j", Float),
    Column("spread_j", Float),
    Index("ix_baselines_node", "node"),
)

control_runs = Table(
    "control_runs",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("node", String(64), nullable=False),
    Column("baseline", ForeignKey("baselines.number")),
    Column("receipt_id", String(32)),
    Column("at", UtcTime, nullable=False),
    Column("answer_j", Float),
    Column("u_j", Float),
    Column("temperature_c", Float),
    Column("note", Text),
    Column("high", Float),
    Column("low", Float),
    Index("ix_control_runs_node", "node", "at"),
)

node_idle = Table(
    "node_idle",
    metadata,
    Column("node", String(64), primary_key=True),
    Column("start", UtcTime, primary_key=True),
    Column("until", UtcTime, nullable=False),
    Column("zone", String(32)),
    Column("cores", Integer, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("host", String(32)),
    Column("counted", JSON, nullable=False),
    Column("loaded", Boolean(create_constraint=False)),
    Index("ix_node_idle_until", "until"),
)

node_sleep = Table(
    "node_sleep",
    metadata,
    Column("node", String(64), primary_key=True),
    Column("sleep", JSON, nullable=False),
)

server_time = Table(
    "server_time",
    metadata,
    Column("instance", String(32), primary_key=True),
    Column("start", UtcTime, primary_key=True),
    Column("until", UtcTime, nullable=False),
    Column("host", String(32)),
    Column("cpu_s", Float, nullable=False),
    Index("ix_server_time_until", "until"),
)

turns = Table(
    "turns",
    metadata,
    # A prompt that goes on with a conversation, and the one before it.
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("follows", String(32), nullable=False),
)

comparisons = Table(
    "comparisons",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("created", UtcTime, nullable=False),
    Column("owner", String(64)),
    Column("node", String(64), nullable=False),
    # Its prompts in the order in which they are shown.
    Column("jobs", JSON, nullable=False),
    # What was thought better before anything but the answers was known: its place, or `tie` or `none`; then what
    # models and joules it was, and whether the larger energy was thought worth it.
    Column("choice", String(8)),
    Column("chosen", UtcTime),
    Column("figures", JSON(none_as_null=True)),
    Column("worth", String(8)),
    CheckConstraint("(choice IS NULL) = (chosen IS NULL)", name="chosen"),
    Index("ix_comparisons_chosen", "chosen"),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("title", Text, nullable=False),
    Column("created", String(40), nullable=False),
    Column("published", UtcTime, nullable=False),
    Column("notes", JSON, nullable=False),
)

campaign_cells = Table(
    "campaign_cells",
    metadata,
    Column("campaign", ForeignKey("campaigns.id"), primary_key=True),
    Column("node", String(64), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("digest", String(80), nullable=False),
    Column("category", String(64), primary_key=True),
    Column("asked", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    Column("judged", Integer, nullable=False),
    Column("right", Float, nullable=False),
    # Each figure with the ends of its interval, null where too few prompts tell it.
    Column("figures", JSON, nullable=False),
    Index("ix_campaign_cells_category", "category"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("message", Text, nullable=False),
    Column("contact", String(200)),
)
"""What people told the operator."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime),
    Column("revoked", UtcTime),
    Column("used", UtcTime),
    Column("outstanding_max", Integer),
    Column("prompts_per_day", Integer),
    Column("joules_per_day", Float),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("act", String(40), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("detail", Text, nullable=False),
)
"""What administrators did. Nothing of it is ever changed."""

tallies = Table(
    "tallies",
    metadata,
    # Totals since this table is there. Of labels their JSON, in the order of their names.
    Column("name", String(64), primary_key=True),
    Column("labels", Text, primary_key=True),
    Column("total", Float, nullable=False),
)
"""What is counted for ever, and never shrinks."""

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)
"""What the servers on this database know and nobody else."""
