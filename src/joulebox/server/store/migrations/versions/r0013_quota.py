"""What a prompt costs its asker, and how many joules a token may use in a day."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ENDED = sa.text("finalized IS NOT NULL AND asker IS NOT NULL")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("charged_j", sa.Float()))
    op.add_column("tokens", sa.Column("joules_per_day", sa.Float()))
    columns = ["asker", "finalized"]
    op.create_index("ix_jobs_ended", "jobs", columns, sqlite_where=ENDED, postgresql_where=ENDED)
