"""Supervised tasks: they go on after a failure, are seen to fail, and end when told."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from common.errors import StoreError
from server import supervision
from server.supervision import SupervisedTask

PATIENCE = 10.0


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.01)


class Work:
    """Fails as long as ``error`` is set; tells when it was attempted and when it is at rest."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.attempts = threading.Semaphore(0)

    def __call__(self) -> None:
        self.attempts.release()
        if self.error is not None:
            raise self.error

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.attempts.acquire(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("error", "code"),
    [(StoreError("disk", code="disk"), "disk"), (ValueError("a bug"), "unexpected")],
)
def test_a_failure_is_retried_shown_and_recovered_from(error: Exception, code: str) -> None:
    work = Work(error)
    task = SupervisedTask("work", work, every_seconds=0.01)
    assert not task.health.alive
    began = datetime.now(UTC)
    task.start()
    work.wait(3)  # the third attempt begins after the first two were noted
    failing = task.health
    assert (failing.alive, failing.well, failing.code) == (True, False, code)
    assert failing.failing_since is not None
    assert began <= failing.failing_since
    work.wait(2)
    assert task.health.failing_since == failing.failing_since
    work.error = None
    work.wait(3)
    assert task.health.well
    assert task.health.succeeded_at is not None
    task.stop()
    assert not task.health.alive
    assert not task.health.well


def test_stopping_interrupts_the_pause_and_waits_for_the_work() -> None:
    entered, leave, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        leave.wait(PATIENCE)
        done.set()

    task = SupervisedTask("slow", slow, every_seconds=3600)
    task.start()
    assert entered.wait(PATIENCE)
    threading.Timer(0.05, leave.set).start()
    task.stop(timeout=PATIENCE)
    assert done.is_set()
    assert not task.health.alive


def test_stopping_what_never_started_is_harmless() -> None:
    SupervisedTask("idle", lambda: None, every_seconds=1).stop()
