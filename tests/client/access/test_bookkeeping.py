"""A database that can be read and takes nothing shuts nobody out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from client.access.bookkeeping import AGAIN_AFTER, Bookkeeping
from client.access.keys import Keys
from client.access.names import digest_of
from client.access.people import People
from client.access.roles import Role
from client.access.tables import SiteSessionRow
from client.cases.store import MIGRATIONS
from common.accounts.identity import Identity
from common.database import migrate, open_database
from common.errors import StoreError
from tests.client.access.conftest import TakesNothing

IDLE = timedelta(minutes=30)


class Clock:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_database(database_url)
    migrate(opened, MIGRATIONS)
    yield opened
    opened.dispose()


def test_a_program_goes_on_and_its_use_is_noted_later(engine: Engine) -> None:
    clock = Clock()
    keys = Keys(engine, clock=clock)
    secret = keys.add("pacs", [Role.clinician])
    disk = TakesNothing(engine)
    for _ in range(3):
        assert keys.caller(secret) is not None
        clock.now += timedelta(days=1)
    assert keys.all()[0].last_used is None
    disk.full = False
    assert keys.caller(secret) is not None
    assert keys.all()[0].last_used == clock.now.date()


def test_a_person_at_work_is_not_idle_and_one_who_left_is(engine: Engine) -> None:
    clock = Clock()
    people = People(engine, clock=clock)
    anna = people.admit(Identity("https://login.example", "42", "Anna"), frozenset({Role.it}))
    secret = people.open_session(anna, life=timedelta(hours=12))
    disk = TakesNothing(engine)
    for _ in range(5):
        clock.now += timedelta(minutes=20)
        assert people.caller(secret, idle=IDLE) is not None
    disk.full = False
    clock.now += timedelta(minutes=20)
    assert people.caller(secret, idle=IDLE) is not None
    with Session(engine) as session:
        row = session.get(SiteSessionRow, digest_of(secret))
    assert row is not None
    assert row.seen_at == clock.now
    disk.full = True
    clock.now += timedelta(minutes=20)
    assert people.caller(secret, idle=IDLE) is not None
    clock.now += IDLE
    assert people.caller(secret, idle=IDLE) is None


def test_not_every_request_waits_for_a_locked_database() -> None:
    now, tried, one = Clock.now, list[datetime](), Bookkeeping()

    def locked() -> None:
        tried.append(now)
        raise StoreError("The database is locked.")

    assert not one.note(locked, now=now)
    assert not one.note(locked, now=now + AGAIN_AFTER / 2)
    assert len(tried) == 1
    assert one.note(lambda: None, now=now + AGAIN_AFTER)
    assert not one.note(locked, now=now + AGAIN_AFTER)
    assert len(tried) == 2
