"""The place in the line (class, turn, asker); waiting jobs by what they wait for, so that a claim reads heads only."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

AVAILABLE = sa.text("state = 'available'")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("rank", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("turn", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("asker", sa.String(64)))
    op.execute("UPDATE jobs SET rank = 9 WHERE purpose = 'control'")
    op.drop_index("ix_jobs_waiting", "jobs")
    _index("ix_jobs_waiting", ["model", "placement", "rank", "turn", "number"])
    _index("ix_jobs_asker", ["asker"])


def _index(name: str, columns: list[str]) -> None:
    op.create_index(name, "jobs", columns, sqlite_where=AVAILABLE, postgresql_where=AVAILABLE)
