"""Accounts: what signs in, what ends it, what the database gives away, what guessing costs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from common.accounts import passwords
from common.accounts.identity import Identity, SignInRefused
from common.accounts.throttle import FREE_BY_ACCOUNT, FREE_BY_ADDRESS, Throttle
from common.errors import Busy, InputRefused, NotFound
from server.accounts.records import Account
from server.accounts.store import Accounts
from server.coordinator_folder import create_coordinator_folder
from server.registry.registry import Registry

PASSWORD = "correct horse battery"
IDLE = timedelta(minutes=30)
LIFE = timedelta(hours=12)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = Registry.open(create_coordinator_folder(tmp_path / "coordinator", releases=False))
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(registry: Registry, clock: Clock) -> Accounts:
    made = Accounts(registry._sessions, registry.audit, clock=clock)
    made.add("alice", "approver", password=PASSWORD, by="console-root")
    return made


def alice(accounts: Accounts) -> Account:
    (found,) = accounts.all()
    return found


def who(accounts: Accounts, secret: str) -> str | None:
    found = accounts.session(secret, kind="browser", idle=IDLE)
    return found.name if found else None


def test_only_the_right_password_of_the_right_account_signs_in(accounts: Accounts) -> None:
    found = accounts.verify("alice", PASSWORD)
    assert found is not None
    assert found.role == "approver"
    assert found.may("viewer")
    for name, password in (
        ("alice", PASSWORD + " "),
        ("alice", ""),
        ("bob", PASSWORD),
        ("Alice", PASSWORD),
        ("' OR 1=1 --", PASSWORD),
        ("alice\x00", PASSWORD),
    ):
        assert accounts.verify(name, password) is None


def test_a_password_typed_in_another_unicode_form_is_the_same(accounts: Accounts) -> None:
    accounts.add("zoe", "viewer", password="schlüssel zum garten", by="alice")
    assert accounts.verify("zoe", "schlu\u0308ssel zum garten") is not None


@pytest.mark.parametrize(
    "password",
    ["", "short", "elevenchars", "a" * 12, "abababababab", "my name is Alice", "x1ecila!yz09"],
)
def test_a_weak_password_is_refused(accounts: Accounts, password: str) -> None:
    with pytest.raises(InputRefused) as caught:
        accounts.set_password("alice", password, by="alice")
    assert caught.value.code == "password-weak"
    assert password not in caught.value.line() or not password
    assert accounts.verify("alice", PASSWORD) is not None


def test_nothing_in_the_database_signs_in(accounts: Accounts, registry: Registry) -> None:
    secret = accounts.open_session(alice(accounts), life=LIFE)
    token = accounts.issue_token("alice", life=LIFE, by="alice")
    with registry._engine.connect() as connection:
        rows = [
            *connection.execute(text("SELECT * FROM accounts")),
            *connection.execute(text("SELECT * FROM sessions")),
            *connection.execute(text("SELECT body FROM audit_log")),
        ]
    stored = repr(rows)
    for hidden in (secret, token, PASSWORD):
        assert hidden not in stored
    for value in (field for row in rows for field in row if isinstance(field, str)):
        assert who(accounts, value) is None


def test_a_session_ends_when_idle_when_old_and_when_closed(
    accounts: Accounts, clock: Clock
) -> None:
    idle, old, closed = (accounts.open_session(alice(accounts), life=LIFE) for _ in range(3))
    accounts.close_session(closed)
    assert [who(accounts, s) for s in (idle, old, closed)] == ["alice", "alice", None]
    for _ in range(30):
        clock.now += timedelta(minutes=25)
        if who(accounts, old) is None:
            break
    assert LIFE <= clock.now - accounts.all()[0].created_at <= LIFE + timedelta(minutes=25)
    assert who(accounts, idle) is None


def test_a_live_page_left_open_keeps_no_session_alive(accounts: Accounts, clock: Clock) -> None:
    secret = accounts.open_session(alice(accounts), life=LIFE)
    for _ in range(3):
        clock.now += timedelta(minutes=11)
        found = accounts.session(secret, kind="browser", idle=IDLE, touch=False)
    assert found is None


def test_a_token_is_no_session_and_a_session_no_token(accounts: Accounts) -> None:
    secret = accounts.open_session(alice(accounts), life=LIFE)
    token = accounts.issue_token("alice", life=LIFE, by="alice")
    assert accounts.session(token, kind="browser", idle=IDLE) is None
    assert accounts.session(secret, kind="token", idle=IDLE) is None
    assert accounts.session(token, kind="token", idle=IDLE) is not None
    with pytest.raises(InputRefused):
        accounts.issue_token("alice", life=timedelta(days=1000), by="alice")
    with pytest.raises(NotFound):
        accounts.issue_token("bob", life=LIFE, by="alice")


@pytest.mark.parametrize("change", ["disable", "password"])
def test_a_change_of_password_and_a_disabled_account_end_everything(
    accounts: Accounts, change: str
) -> None:
    secret = accounts.open_session(alice(accounts), life=LIFE)
    token = accounts.issue_token("alice", life=LIFE, by="alice")
    if change == "disable":
        accounts.disable("alice", by="bob")
        assert accounts.verify("alice", PASSWORD) is None
    else:
        accounts.set_password("alice", "another long password", by="alice")
    assert who(accounts, secret) is None
    assert accounts.session(token, kind="token", idle=IDLE) is None


def test_a_sign_in_ends_with_what_ends_sessions(accounts: Accounts, clock: Clock) -> None:
    def set_back() -> None:
        clock.now -= timedelta(days=1)
        accounts.set_password("alice", PASSWORD, by="bob")

    def off_and_on() -> None:
        accounts.disable("alice", by="bob")
        accounts.enable("alice", by="bob")

    changes = (off_and_on, set_back, lambda: accounts.disable("alice", by="bob"))
    for change in changes:
        begun = accounts.verify("alice", PASSWORD)
        assert begun is not None
        assert who(accounts, accounts.open_session(begun, life=LIFE)) == "alice"
        change()
        with pytest.raises(SignInRefused) as caught:
            accounts.open_session(begun, life=LIFE)
        assert caught.value.code == "account-changed"


def test_what_the_provider_takes_back_ends_a_sign_in_under_way(accounts: Accounts) -> None:
    anna = Identity("https://login.example", "42", "Anna")
    begun = accounts.admit(anna, "viewer")
    with pytest.raises(SignInRefused):
        accounts.admit(anna, None)
    with pytest.raises(SignInRefused):
        accounts.open_session(begun, life=LIFE)
    again = accounts.admit(anna, "viewer")
    assert who(accounts, accounts.open_session(again, life=LIFE)) == begun.name


def test_a_role_holds_from_the_next_request_on(accounts: Accounts) -> None:
    secret = accounts.open_session(alice(accounts), life=LIFE)
    accounts.set_role("alice", "viewer", by="bob")
    found = accounts.session(secret, kind="browser", idle=IDLE)
    assert found is not None
    assert not found.may("operator")


@pytest.mark.parametrize(
    "name", ["", "a", "Alice", "policy", "gate", "console", "console-root", "a b", "a" * 64, "é"]
)
def test_names_that_are_none_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InputRefused):
        accounts.add(name, "viewer", password=PASSWORD, by="alice")


def test_an_account_is_added_once_and_every_change_is_on_record(
    accounts: Accounts, registry: Registry
) -> None:
    with pytest.raises(InputRefused) as caught:
        accounts.add("alice", "viewer", password=PASSWORD, by="bob")
    assert caught.value.code == "account-exists"
    accounts.set_role("alice", "operator", by="bob")
    accounts.disable("alice", by="bob")
    accounts.enable("alice", by="bob")
    entries = [line.entry() for line in registry.audit.lines(kinds=("account",))]
    assert [(e.change, e.by) for e in entries] == [  # type: ignore[union-attr]
        ("added", "console-root"),
        ("role", "bob"),
        ("disabled", "bob"),
        ("enabled", "bob"),
    ]


def test_a_hash_is_argon2id() -> None:
    assert passwords.hashed(PASSWORD, name="alice").startswith("$argon2id$")


def test_guessing_an_account_waits_longer_each_time() -> None:
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    for _ in range(FREE_BY_ACCOUNT):
        throttle.attempt("alice", "10.0.0.1")
    waits = []
    for _ in range(4):
        with pytest.raises(Busy) as caught:
            throttle.attempt("alice", "10.0.0.2")
        assert caught.value.code == "sign-in-throttled"
        began = now[0]
        while True:
            now[0] += 0.5
            try:
                throttle.attempt("alice", "10.0.0.2")
            except Busy:
                continue
            break
        waits.append(now[0] - began)
    assert waits == [1, 2, 4, 8]
    throttle.attempt("bob", "10.0.0.3")


def test_guessing_many_accounts_from_one_address_waits_too() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for number in range(FREE_BY_ADDRESS):
        throttle.attempt(f"name{number}", "10.0.0.1")
    with pytest.raises(Busy):
        throttle.attempt("other", "10.0.0.1")
    throttle.attempt("other", "10.0.0.2")


def test_who_signs_in_starts_afresh() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for _ in range(50):
        throttle.attempt("alice", "10.0.0.1")
        throttle.succeeded("alice", "10.0.0.1")


@settings(max_examples=30)
@given(st.lists(st.text(max_size=5), max_size=50, unique=True))
def test_the_memory_of_guesses_is_bounded(names: list[str]) -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for name in names:
        throttle.attempt(name, name)
    assert len(throttle._tries) <= 2 * len(names)
