"""Opening databases: what is refused, who may read the file, and what errors give away."""

import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from common.database import open_database, sqlite_url
from common.errors import ConfigurationError, StoreError


def test_sqlite_is_durable_and_enforces_keys(tmp_path: Path) -> None:
    engine = open_database(sqlite_url(tmp_path / "new" / "x.db"))
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    engine = open_database(sqlite_url(path))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a TEXT)"))
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_an_error_does_not_quote_values(database_url: str) -> None:
    engine = open_database(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a TEXT)"))
    with pytest.raises(SQLAlchemyError) as raised, engine.begin() as connection:
        connection.execute(text("INSERT INTO t (b) VALUES (:v)"), {"v": "Planted Name"})
    assert "Planted" not in str(raised.value)


@pytest.mark.parametrize("url", ["mysql://x/y", "no url at all"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_database(url)


def test_a_folder_in_the_files_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        open_database(sqlite_url(tmp_path / "x.db"))


def test_opening_twice_in_a_process_keeps_its_locks(tmp_path: Path) -> None:
    """Otherwise another process takes itself for the last one, and deletes the log we use."""
    url = sqlite_url(tmp_path / "site.db")
    first = open_database(url)
    with first.begin() as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    second = open_database(url)  # as a service does: case store, ledger, audit log
    script = textwrap.dedent(f"""
        from sqlalchemy import text
        from common.database import open_database
        for number in range(20):
            engine = open_database({url!r})
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO t VALUES (1)"))
            engine.dispose()
    """)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "site.db-wal").exists()
    for engine in (first, second):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (2)"))
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
    with first.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM t")) == 22
    first.dispose()
    second.dispose()
