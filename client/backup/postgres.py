"""A PostgreSQL database's rows in one file, and back, by PostgreSQL's own programs.

A password goes to them by the environment: a command line can be read by every user of the
machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url

from client.backup.contents import NAMED_IMAGES
from common.database import open_database
from common.errors import ConfigurationError, StoreError

_TABLES = (
    "SELECT count(*) FROM pg_catalog.pg_tables "
    "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
)
_SECRET = ("password", "sslpassword")
_LINE = 300


def dump_rows(url: str, copy: Path) -> tuple[str, ...]:
    """Write all rows, as they are at one moment, into a file of ``pg_dump``'s custom format.

    Parameters
    ----------
    url : str
        The database; it may be in use.
    copy : Path
        Must not be there.

    Returns
    -------
    tuple of str
        SHA-256 of the images that these rows name; those of withdrawn cases are left out.

    Raises
    ------
    StoreError
        With code ``postgres-program-absent`` or ``postgres-program-failed``.
    SQLAlchemyError
        If the database cannot be read.
    """
    engine = open_database(url)
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            # pg_dump reads in this transaction's snapshot, so that images and rows agree
            # (PostgreSQL 15, 9.27.5: pg_export_snapshot). It is idle meanwhile, and may be so.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
            images = tuple(connection.scalars(text(NAMED_IMAGES)))
            _run("pg_dump", url, "--format=custom", f"--snapshot={snapshot}", f"--file={copy}")
    finally:
        engine.dispose()
    return images


def refuse_filled(url: str) -> None:
    """Refuse to load rows into anything but an empty PostgreSQL database, before the work begins.

    Raises
    ------
    ConfigurationError
        With code ``database-elsewhere``, if it is no PostgreSQL database, or ``database-filled``.
    StoreError
        With code ``postgres-program-absent``.
    SQLAlchemyError
        If the database cannot be read.
    """
    _program("pg_restore")
    if make_url(url).get_backend_name() != "postgresql":
        raise ConfigurationError(
            "The backup's rows are of a PostgreSQL database, and none is named.",
            meaning="Nothing was restored.",
            action="Make an empty one, and name it in WARDROUND_SITE_DATABASE_URL.",
            code="database-elsewhere",
        )
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            filled = connection.scalar(text(_TABLES)) != 0
    finally:
        engine.dispose()
    if filled:
        raise ConfigurationError(
            "The database for the backup's rows is not empty.",
            meaning="It may be the living site's. Nothing was restored, nothing in it was changed.",
            action="Make an empty one, and name it in WARDROUND_SITE_DATABASE_URL; the restored "
            "site then works on that one.",
            code="database-filled",
        )


def load_rows(url: str, dump: Path) -> None:
    """Load what `dump_rows` wrote into an empty database, whole or not at all.

    Raises
    ------
    StoreError
        With code ``postgres-program-absent`` or ``postgres-program-failed``.
    """
    _run("pg_restore", url, "--exit-on-error", "--single-transaction", str(dump))


def _run(name: str, url: str, *arguments: str) -> None:
    address, environment = _connection(url)
    done = subprocess.run(
        [
            *(_program(name), f"--dbname={address}", "--no-password"),
            *("--no-owner", "--no-privileges", *arguments),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise StoreError(
            f"{name} failed: {_said(done.stderr)}",
            meaning="Nothing of it was kept.",
            action="Check that the database runs, that this user may read or write all of it, "
            f"that the disk has room, and that {name} is no older than the server.",
            code="postgres-program-failed",
        )


def _connection(url: str) -> tuple[str, dict[str, str]]:
    """Return libpq's connection string, without secrets, and the environment that has them."""
    from psycopg.conninfo import make_conninfo  # of the extra `postgres`

    parsed = make_url(url).set(drivername="postgresql+psycopg")
    _, parameters = parsed.get_dialect()().create_connect_args(parsed)
    address = make_conninfo(**{k: v for k, v in parameters.items() if k not in _SECRET})
    password = parameters.get("password")
    return address, {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise StoreError(
            f"There is no {name} on this machine.",
            meaning="The rows of a PostgreSQL database are copied by PostgreSQL's own programs.",
            action="Install its client programs (`apt-get install postgresql-client`), no older "
            "than the server.",
            code="postgres-program-absent",
        )
    return found


def _said(errors: bytes) -> str:
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
    told = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
    return told[:_LINE] or "it said nothing."
