"""A SuperLink's database that was cut off in the middle of being made, by Flower's own code."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import StoreError
from deploy import superlink_database
from deploy.superlink_database import OPENED, forget_cut_migration, note_opened
from server.coordinator_folder import create_coordinator_folder
from server.settings import CoordinatorSettings

MAKE = """
import os, sys
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from flwr.supercore.state.alembic.utils import run_migrations

last, done = int(sys.argv[2]), 0

def count(*_):
    global done
    done += 1
    if done == last:
        os.kill(os.getpid(), 9)

event.listen(Engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
event.listen(Engine, "after_cursor_execute", count)
run_migrations(create_engine("sqlite:///" + sys.argv[1]))
"""
NEVER = 0


def migrated(database: Path, *, killed_after: int) -> int:
    """Run Flower's migrations, killed after so many statements; return the exit code."""
    return subprocess.run(
        [sys.executable, "-c", MAKE, str(database), str(killed_after)],
        capture_output=True,
        check=False,
    ).returncode


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    assert migrated(folder / "superlink.db", killed_after=60) == -9
    return folder


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorSettings:
    settings = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    settings.data.mkdir(exist_ok=True)
    return settings


def copied(cut: Path, settings: CoordinatorSettings) -> Path:
    shutil.copytree(cut, settings.data, dirs_exist_ok=True)
    return settings.data / "superlink.db"


def register(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO node (node_id) VALUES (7)")
        connection.commit()


def test_a_cut_database_without_nodes_makes_room_for_a_new_one(
    cut: Path, coordinator: CoordinatorSettings, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(cut, again)
    assert migrated(again / "superlink.db", killed_after=NEVER) == 1, "Flower mends it by itself"
    copied(cut, coordinator)
    forget_cut_migration(coordinator)
    assert not list(coordinator.data.glob("*superlink*"))


def test_one_with_nodes_is_kept_and_what_to_do_is_said(
    cut: Path, coordinator: CoordinatorSettings
) -> None:
    database = copied(cut, coordinator)
    register(database)
    before = database.read_bytes()
    with pytest.raises(StoreError) as caught:
        forget_cut_migration(coordinator)
    assert caught.value.code == "superlink-database-cut"
    assert str(database) in caught.value.what
    assert f"superlink.db* out of {coordinator.data}" in caught.value.action
    assert database.read_bytes() == before
    assert not list(coordinator.data.glob(".superlink-trial-*"))
    for path in coordinator.data.glob("superlink.db*"):
        path.unlink()
    forget_cut_migration(coordinator)  # as the action says


def test_a_whole_one_is_kept_and_tried_once_only(
    coordinator: CoordinatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = coordinator.data / "superlink.db"
    assert migrated(database, killed_after=NEVER) == 0
    forget_cut_migration(coordinator)
    assert database.exists()
    note_opened(coordinator)

    def tried(_: Path) -> bool:
        raise AssertionError("it was opened whole by this version")

    monkeypatch.setattr(superlink_database, "_can_be_opened", tried)
    forget_cut_migration(coordinator)
    assert database.exists()
    database.unlink()
    forget_cut_migration(coordinator)
    assert not (coordinator.data / OPENED).exists(), "it was said of another database"


def test_what_is_no_database_is_kept(coordinator: CoordinatorSettings) -> None:
    database = coordinator.data / "superlink.db"
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError):
        forget_cut_migration(coordinator)
    assert database.exists()
