"""Nodes that sleep: since when, whether they are woken, and how long their past wake-ups took."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "node_sleep",
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("sleep", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_node_sleep"),
    )
