"""A fresh database for each test: SQLite, and PostgreSQL.

PostgreSQL is a private cluster, started from the machine's own binaries (as an unprivileged user
where the tests run as root), reached by a socket in a folder of its own, gone with the session.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

UNPRIVILEGED = ("postgres", "nobody")
START_SECONDS = 60


@dataclass(frozen=True)
class PostgresCluster:
    """URL of the superuser's own database, from which others are made."""

    url: str

    def create_database(self) -> str:
        name = f"test_{secrets.token_hex(6)}"
        self._run(f'CREATE DATABASE "{name}"')
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        self._run(f'DROP DATABASE "{make_url(url).database}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        url = make_url(self.url).set(drivername="postgresql+psycopg")
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))


def find_binaries() -> Path | None:
    """Folder that holds initdb, pg_ctl and postgres; the newest version wins."""
    folders = [Path(p) for p in os.get_exec_path()]
    versions = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if p.parent.name.isdigit()]
    folders += sorted(versions, key=lambda p: int(p.parent.name), reverse=True)
    folders += [Path("/usr/local/bin"), Path("/opt/homebrew/bin")]
    names = ("initdb", "pg_ctl", "postgres")
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            return (folder / "initdb").resolve().parent
    return None


def _as_unprivileged(folder: Path) -> list[str]:
    """Hand the folder over and return the prefix of commands; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    for name in UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        if shutil.which("setpriv"):
            ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            return ["setpriv", *ids, "--"]
        if shutil.which("runuser"):
            return ["runuser", "-u", name, "--"]
    pytest.skip("PostgreSQL does not run as root, and there is no user to run it as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _call(command: list[str], folder: Path) -> None:
    # The server inherits the outputs, so they go to a file: a pipe would never be closed.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}
    with (folder / "call.log").open("w+") as log:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=START_SECONDS * 2,
            cwd=folder,
            env=environment,
            check=False,
        )
        if done.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"{Path(command[0]).name} failed: {log.read()[-2000:]}")


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """A cluster of the session's own, or the server of WARDROUND_POSTGRES_URL."""
    given = os.environ.get("WARDROUND_POSTGRES_URL")
    if given:
        yield PostgresCluster(given)
        return
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine (initdb, pg_ctl), no WARDROUND_POSTGRES_URL")
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    # Not below pytest's folder: the path of a unix socket may have 107 bytes, and no more.
    folder = Path(tempfile.mkdtemp(prefix="wardround-pg-"))
    try:
        prefix = _as_unprivileged(folder)
        data = folder / "data"
        _call(
            [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "wardround", "-A", "trust",
             "-E", "UTF8", "--no-sync", "--no-instructions"],
            folder,
        )  # fmt: skip
        # Only a socket in this folder, mode 0700, and no TCP: `trust` lets in nobody else.
        port = _free_port()
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -p {port}"
        options += " -c fsync=off -c synchronous_commit=off -c max_connections=40"
        options += " -c shared_buffers=16MB"
        start = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", str(START_SECONDS)]
        log = ["-l", str(folder / "server.log")]
        _call([*prefix, *start, *log, "-o", options, "start"], folder)
        try:
            yield PostgresCluster(f"postgresql://wardround@/postgres?host={folder}&port={port}")
        finally:
            stop = [str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"]
            _call([*prefix, *stop], folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sqlite_database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def postgres_database_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    url = postgres_cluster.create_database()
    yield url
    postgres_cluster.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database of this test's own; the test runs on each kind."""
    url: str = request.getfixturevalue(
        "sqlite_database_url" if request.param == "sqlite" else "postgres_database_url"
    )
    assert re.match(r"^(sqlite|postgresql)", url)
    return url
