"""Tokens, the audit log, the servers' secret; whose texts a job's are, whether they are shared, when they went."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_jobs_asked": (["asker", "created"], sa.text("asker IS NOT NULL")),
    "ix_jobs_unfinished": (["asker"], sa.text("finalized IS NULL AND asker IS NOT NULL")),
    "ix_jobs_owner": (["owner", "number"], sa.text("owner IS NOT NULL")),
    "ix_jobs_texts": (["finalized"], sa.text("erased IS NULL")),
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("owner", sa.String(64)))
    op.add_column("jobs", sa.Column("shared", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("erased", sa.DateTime(timezone=True)))
    for name, (columns, where) in INDEXES.items():
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
    _tokens()
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("act", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit"),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secrets"),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True)),
        sa.Column("revoked", sa.DateTime(timezone=True)),
        sa.Column("outstanding_max", sa.Integer),
        sa.Column("prompts_per_day", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
