"""Flower's own database at a coordinator, where its making or an upgrade of it was cut off.

SQLite commits each step of Flower's migrations by itself. One that was killed in between leaves
tables that the next start would make again, and every later start fails.
"""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from common.errors import StoreError
from common.folders import write_private
from deploy.components import environment
from server.settings import CoordinatorSettings

log = logging.getLogger(__name__)

OPENED = ".superlink-opened"
TRIAL_SECONDS = 300.0
UNKNOWN = 3
"""The trial's exit code where this Flower keeps its migrations elsewhere."""

_TRIAL = f"""
import sys
try:
    from sqlalchemy import create_engine, event
    from flwr.supercore.state.alembic.utils import run_migrations
except ImportError:
    sys.exit({UNKNOWN})
from sqlalchemy.engine import Engine
# The copy is thrown away: it need not outlive a power cut.
event.listen(Engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
run_migrations(create_engine("sqlite:///" + sys.argv[1]))
"""


def superlink_database(coordinator: CoordinatorSettings) -> Path:
    """Return the database's file."""
    return coordinator.data / "superlink.db"


def forget_database(coordinator: CoordinatorSettings) -> None:
    """Throw the stopped SuperLink's database away; sites are then to be registered anew."""
    for path in coordinator.data.glob("superlink.db*"):
        path.unlink()
    (coordinator.data / OPENED).unlink(missing_ok=True)


def note_opened(coordinator: CoordinatorSettings) -> None:
    """Remember that this version of Flower's SuperLink opened the database, whole."""
    write_private(coordinator.data / OPENED, version("flwr").encode())


def forget_cut_migration(coordinator: CoordinatorSettings) -> None:
    """Throw the stopped SuperLink's database away if it cannot be opened and holds no node.

    Whether it can is tried out on a copy, with Flower's own migrations, and only where no
    SuperLink of this version has opened it before.

    Raises
    ------
    StoreError
        With code ``superlink-database-cut``, if it cannot be opened, but nodes are registered.
    """
    database = superlink_database(coordinator)
    if not database.exists():
        (coordinator.data / OPENED).unlink(missing_ok=True)
        return
    if _opened_by(coordinator) == version("flwr") or _can_be_opened(database):
        return
    if _holds_nodes(database):
        raise StoreError(
            f"{database} cannot be opened: a migration of it was cut off, or it is damaged.",
            meaning="Sites are registered in it, so it is not thrown away unasked. Campaigns and "
            "releases are not in it, but in the registry.",
            action=f"Put a backup of it back; or move {database.name}* out of {database.parent} "
            "and start again: all sites are then registered anew.",
            code="superlink-database-cut",
        )
    log.warning("event=superlink-database-forgotten reason=migration-was-cut-off")
    forget_database(coordinator)


def _opened_by(coordinator: CoordinatorSettings) -> str | None:
    try:
        return (coordinator.data / OPENED).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _can_be_opened(database: Path) -> bool:
    """Try Flower's migrations on a copy; a Flower that cannot be asked is left to try itself."""
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=".superlink-trial-") as folder:
        copy = Path(folder) / "copy.db"
        try:
            with closing(sqlite3.connect(database)) as real, closing(sqlite3.connect(copy)) as to:
                real.backup(to)
        except sqlite3.DatabaseError:
            return False
        try:
            tried = subprocess.run(
                [sys.executable, "-c", _TRIAL, str(copy)],
                env=environment(Path(folder) / "flower"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TRIAL_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return True
    return tried.returncode in (0, UNKNOWN) or tried.returncode < 0  # killed: it told nothing


def _holds_nodes(database: Path) -> bool:
    """Tell whether a node is registered; also in the table's half-made successor."""
    with closing(sqlite3.connect(database)) as connection:
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            return any(
                connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608
                for table in ("node", "_alembic_tmp_node")
                if table in tables
            )
        except sqlite3.DatabaseError:
            return True  # it cannot be known, so it is kept
