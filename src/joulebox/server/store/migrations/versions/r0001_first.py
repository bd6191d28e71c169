"""Nodes, jobs, attempts, traces, receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JOB_STATES = "state IN ('available', 'cancelled', 'completed', 'deferred', 'discarded', 'running')"
JOB_FINAL = "(state IN ('cancelled', 'completed', 'discarded')) = (finalized IS NOT NULL)"
ATTEMPT_STATES = "state IN ('cancelled', 'done', 'failed', 'lost', 'running')"
ATTEMPT_FINAL = "(state != 'running') = (finished IS NOT NULL)"
AVAILABLE = sa.text("state = 'available'")
RUNNING = sa.text("state = 'running'")
DONE = sa.text("state = 'done'")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _nodes()
    _jobs()
    _attempts()
    _evidence()


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(64), nullable=False),
        sa.Column("zone", sa.String(32)),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("engine", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("channels", sa.JSON, nullable=False),
        sa.Column("missing", sa.JSON, nullable=False),
        sa.Column("loaded", sa.String(200)),
        sa.Column("temperature_c", sa.Float),
        sa.Column("seen", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_nodes"),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("placement", sa.String(100), nullable=False),
        sa.Column("prompt", sa.JSON, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("available", TIME, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("node", sa.String(64)),
        sa.Column("cancel", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("finalized", TIME),
        sa.Column("answer", sa.Text),
        sa.Column("finish_reason", sa.String(32)),
        sa.Column("chunks", sa.JSON),
        sa.Column("answer_seq", sa.Integer),
        sa.Column("receipt_id", sa.String(32)),
        sa.Column("error_code", sa.String(40)),
        sa.Column("error_detail", sa.Text),
        sa.Column("idempotency_key", sa.String(200)),
        sa.PrimaryKeyConstraint("number", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sa.UniqueConstraint("idempotency_key", name="uq_jobs_idempotency_key"),
        sa.CheckConstraint(JOB_STATES, name=op.f("ck_jobs_state")),
        sa.CheckConstraint(JOB_FINAL, name=op.f("ck_jobs_finalized")),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_jobs_attempt")),
    )
    op.create_index("ix_jobs_waiting", "jobs", ["number"], sqlite_where=AVAILABLE, postgresql_where=AVAILABLE)


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("leased", TIME, nullable=False),
        sa.Column("finished", TIME),
        sa.Column("problem", sa.JSON),
        sa.PrimaryKeyConstraint("token", name="pk_attempts"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_attempts_job_id_jobs"),
        sa.UniqueConstraint("job_id", "number", name="uq_attempts_job_id"),
        sa.CheckConstraint(ATTEMPT_STATES, name=op.f("ck_attempts_state")),
        sa.CheckConstraint(ATTEMPT_FINAL, name=op.f("ck_attempts_finished")),
    )
    _at_most_one("uq_attempts_running_job", "job_id", RUNNING)
    _at_most_one("uq_attempts_running_node", "node", RUNNING)
    _at_most_one("uq_attempts_done_job", "job_id", DONE)
    op.create_index("ix_attempts_finished", "attempts", ["finished"])


def _at_most_one(name: str, column: str, where: sa.TextClause) -> None:
    op.create_index(name, "attempts", [column], unique=True, sqlite_where=where, postgresql_where=where)


def _evidence() -> None:
    op.create_table(
        "traces",
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("blob", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_traces"),
        sa.ForeignKeyConstraint(["token"], ["attempts.token"], name="fk_traces_token_attempts"),
    )
    op.create_table(
        "receipts",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("trace_token", sa.String(64), nullable=False),
        sa.Column("factors", sa.JSON, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_receipts_job_id_jobs"),
        sa.ForeignKeyConstraint(["trace_token"], ["traces.token"], name="fk_receipts_trace_token_traces"),
        sa.UniqueConstraint("job_id", "revision", name="uq_receipts_job_id"),
    )
