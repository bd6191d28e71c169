"""Nodes that are to take no more prompts: since when, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nodes", sa.Column("drained", sa.DateTime(timezone=True)))
    op.add_column("nodes", sa.Column("drained_why", sa.String(200)))
