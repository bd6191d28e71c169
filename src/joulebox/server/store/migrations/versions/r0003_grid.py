"""Values of the grid by time slot; receipts with revisions; when to look for better values."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "grid_values",
        sa.Column("zone", sa.String(32), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("start", TIME, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("g_per_kwh", sa.Float, nullable=False),
        sa.Column("quality", sa.String(16), nullable=False),
        sa.Column("note", sa.String(64), nullable=False),
        sa.Column("fetched", TIME, nullable=False),
        sa.PrimaryKeyConstraint("zone", "source", "start", name="pk_grid_values"),
    )
    op.create_table(
        "rechecks",
        sa.Column("receipt_id", sa.String(32), nullable=False),
        sa.Column("zone", sa.String(32), nullable=False),
        sa.Column("start", TIME, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("due", TIME, nullable=False),
        sa.PrimaryKeyConstraint("receipt_id", name="pk_rechecks"),
    )
    op.create_index("ix_rechecks_due", "rechecks", ["due"])
    _receipts_are_known_by("id", "revision")


def _receipts_are_known_by(*columns: str) -> None:
    with op.batch_alter_table("receipts") as batch:
        batch.drop_constraint("pk_receipts", type_="primary")
        batch.create_primary_key("pk_receipts", list(columns))
