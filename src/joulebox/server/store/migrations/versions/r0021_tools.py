"""Which functions an answer called, and which nodes take such prompts."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("tool_calls", sa.JSON(none_as_null=True)))
    op.add_column("nodes", sa.Column("tools", sa.Boolean, nullable=False, server_default=sa.false()))
