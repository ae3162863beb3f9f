"""Transactions on the registry's database, and what its failures mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine, Select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from common.errors import StoreError
from server.registry.tables import Base

Row = TypeVar("Row", bound=Base)


class Sessions:
    """Reading and writing transactions; rows stay readable after they end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that writes nothing."""
        with _as_store_error(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a transaction that is committed when the block ends well.

        Raises
        ------
        StoreError
            With code ``registry-conflict``, if a constraint of the schema forbids the write.
        """
        with (
            _as_store_error(),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def all(self, query: Select[Row]) -> Sequence[Row]:
        """Return all rows of a query."""
        with self.reading() as session:
            return session.scalars(query).all()


@contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise StoreError(
            "The registry holds something that contradicts this record.",
            meaning="Two programs write the same campaign, or it was recorded before.",
            code="registry-conflict",
        ) from error
    except SQLAlchemyError as error:
        raise StoreError(
            f"The registry cannot be used ({type(error).__name__}).",
            action="Check that the database runs, and that the disk has room.",
        ) from error
