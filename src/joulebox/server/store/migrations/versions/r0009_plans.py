"""What was decided of where and when a prompt runs; what past runs took, by node and model."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

PLANNED = sa.text("due IS NOT NULL AND state IN ('available', 'deferred')")
INDEXES = {"ix_jobs_due": "due", "ix_jobs_planned": "number"}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("plan", sa.JSON))
    op.add_column("jobs", sa.Column("due", sa.DateTime(timezone=True)))
    for name, column in INDEXES.items():
        op.create_index(name, "jobs", [column], sqlite_where=PLANNED, postgresql_where=PLANNED)
    op.create_table(
        "past_runs",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("node", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(100), nullable=False),
        sa.Column("runs", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("model", "node", name="pk_past_runs"),
    )
