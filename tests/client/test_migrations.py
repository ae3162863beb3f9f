"""The revisions make exactly the tables of client/tables.py, on both kinds of database."""

from __future__ import annotations

import multiprocessing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect, text
from sqlalchemy.exc import IntegrityError

from client.cases.store import MIGRATIONS
from client.cases.tables import Base
from common.database import migrate, open_database
from common.errors import StoreError


def test_revisions_and_tables_agree(database_url: str) -> None:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_check_constraints_exist(database_url: str) -> None:
    """Alembic does not compare these."""
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    found = inspect(engine)
    for table in Base.metadata.sorted_tables:
        declared = {c.name for c in table.constraints if isinstance(c, CheckConstraint)}
        assert {c["name"] for c in found.get_check_constraints(table.name)} == declared
    engine.dispose()


def test_a_confirmed_case_needs_a_label(database_url: str) -> None:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO patients VALUES ('p', 'train', '2026-01-01 00:00:00', NULL)")
        )
    statement = text(
        "INSERT INTO cases (id, task, patient, digest, pixels, likeness, status, source,"
        " created_at)"
        " VALUES ('c', 't', 'p', 'd', 'x', 'l', 'confirmed', 's', '2026-01-01 00:00:00')"
    )
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS)
    assert "privacy_ledger" in inspect(engine).get_table_names()
    engine.dispose()


def test_a_database_from_the_future_is_refused(database_url: str) -> None:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer version"):
        migrate(engine, MIGRATIONS)
    engine.dispose()


def _migrate_in_child(url: str, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    try:
        engine = open_database(url)
        migrate(engine, MIGRATIONS)
        engine.dispose()
        results.put("done")  # type: ignore[attr-defined]
    except Exception as error:
        results.put(repr(error))  # type: ignore[attr-defined]


def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    children = [
        context.Process(target=_migrate_in_child, args=(database_url, barrier, results))
        for _ in range(3)
    ]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == ["done"] * 3
    for child in children:
        child.join(timeout=30)
