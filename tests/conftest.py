"""Fixtures for all tests. Hypothesis has no deadline: a busy machine is no fault of the code."""

from __future__ import annotations

from hypothesis import settings

from tests.databases import (  # noqa: F401 - pytest finds fixtures by name
    database_url,
    postgres_cluster,
    postgres_database_url,
    sqlite_database_url,
)

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
