"""Signing in by name and password: who gets in, for how long, and where to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from common.accounts.throttle import FREE_BY_ACCOUNT
from server.accounts import store
from server.accounts.store import Accounts
from server.api.authentication import SESSION_COOKIE
from server.registry.registry import Registry
from tests.server.signed_in import PASSWORD, sign_in, token_of


def test_a_session_cookie_is_out_of_reach_of_scripts_and_other_sites(client: TestClient) -> None:
    answer = sign_in(client, "vera")
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE))
    for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie
    assert "max-age" not in cookie.lower()


def test_the_session_changes_with_each_sign_in_and_ends_with_sign_out(client: TestClient) -> None:
    sign_in(client, "vera")
    first = client.cookies[SESSION_COOKIE]
    sign_in(client, "vera")
    second = client.cookies[SESSION_COOKIE]
    assert first != second
    client.cookies.set(SESSION_COOKIE, first, domain="localhost.local")
    page = client.get("/page/sites")
    client.cookies.clear()
    client.cookies.set(SESSION_COOKIE, first)
    assert client.get("/page/sites").status_code == 303, "the earlier session is gone"
    client.cookies.clear()
    client.cookies.set(SESSION_COOKIE, second)
    page = client.get("/page/sites")
    assert client.post("/sign-out", data={"token": token_of(page)}).status_code == 303
    client.cookies.clear()
    client.cookies.set(SESSION_COOKIE, second)
    assert client.get("/page/sites").status_code == 303


def test_wrong_passwords_are_slowed_down_and_say_nothing(client: TestClient) -> None:
    unknown = sign_in(client, "nobody", "a password that is wrong")
    known = sign_in(client, "vera", "a password that is wrong")
    assert unknown.status_code == known.status_code == 401
    assert "name or the password is wrong" in known.text
    for _ in range(FREE_BY_ACCOUNT):
        last = sign_in(client, "vera", "a password that is wrong")
    assert last.status_code == 429
    assert int(last.headers["Retry-After"]) >= 1
    assert sign_in(client, "vera").status_code == 429, "even the right one waits"
    assert sign_in(client, "anna").status_code == 303


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/page//evil", "/page/\\evil", "/sign-out", "x"],
)
def test_signing_in_leads_to_no_other_web_site(client: TestClient, target: str) -> None:
    page = client.get("/sign-in", params={"next": target})
    fields = {"name": "vera", "password": "four unrelated words here", "token": token_of(page)}
    answer = client.post("/sign-in", data={**fields, "next": target})
    assert answer.headers["location"] == "/page/sites"


def test_a_disabled_account_is_out_at_once(client: TestClient, registry: Registry) -> None:
    sign_in(client, "vera")
    assert client.get("/page/sites").status_code == 200
    registry.accounts.disable("vera", by="anna")
    assert client.get("/page/sites").status_code == 303
    assert sign_in(client, "vera").status_code == 401


def new_password(accounts: Accounts) -> None:
    accounts.set_password("vera", "completely other words now", by="anna")


def off(accounts: Accounts) -> None:
    accounts.disable("vera", by="anna")


def off_and_on(accounts: Accounts) -> None:
    off(accounts)
    accounts.enable("vera", by="anna")


@pytest.mark.parametrize("change", [new_password, off, off_and_on])
def test_what_ends_sessions_ends_a_sign_in_whose_password_is_being_checked(
    client: TestClient,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Accounts], None],
) -> None:
    def slow(_known: str | None, password: str) -> bool:
        change(registry.accounts)
        return password == PASSWORD

    with monkeypatch.context() as waiting:
        waiting.setattr(store, "matches", slow)
        answer = sign_in(client, "vera")
    assert answer.status_code == 401
    assert "name or the password is wrong" in answer.text
    assert SESSION_COOKIE not in client.cookies
    registry.accounts.enable("vera", by="anna")
    assert client.get("/page/sites").status_code == 303
    rest = registry.audit.lines(kinds=("account",))
    assert "signed-in" not in {line.entry().change for line in rest}  # type: ignore[union-attr]
