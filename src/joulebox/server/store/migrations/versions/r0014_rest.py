"""What nodes do while nobody asks, and what they drew with a model in memory and without."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("policy", sa.JSON()))
    op.add_column("nodes", sa.Column("unloaded_at", sa.DateTime(timezone=True)))
    op.add_column("node_idle", sa.Column("loaded", sa.Boolean()))
