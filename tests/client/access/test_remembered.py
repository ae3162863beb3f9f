from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from client.access import remembered
from client.access.caller import Caller
from client.access.door import AccountsDoor
from client.access.names import digest_of
from client.access.remembered import SWEEP_SECONDS, Remembered
from client.access.roles import Role
from common.accounts.identity import Identity
from common.errors import StoreError
from common.moments import utc_now
from tests.client.access.conftest import OWN, PASSWORD, GuardedSite

ANNA = Caller("anna", frozenset({Role.clinician}))


def nothing_revoked() -> set[str]:
    return {digest_of(secret) for secret in ("key", "other")}


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def ask(one: Remembered, secret: str, look: Callable[[], Caller | None]) -> Caller | None:
    return asyncio.run(one.ask(secret, look))


def away() -> Caller | None:
    raise StoreError("The database is away.")


def test_while_the_database_answers_it_decides(threads: ThreadPoolExecutor) -> None:
    one = Remembered(threads, nothing_revoked)
    assert ask(one, "key", lambda: ANNA) == ANNA
    assert ask(one, "key", lambda: None) is None, "revoked"
    with pytest.raises(StoreError):
        ask(one, "key", away)


def test_while_it_is_away_those_go_on_who_were_let_in(threads: ThreadPoolExecutor) -> None:
    one = Remembered(threads, nothing_revoked)
    ask(one, "key", lambda: ANNA)
    assert ask(one, "key", away) == ANNA
    with pytest.raises(StoreError):
        ask(one, "other", away)


def test_nobody_is_remembered_for_ever(threads: ThreadPoolExecutor) -> None:
    now = [0.0]
    one = Remembered(threads, nothing_revoked, seconds=60.0, clock=lambda: now[0])
    ask(one, "key", lambda: ANNA)
    now[0] = 61.0
    with pytest.raises(StoreError):
        ask(one, "key", away)


def test_a_database_that_hangs_holds_up_nobody_who_is_known(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "ANSWER_SECONDS", 0.05)
    one, go_on, asked = Remembered(threads, nothing_revoked), threading.Event(), list[int]()
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


def test_who_was_revoked_is_forgotten_while_the_database_answers(
    threads: ThreadPoolExecutor,
) -> None:
    now = [0.0]
    alive = {digest_of("key"), digest_of("other")}
    one = Remembered(threads, lambda: alive, clock=lambda: now[0])
    ask(one, "key", lambda: ANNA)
    alive.remove(digest_of("key"))  # by another process; nobody comes with it again
    now[0] = SWEEP_SECONDS
    ask(one, "other", lambda: ANNA)
    with pytest.raises(StoreError):
        ask(one, "key", away)
    assert ask(one, "other", away) == ANNA


def test_who_signed_out_or_was_idle_is_not_let_in_by_memory(threads: ThreadPoolExecutor) -> None:
    now = [0.0]
    one = Remembered(threads, nothing_revoked, clock=lambda: now[0])

    def session(secret: str, look: Callable[[], Caller | None]) -> Caller | None:
        return asyncio.run(one.ask(secret, look, idle=1800.0))

    session("anna", lambda: ANNA)
    session("bert", lambda: ANNA)
    one.forget("bert")
    with pytest.raises(StoreError):
        session("bert", away)
    for minutes in (29, 58):  # whoever goes on asking is not idle
        now[0] = minutes * 60.0
        assert session("anna", away) == ANNA
    now[0] = 89 * 60.0
    with pytest.raises(StoreError):
        session("anna", away)


def test_what_ends_meanwhile_ends_in_memory_too(threads: ThreadPoolExecutor) -> None:
    begun = datetime(2026, 3, 1, 12, tzinfo=UTC)
    now = [0.0]
    one = Remembered(threads, nothing_revoked, clock=lambda: now[0], moment=lambda: begun)
    ends_soon = replace(ANNA, ends_at=begun + timedelta(hours=1))
    ask(one, "key", lambda: ends_soon)
    ask(one, "other", lambda: ANNA)
    now[0] = 3599.0
    assert ask(one, "key", away) == ANNA
    now[0] = 3600.0
    with pytest.raises(StoreError):
        ask(one, "key", away)
    assert ask(one, "other", away) == ANNA


def test_keys_and_sessions_say_when_they_end(guarded: GuardedSite) -> None:
    people, keys = guarded.site.services.access.people, guarded.site.services.access.keys
    anna = people.admit(Identity("https://login.example", "42", "Anna"), frozenset({Role.it}))
    life, now = timedelta(hours=1), utc_now()
    secret = people.open_session(anna, life=life)
    found = people.caller(secret, idle=life), keys.caller(keys.add("pacs", [Role.it], life=life))
    for caller in found:
        assert caller is not None
        assert caller.ends_at is not None
        assert now + life <= caller.ends_at <= utc_now() + life
    endless = keys.caller(keys.add("receiver", [Role.it], life=None))
    assert endless is not None
    assert endless.ends_at is None


def test_signing_out_and_revoking_hold_while_the_database_is_away(
    guarded: GuardedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = guarded.site.services.access
    anna = access.people.add("anna", [Role.it], password=PASSWORD)
    secret = access.people.open_session(anna, life=timedelta(hours=1))
    cookie = {"cookie": f"wardround-session={secret}"}
    assert guarded.site.call("GET", "/model", headers=cookie).status_code == 200
    guarded.call("GET", "/model", Role.it)
    guarded.call("GET", "/model", Role.clinician)
    guarded.site.call("POST", "/sign-out", headers=cookie | OWN)
    access.keys.remove("it-key")
    door = access.door
    assert isinstance(door, AccountsDoor)
    door._remembered._sweep()
    monkeypatch.setattr(door._people, "caller", lambda *_a, **_k: away())
    monkeypatch.setattr(door._keys, "caller", lambda *_a, **_k: away())
    assert guarded.site.call("GET", "/model", headers=cookie).status_code == 503
    assert guarded.call("GET", "/model", Role.it).status_code == 503
    assert guarded.call("GET", "/model", Role.clinician).status_code == 200
