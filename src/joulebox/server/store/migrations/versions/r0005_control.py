"""Control prompts: why a job is there, references and runs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("jobs", sa.Column("purpose", sa.String(16), nullable=False, server_default="prompt"))
    op.create_table(
        "baselines",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("subject", sa.JSON),
        sa.Column("mean_j", sa.Float),
        sa.Column("spread_j", sa.Float),
        sa.PrimaryKeyConstraint("number", name="pk_baselines"),
    )
    op.create_index("ix_baselines_node", "baselines", ["node"])
    op.create_table(
        "control_runs",
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("baseline", sa.Integer),
        sa.Column("receipt_id", sa.String(32)),
        sa.Column("at", TIME, nullable=False),
        sa.Column("answer_j", sa.Float),
        sa.Column("u_j", sa.Float),
        sa.Column("temperature_c", sa.Float),
        sa.Column("note", sa.Text),
        sa.Column("high", sa.Float),
        sa.Column("low", sa.Float),
        sa.PrimaryKeyConstraint("job_id", name="pk_control_runs"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_control_runs_job_id_jobs"),
        sa.ForeignKeyConstraint(["baseline"], ["baselines.number"], name="fk_control_runs_baseline_baselines"),
    )
    op.create_index("ix_control_runs_node", "control_runs", ["node", "at"])
