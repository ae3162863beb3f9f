from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from client.explanation.budget import Budget
from client.explanation.pool import ExplanationPool
from client.explanation.settings import ExplanationSettings
from common.errors import Busy, ModelError

SETTINGS = ExplanationSettings(queue=2, queue_seconds=0.2, seconds=5)


class Gate:
    """Work that begins, says so, and ends when it is let."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, budget: Budget) -> str:
        self.begun.set()
        while not self.open.wait(0.01):
            budget.check()
        return "done"


@pytest.fixture
def pool() -> Iterator[ExplanationPool]:
    made = ExplanationPool(SETTINGS)
    yield made
    made.close()


def test_one_is_computed_two_wait_and_the_next_is_told_to_come_back(pool: ExplanationPool) -> None:
    gate = Gate()
    first = pool.submit(gate)
    assert gate.begun.wait(5)
    waiting = [pool.submit(lambda _budget: "next") for _ in range(2)]
    with pytest.raises(Busy) as caught:
        pool.submit(lambda _budget: "one too many")
    assert caught.value.code == "busy"
    waiting[0].cancel()
    time.sleep(0.25)
    gate.open.set()
    assert first.result(5) == "done"
    with pytest.raises(Busy) as late:
        waiting[1].result(5)
    assert late.value.code == "queue-deadline"
    assert pool.submit(lambda _budget: "again").result(5) == "again"


def test_what_breaks_says_nothing_of_its_text_and_the_next_is_served(pool: ExplanationPool) -> None:
    def broken(_budget: Budget) -> str:
        raise RuntimeError("PlantedDoe")

    with pytest.raises(ModelError) as caught:
        pool.submit(broken).result(5)
    assert "PlantedDoe" not in str(caught.value)
    assert pool.submit(lambda _budget: 1).result(5) == 1


def test_closing_breaks_off_what_runs_and_what_waits() -> None:
    pool = ExplanationPool(SETTINGS)
    gate = Gate()
    running = pool.submit(gate)
    assert gate.begun.wait(5)
    waiting = pool.submit(lambda _budget: "never")
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 2
    for future in (running, waiting):
        with pytest.raises(Busy) as caught:
            future.result(1)
        assert caught.value.code == "closing"
    with pytest.raises(Busy):
        pool.submit(lambda _budget: "after")
    pool.close()


def test_too_slow_is_broken_off() -> None:
    pool = ExplanationPool(ExplanationSettings(seconds=0.05))
    with pytest.raises(Busy) as caught:
        pool.submit(Gate()).result(5)
    assert caught.value.code == "explanation-deadline"
    pool.close()
