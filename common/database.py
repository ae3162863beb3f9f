"""Opening a database, SQLite (WAL) or PostgreSQL by URL, and bringing its schema up to date."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from common.errors import ConfigurationError, StoreError

BUSY_TIMEOUT_MILLISECONDS = 30_000
READS_ONLY = "wardround_reads_only"
"""Execution option of an engine or connection whose transactions write nothing."""


def sqlite_url(path: Path) -> str:
    """Return the SQLAlchemy URL of a SQLite file."""
    return f"sqlite:///{path.resolve()}"


def open_database(url: str) -> Engine:
    """Open a database; a SQLite file's folder is made when it is absent.

    SQLite runs in WAL mode with ``synchronous=FULL``: a committed transaction survives a power
    cut, which the privacy ledger relies on (https://sqlite.org/wal.html, section 2).

    Raises
    ------
    ConfigurationError
        If the URL is neither SQLite nor PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise ConfigurationError(
            "The database URL cannot be read.",
            action="Write it as postgresql+psycopg://USER@HOST/NAME or sqlite:///PATH.",
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, hide_parameters=True
        )
    if backend != "sqlite":
        raise ConfigurationError(
            f"The database {backend!r} is not supported.",
            action="Use sqlite:///PATH or postgresql://USER@HOST/NAME.",
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        _create_private(Path(parsed.database))
    # hide_parameters: an error's text must not quote the row that it failed on.
    engine = create_engine(parsed, hide_parameters=True)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def migrate(engine: Engine, scripts: Path) -> None:
    """Bring the schema to the newest revision in the Alembic folder ``scripts``.

    Raises
    ------
    StoreError
        If the database cannot be reached, or is newer than this program.
    """
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    try:
        with engine.connect() as connection, _foreign_keys_off(connection), connection.begin():
            before = MigrationContext.configure(connection).get_current_revision()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            after = MigrationContext.configure(connection).get_current_revision()
            if before != after:
                _check_foreign_keys(connection)
    except SQLAlchemyError as error:
        raise StoreError(
            f"The database cannot be used ({type(error).__name__}).",
            action="Check that it runs, that the disk has room and that the user may write.",
        ) from error
    except CommandError as error:
        raise StoreError(
            "The database was written by a newer version of Wardround.",
            action="Upgrade this program, or restore the matching backup.",
        ) from error


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """Let SQLite make a table anew that others refer to; to be entered before the transaction.

    It can change a constraint in no other way (https://sqlite.org/lang_altertable.html, 7).
    """
    driver = connection.connection.driver_connection
    if connection.dialect.name != "sqlite" or driver is None:
        yield
        return
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _check_foreign_keys(connection: Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise StoreError(
            "After the upgrade, rows of the database would refer to rows that are not there.",
            meaning="It was not upgraded.",
            action="Restore a backup, and report this.",
        )


def _create_private(path: Path) -> None:
    """Make the file with mode 0600; SQLite gives its -wal and -shm files the same.

    A database that is there is not touched: closing any descriptor of it would drop all locks
    that this process holds on it through SQLite (https://sqlite.org/howtocorrupt.html, 2.2), and
    another process would then delete the write-ahead log that we have open.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        if not path.is_file():
            raise StoreError(
                f"The database {path} cannot be opened: it is no file.",
                action="Move what is there out of the way.",
            ) from error
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be opened ({error.strerror}).",
            action="Check that the disk has room and that this user may write there.",
        ) from error


def _configure_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # isolation_level None hands BEGIN to SQLAlchemy, so that _begin_immediate really starts it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MILLISECONDS}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that turns from read to write fails at once when another has
    # written meanwhile; an immediate one waits for the busy timeout. One that only reads waits
    # for nobody (WAL).
    reads = connection.get_execution_options().get(READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
