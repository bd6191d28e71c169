"""What campaigns found: cells of models, categories and nodes."""

import sqlalchemy as sa
from alembic import op

from joulebox.server.store.tables import UtcTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("published", UtcTime(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_campaigns"),
    )
    op.create_table(
        "campaign_cells",
        sa.Column("campaign", sa.String(32), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("right", sa.Float(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("campaign", "node", "model", "category", name="pk_campaign_cells"),
        sa.ForeignKeyConstraint(["campaign"], ["campaigns.id"], name="fk_campaign_cells_campaign_campaigns"),
    )
    op.create_index("ix_campaign_cells_category", "campaign_cells", ["category"])
