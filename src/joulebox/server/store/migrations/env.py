"""Alembic's entry: it runs on the connection that `database.py` hands in, inside that connection's transaction."""

from alembic import context

from joulebox.server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
