from __future__ import annotations

import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from client.cases.store import CaseStore
from client.settings import SiteSettings
from client.storage import StorageWatch
from tests.client.serving import site_settings


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    made = site_settings(tmp_path)
    CaseStore.open(made).close()
    return made


@pytest.fixture
def watch(settings: SiteSettings) -> StorageWatch:
    return StorageWatch(settings, low_bytes=0)


def codes(watch: StorageWatch) -> list[str]:
    watch.look()
    return [alarm.code for alarm in watch.alarms()]


def test_all_well_leaves_nothing_behind(watch: StorageWatch, settings: SiteSettings) -> None:
    assert codes(watch) == []
    assert not list(settings.data.glob(".probe-*"))


def test_little_room_is_told_before_it_is_none(settings: SiteSettings) -> None:
    assert codes(StorageWatch(settings, low_bytes=2**62)) == ["disk-low"]


def test_a_disk_that_takes_nothing_and_heals(watch: StorageWatch, settings: SiteSettings) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        assert "disk-full" in codes(watch)
        since = watch.alarms()[0].since
        watch.look()
        assert watch.alarms()[0].since == since
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert codes(watch) == []
    assert not list(settings.data.glob(".probe-*"))


def test_a_database_that_is_held(watch: StorageWatch, settings: SiteSettings) -> None:
    with closing(sqlite3.connect(settings.data / "cases.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert codes(watch) == ["database-locked"]
        holder.execute("ROLLBACK")
    assert codes(watch) == []


def test_a_database_that_is_gone_and_one_that_was_exchanged(
    watch: StorageWatch, settings: SiteSettings
) -> None:
    path = settings.data / "cases.db"
    path.rename(path.with_name("away"))
    assert codes(watch) == ["database-away"]
    assert not path.exists(), "looking made an empty one"
    path.write_bytes(path.with_name("away").read_bytes())
    assert codes(watch) == ["database-moved"]
    path.with_name("away").rename(path)
    assert codes(watch) == []


def test_a_server_that_does_not_answer(settings: SiteSettings) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    pytest.importorskip("psycopg")
    away = settings.model_copy(update={"database_url": url})
    assert codes(StorageWatch(away, low_bytes=0)) == ["database-away"]
