"""What people told the operator."""

import sqlalchemy as sa
from alembic import op

from joulebox.server.store.tables import UtcTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("contact", sa.String(200)),
        sa.PrimaryKeyConstraint("number", name="pk_feedback"),
    )
