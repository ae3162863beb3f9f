"""Alembic revisions of the site database: `env.py` is run by `common.database.migrate`."""
