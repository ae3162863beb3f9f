"""Alembic's entry: runs the revisions on the connection that `common.database.migrate` opened."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

import client.access.tables
import client.answers.tables
import client.review.tables  # noqa: F401 - the tables that all of these declare are compared
from client.cases.tables import Base

# Any fixed number of our own: two processes that start together must migrate one after the other.
MIGRATION_LOCK = 0x57415244


def run() -> None:
    """Upgrade inside the caller's transaction."""
    connection: Connection = context.config.attributes["connection"]
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite cannot alter a table in place
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
