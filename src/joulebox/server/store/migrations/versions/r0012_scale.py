"""Old prompts by when they ended, by node, and control prompts by node are found without reading the others."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CONTROL = sa.text("purpose = 'control'")
COMPLETED = sa.text("state = 'completed'")


def upgrade() -> None:
    op.create_index("ix_jobs_finalized", "jobs", ["finalized"])
    op.create_index("ix_jobs_node", "jobs", ["node", "number"], sqlite_where=COMPLETED, postgresql_where=COMPLETED)
    columns = ["placement", "number"]
    op.create_index("ix_jobs_control", "jobs", columns, sqlite_where=CONTROL, postgresql_where=CONTROL)
