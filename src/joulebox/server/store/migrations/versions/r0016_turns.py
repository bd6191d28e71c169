"""Which prompt another one follows, and comparisons of models with what people thought of them."""

import sqlalchemy as sa
from alembic import op

from joulebox.server.store.tables import UtcTime

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "turns",
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("follows", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_turns"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_turns_job_id_jobs"),
    )
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("created", UtcTime(), nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("jobs", sa.JSON(), nullable=False),
        sa.Column("choice", sa.String(8)),
        sa.Column("chosen", UtcTime()),
        sa.Column("figures", sa.JSON(none_as_null=True)),
        sa.Column("worth", sa.String(8)),
        sa.PrimaryKeyConstraint("id", name="pk_comparisons"),
        sa.CheckConstraint("(choice IS NULL) = (chosen IS NULL)", name="chosen"),
    )
    op.create_index("ix_comparisons_chosen", "comparisons", ["chosen"])
