"""An empty registry in a fresh database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from common.database import migrate, open_database
from server.registry.registry import MIGRATIONS, Registry


@contextmanager
def opened(url: str) -> Iterator[Registry]:
    """Make its tables, and close it at the end."""
    engine = open_database(url)
    migrate(engine, MIGRATIONS)
    registry = Registry(engine)
    yield registry
    registry.close()
