"""Alembic revisions of the coordinator's registry."""
