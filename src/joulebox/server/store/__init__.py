"""What is kept: jobs, attempts, evidence, receipts, nodes. The only place that speaks SQL, to SQLite or Postgres."""

from joulebox.server.store.store import Store

__all__ = ["Store"]
