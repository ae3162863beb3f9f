"""Reading and writing the site database, with its failures as `StoreError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from common.database import READS_ONLY
from common.errors import StoreError

CASES_LOCK = 0x43415345
"""Of those that write cases."""


def join_writers(connection: Connection, lock: int) -> None:
    """Let no other writer with this number in until a transaction that writes has ended."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})


class Transactions:
    """Transactions on one database.

    Parameters
    ----------
    engine : Engine
        As `common.database.open_database` makes them.
    lock : int
        Writers with equal numbers go one at a time (PostgreSQL advisory lock; on SQLite all
        writing transactions of a database begin immediate, hence go one at a time anyway).
    """

    def __init__(self, engine: Engine, lock: int) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**{READS_ONLY: True})
        self._lock = lock

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session for queries; nothing is committed."""
        try:
            with Session(self._reader, expire_on_commit=False) as session:
                yield session
        except SQLAlchemyError as error:
            raise _store_error(error) from error

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Run one transaction that no other writer shares; commit at the end, or nothing."""
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                join_writers(session.connection(), self._lock)
                yield session
        except SQLAlchemyError as error:
            raise _store_error(error) from error


def _store_error(error: SQLAlchemyError) -> StoreError:
    # The driver's own text may quote values; its class says enough.
    return StoreError(
        f"The site database failed ({type(error).__name__}).",
        meaning="Nothing of this request was kept.",
        action="Check that the database runs, that the disk has room and that this user may write.",
    )
