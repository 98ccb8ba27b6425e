"""Alembic's entry point (https://alembic.sqlalchemy.org/en/latest/cookbook.html, "Sharing a Connection").

The transaction around it is the caller's, so that a database is at one version or the next and never between two.
"""

from __future__ import annotations

from alembic import context

# Batches: SQLite changes a column by copying its table.
context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
