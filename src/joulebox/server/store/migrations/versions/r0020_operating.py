"""When a token was last used, and which nodes an operator wants to see no more."""

import sqlalchemy as sa
from alembic import op

from joulebox.server.store.tables import UtcTime

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("used", UtcTime()))
    op.add_column("nodes", sa.Column("forgotten", UtcTime()))
