"""What nodes drew between jobs, and the server's own processor time."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "node_idle",
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("start", TIME, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("zone", sa.String(32)),
        sa.Column("cores", sa.Integer, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("host", sa.String(32)),
        sa.Column("counted", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("node", "start", name="pk_node_idle"),
    )
    op.create_index("ix_node_idle_until", "node_idle", ["until"])
    op.create_table(
        "server_time",
        sa.Column("instance", sa.String(32), nullable=False),
        sa.Column("start", TIME, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("host", sa.String(32)),
        sa.Column("cpu_s", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("instance", "start", name="pk_server_time"),
    )
    op.create_index("ix_server_time_until", "server_time", ["until"])
