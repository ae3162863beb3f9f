from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from client.answers import log as log_module
from client.answers.log import AnswerLog
from client.cases.store import MIGRATIONS
from common.database import migrate, open_database
from common.errors import StoreError
from tests.client.answers.answered import ANSWER, PIXELS, answer

START = ANSWER.answered_at - timedelta(seconds=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'answers.db'}")
    migrate(engine, MIGRATIONS)
    yield engine
    engine.dispose()


def test_what_is_read_is_what_was_answered(engine: Engine) -> None:
    log = AnswerLog(engine)
    log.record(ANSWER)
    assert log.for_pixels(PIXELS) == (ANSWER,)  # before it is written
    assert log.flush()
    assert log.for_pixels(PIXELS) == (ANSWER,)
    assert AnswerLog(engine).answers("dermoscopy", since=START) == (ANSWER,)


def test_answers_are_of_a_task_and_a_time_oldest_first(sqlite: Engine) -> None:
    log = AnswerLog(sqlite)
    later = [answer(request_id=f"r{n}", answered_at=START + timedelta(minutes=n)) for n in range(4)]
    for one in reversed(later):
        log.record(one)
    log.flush()
    log.record(answer(task="mammography"))
    found = log.answers("dermoscopy", since=later[1].answered_at, until=later[3].answered_at)
    assert found == (later[1], later[2])
    assert log.answers("dermoscopy", since=START, limit=2) == (later[2], later[3])


def test_the_thread_writes_by_itself_and_what_waits_when_it_stops(sqlite: Engine) -> None:
    log = AnswerLog(sqlite)
    log.start()
    log.record(ANSWER)
    deadline = time.monotonic() + 10
    while _stored(sqlite) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    log.record(answer(request_id="last"))
    log.close()
    assert _stored(sqlite) == 2


def test_without_a_database_nothing_is_raised_and_the_newest_are_kept(
    sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAXIMUM_WAITING", 3)
    log = AnswerLog(sqlite)
    with sqlite.begin() as connection:
        connection.execute(text("ALTER TABLE answers RENAME TO away"))
    for n in range(5):
        log.record(answer(request_id=f"r{n}"))
    assert not log.flush()
    assert log.lost == 2
    assert [alarm.code for alarm in log.alarms()] == ["answers-unavailable"]
    with pytest.raises(StoreError):
        log.for_pixels(PIXELS)
    with sqlite.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO answers"))
    assert log.flush()
    assert log.alarms() == ()
    assert [a.request_id for a in log.for_pixels(PIXELS)] == ["r2", "r3", "r4"]


def test_old_answers_go_but_those_of_stored_cases(engine: Engine) -> None:
    log = AnswerLog(engine, keep_days=30)
    now = datetime.now(UTC)
    log.record(answer(pixels="1" * 64, answered_at=now - timedelta(days=31)))
    log.record(answer(pixels="2" * 64, answered_at=now - timedelta(days=29)))
    log.record(answer(pixels="3" * 64, answered_at=now - timedelta(days=31)))
    log.record(answer(pixels="4" * 64, answered_at=now - timedelta(days=31)))
    log.flush()
    _store_case(engine, "3" * 64, "waiting")
    _store_case(engine, "4" * 64, "withdrawn")
    assert log.prune(now=now) == 2
    left = log.answers("dermoscopy", since=now - timedelta(days=99))
    assert {a.pixels[0] for a in left} == {"2", "3"}


def test_the_label_is_the_likeliest_on_the_verdicts_side() -> None:
    classes = ("mel", "nv", "bcc")
    assert ANSWER.label(classes, ("mel", "bcc")) == "bcc"  # although nv is likelier
    assert answer(verdict="negative").label(classes, ("mel", "bcc")) == "nv"
    assert ANSWER.label(("other", "recipe"), ("other",)) is None


def _stored(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM answers")).scalar_one())


def _store_case(engine: Engine, pixels: str, status: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO patients VALUES (:p, 'train', '2026-01-01 00:00:00', NULL)"),
            {"p": pixels},
        )
        connection.execute(
            text(
                "INSERT INTO cases (id, task, patient, digest, pixels, likeness, status, source,"
                " created_at) VALUES (:c, 'dermoscopy', :p, :p, :p, :p, :s, 'test',"
                " '2026-01-01 00:00:00')"
            ),
            {"c": pixels[:32], "p": pixels, "s": status},
        )
