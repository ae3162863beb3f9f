"""Fixtures for all tests."""

from __future__ import annotations

from tests.databases import (  # noqa: F401 - pytest finds fixtures by name
    database_url,
    postgres_cluster,
    postgres_database_url,
    sqlite_database_url,
)
