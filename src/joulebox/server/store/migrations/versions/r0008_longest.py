"""What has waited longest is found at once; nodes say which of their models they cannot hold."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

AVAILABLE = sa.text("state = 'available'")


def upgrade() -> None:
    columns = ["model", "placement", "number"]
    op.create_index("ix_jobs_longest", "jobs", columns, sqlite_where=AVAILABLE, postgresql_where=AVAILABLE)
    op.add_column("nodes", sa.Column("unfit", sa.JSON, nullable=False, server_default="[]"))
