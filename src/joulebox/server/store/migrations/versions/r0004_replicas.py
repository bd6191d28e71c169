"""Several servers on one database: who they are, which attempts and nodes are whose."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("url", sa.String(200), nullable=False),
        sa.Column("joined", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
    )
    op.add_column("attempts", sa.Column("owner", sa.BigInteger))
    op.add_column("nodes", sa.Column("replica", sa.BigInteger))
