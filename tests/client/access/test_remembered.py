from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from client.access import remembered
from client.access.caller import Caller
from client.access.remembered import Remembered
from client.access.roles import Role
from common.errors import StoreError

ANNA = Caller("anna", frozenset({Role.clinician}))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def ask(one: Remembered, secret: str, look: Callable[[], Caller | None]) -> Caller | None:
    return asyncio.run(one.ask(secret, look))


def away() -> Caller | None:
    raise StoreError("The database is away.")


def test_while_the_database_answers_it_decides(threads: ThreadPoolExecutor) -> None:
    one = Remembered(threads)
    assert ask(one, "key", lambda: ANNA) == ANNA
    assert ask(one, "key", lambda: None) is None, "revoked"
    with pytest.raises(StoreError):
        ask(one, "key", away)


def test_while_it_is_away_those_go_on_who_were_let_in(threads: ThreadPoolExecutor) -> None:
    one = Remembered(threads)
    ask(one, "key", lambda: ANNA)
    assert ask(one, "key", away) == ANNA
    with pytest.raises(StoreError):
        ask(one, "other", away)


def test_nobody_is_remembered_for_ever(threads: ThreadPoolExecutor) -> None:
    now = [0.0]
    one = Remembered(threads, seconds=60.0, clock=lambda: now[0])
    ask(one, "key", lambda: ANNA)
    now[0] = 61.0
    with pytest.raises(StoreError):
        ask(one, "key", away)


def test_a_database_that_hangs_holds_up_nobody_who_is_known(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "ANSWER_SECONDS", 0.05)
    one, go_on, asked = Remembered(threads), threading.Event(), list[int]()
    ask(one, "key", lambda: ANNA)

    def hangs() -> Caller | None:
        asked.append(1)
        go_on.wait(10)
        return ANNA

    async def twice() -> list[Caller | None]:
        found = [await one.ask("key", hangs) for _ in range(2)]
        go_on.set()
        return found

    assert asyncio.run(twice()) == [ANNA, ANNA]
    assert len(asked) == 1, "the second is not even asked"
