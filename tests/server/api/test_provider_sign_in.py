"""Signing in at a real OpenID provider over TLS, and everything that must not sign anybody in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from common.accounts.pending import MOST
from common.errors import ConfigurationError, InputRefused
from deploy.ports import free_port
from server.api.application import create_app
from server.api.authentication import PROVIDER_COOKIE, SESSION_COOKIE
from server.api.services import CoordinatorServices
from server.main import compose
from server.settings import CoordinatorSettings
from tests.releases import Coordinator
from tests.server.accounts.openid_provider import CLIENT, SECRET
from tests.server.accounts.provider_process import CALLBACK, Provider, browse, provider_running
from tests.server.signed_in import BASE, account, sign_in, token_of


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider_running(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.does()
    return running


Open = Callable[..., tuple[TestClient, CoordinatorServices]]


@pytest.fixture
def opened(tmp_path: Path, provider: Provider) -> Iterator[Open]:
    made: list[tuple[TestClient, CoordinatorServices]] = []

    def make(*, local: bool = True, **changes: object) -> tuple[TestClient, CoordinatorServices]:
        folder = tmp_path / f"coordinator-{len(made)}"
        Coordinator.create(folder)
        secret = folder / "keys" / "provider.secret"
        secret.touch(0o600)
        secret.write_text(SECRET + "\n")
        settings = CoordinatorSettings(
            folder=folder,
            provider=provider.settings(**changes),  # type: ignore[arg-type]
            local_accounts=local,
        )
        services = compose(settings)
        client = TestClient(create_app(services), base_url=BASE, follow_redirects=False)
        made.append((client, services))
        return client, services

    yield make
    for client, services in made:
        client.close()
        services.registry.close()


def there(client: TestClient, provider: Provider, next_page: str = "") -> str:
    """Go to the provider and sign in there; returns the address that leads back."""
    away = client.get("/sign-in/provider", params={"next": next_page})
    assert away.status_code == 303, away.text
    back = browse(provider, away.headers["location"])
    assert back.status_code == 303, back.text
    return back.headers["location"]


def trouble(answer: httpx.Response) -> str:
    found = re.search(r'role="alert">.*\(([a-z-]+)\)</p>', answer.text)
    assert found is not None, answer.text
    return found[1]


def refused(client: TestClient, provider: Provider) -> str:
    """Try to sign in; returns the code of the refusal, having checked that it is one."""
    answer = client.get(there(client, provider))
    assert answer.status_code in (403, 503)
    assert SESSION_COOKIE not in client.cookies
    assert client.get("/page/sites").status_code == 303
    return trouble(answer)


def test_whoever_the_provider_vouches_for_gets_in_with_the_role_of_the_claim(
    opened: Open, provider: Provider
) -> None:
    client, services = opened()
    assert "the hospital&#39;s login" in client.get("/sign-in").text
    answer = client.get(there(client, provider, "/page/releases"))
    assert answer.status_code == 200
    assert 'content="0; url=/page/releases"' in answer.text
    cookies = answer.headers.get_list("set-cookie")
    session = next(c for c in cookies if c.startswith(SESSION_COOKIE))
    for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert part in session
    page = client.get("/page/releases")
    assert page.status_code == 200
    (found,) = services.registry.accounts.all()
    assert (found.role, found.issuer, found.has_password) == ("approver", provider.issuer, False)
    assert re.fullmatch(r"anna-rztin\.[0-9a-f]{8}", found.name)
    assert found.name in page.text
    said = [line.entry() for line in services.registry.audit.lines()]
    assert [(e.change, e.by) for e in said if e.kind == "account"] == [  # type: ignore[union-attr]
        ("added", "provider"),
        ("signed-in", found.name),
    ]
    out = client.post("/sign-out", data={"token": token_of(page)})
    assert f"{provider.issuer}/end?client_id={CLIENT}" in out.text
    assert client.get("/page/sites").status_code == 303


def test_the_browser_is_sent_away_with_state_nonce_and_challenge_and_no_secret(
    opened: Open, provider: Provider
) -> None:
    client, _ = opened()
    away = client.get("/sign-in/provider")
    where = urlsplit(away.headers["location"])
    asked = {name: values[0] for name, values in parse_qs(where.query).items()}
    assert f"{where.scheme}://{where.netloc}" == provider.issuer
    assert asked["redirect_uri"] == CALLBACK
    assert asked["code_challenge_method"] == "S256"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert SECRET not in away.headers["location"]
    cookie = away.headers["set-cookie"]
    for part in ("__Host-", "HttpOnly", "Secure", "SameSite=lax"):
        assert part in cookie
    assert asked["state"] not in cookie


NOW = int(time.time())
WRONG_TOKENS: dict[str, dict[str, object]] = {
    "another issuer": {"claims": {"iss": "https://evil.example"}},
    "no issuer": {"claims": {"iss": None}},
    "another audience": {"claims": {"aud": "another-client"}},
    "many audiences without a party": {"claims": {"aud": [CLIENT, "another-client"]}},
    "another party": {"claims": {"aud": [CLIENT, "b"], "azp": "another-client"}},
    "expired": {"claims": {"iat": NOW - 900, "exp": NOW - 600}},
    "no expiry": {"claims": {"exp": None}},
    "issued in the future": {"claims": {"iat": NOW + 86_400, "exp": NOW + 90_000}},
    "not yet": {"claims": {"nbf": NOW + 86_400}},
    "altered nonce": {"claims": {"nonce": "another"}},
    "no nonce": {"claims": {"nonce": None}},
    "alg none": {"alg": "none"},
    "the public key as secret": {"alg": "HS256"},
    "a stranger's key": {"stranger": True},
    "nobody": {"claims": {"sub": None}},
    "a number for a person": {"claims": {"sub": 1}},
    "an expiry that is no number": {"claims": {"exp": "tomorrow"}},
}


def test_a_token_that_does_not_hold_signs_nobody_in(opened: Open, provider: Provider) -> None:
    client, services = opened()
    for what, wrong in WRONG_TOKENS.items():
        provider.does(**wrong)
        assert refused(client, provider) == "provider-token", what
    assert services.registry.accounts.all() == ()


def test_without_a_role_nobody_gets_in_and_open_sessions_end(
    opened: Open, provider: Provider
) -> None:
    client, services = opened()
    for groups in ([], ["staff"], "approvers, guests", {"approvers": True}, None, [["approvers"]]):
        provider.does(claims={"realm": {"groups": groups}})
        assert refused(client, provider) == "provider-role"
    assert services.registry.accounts.all() == ()
    provider.does()
    client.get(there(client, provider))
    assert client.get("/page/sites").status_code == 200
    provider.does(claims={"realm": {"groups": ["guests"]}})
    elsewhere = TestClient(client.app, base_url=BASE, follow_redirects=False)
    elsewhere.get(there(elsewhere, provider))
    assert [a.role for a in services.registry.accounts.all()] == ["viewer"]
    provider.does(claims={"realm": {}})
    assert elsewhere.get(there(elsewhere, provider)).status_code == 403
    assert client.get("/page/sites").status_code == 303


def test_who_begins_by_the_thousand_ends_nobody_elses_sign_in(
    opened: Open, provider: Provider
) -> None:
    client, _ = opened()
    back = there(client, provider)
    flood = TestClient(
        client.app, base_url=BASE, follow_redirects=False, client=("198.51.100.7", 50_000)
    )
    for _ in range(MOST):
        assert flood.get("/sign-in/provider").status_code == 303
    assert client.get(back).status_code == 200
    assert client.get("/page/sites").status_code == 200


def test_an_answer_counts_once_and_in_the_browser_that_began(
    opened: Open, provider: Provider
) -> None:
    client, _ = opened()
    back = there(client, provider)
    thief = TestClient(client.app, base_url=BASE, follow_redirects=False)
    assert trouble(thief.get(back)) == "provider-state"
    kept = client.cookies[PROVIDER_COOKIE]
    assert client.get(back).status_code == 200
    client.cookies.clear()
    client.cookies.set(PROVIDER_COOKIE, kept, domain="localhost.local")
    assert trouble(client.get(back)) == "provider-state"
    # The attacker's own answer, put into a victim's browser that began a sign-in of its own.
    theirs = there(thief, provider)
    client.get("/sign-in/provider")
    assert trouble(client.get(theirs)) == "provider-state"
    assert client.get("/page/sites").status_code == 303


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("error=access_denied", "provider-answer"),
        ("error=<script>alert(1)</script>", "provider-answer"),
        ("", "provider-answer"),
        (f"code={'x' * 5000}", "provider-answer"),
        ("code=guessed", "provider-code"),
        ("code=guessed&iss=https://evil.example", "provider-issuer"),
    ],
)
def test_answers_without_a_good_code_are_refused_and_not_repeated(
    opened: Open, provider: Provider, query: str, code: str
) -> None:
    client, _ = opened()
    state = parse_qs(urlsplit(there(client, provider)).query)["state"][0]
    answer = client.get(f"/sign-in/callback?{query}&state={state}")
    assert trouble(answer) == code
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/page//evil.example", "/\\evil", "javascript:1"],
)
def test_nobody_is_led_to_another_web_site(opened: Open, provider: Provider, target: str) -> None:
    client, _ = opened()
    answer = client.get(there(client, provider, target))
    assert 'content="0; url=/page/sites"' in answer.text
    assert "evil" not in answer.text


def test_a_provider_that_calls_itself_otherwise_or_is_away_is_said_to_be(
    opened: Open, provider: Provider
) -> None:
    client, _ = opened()
    provider.does(calls_itself=f"{provider.issuer}/")
    answer = client.get("/sign-in/provider")
    assert (answer.status_code, trouble(answer)) == (503, "provider-issuer")
    away, _ = opened(issuer=f"https://localhost:{free_port()}")
    answer = away.get("/sign-in/provider")
    assert (answer.status_code, trouble(answer)) == (503, "provider-unavailable")
    untrusted, _ = opened(ca_file=None)
    assert trouble(untrusted.get("/sign-in/provider")) == "provider-unavailable"


def test_new_keys_of_the_provider_are_fetched(
    opened: Open, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.accounts.provider_connection.KEYS_AT_MOST_EVERY_SECONDS", 0.0)
    client, _ = opened()
    assert client.get(there(client, provider)).status_code == 200
    provider.does(rotate=True)
    assert client.get(there(client, provider)).status_code == 200


def test_the_provider_cannot_make_somebody_another_account(
    opened: Open, provider: Provider
) -> None:
    client, services = opened()
    account(services.registry, "anna", "viewer")
    provider.does(claims={"preferred_username": "anna"})
    client.get(there(client, provider))
    provider.does(claims={"preferred_username": "anna", "sub": "person-2"})
    client.get(there(client, provider))
    found = services.registry.accounts.all()
    assert [a.issuer is None for a in found] == [True, False, False]
    assert len({a.name for a in found}) == 3
    theirs = found[1].name
    accounts = services.registry.accounts
    for change in (
        lambda: accounts.set_role(theirs, "approver", by="console-test"),
        lambda: accounts.set_password(theirs, "four unrelated words", by="console-test"),
    ):
        with pytest.raises(InputRefused) as caught:
            change()
        assert caught.value.code == "account-of-provider"
    for name in (found[1].name, found[2].name):
        accounts.disable(name, by="console-test")
    assert client.get("/page/sites").status_code == 303
    client.cookies.clear()
    assert refused(client, provider) == "account-disabled"


def test_with_local_accounts_off_no_password_opens_the_page(
    opened: Open, provider: Provider
) -> None:
    client, services = opened()
    account(services.registry, "anna", "approver")
    assert sign_in(client, "anna").status_code == 303
    secret = client.cookies[SESSION_COOKIE]
    alone = services.settings.model_copy(update={"local_accounts": False})
    shut = CoordinatorServices(
        alone, services.publisher, services.registry, provider=services.provider
    )
    only = TestClient(create_app(shut), base_url=BASE, follow_redirects=False)
    assert 'type="password"' not in only.get("/sign-in").text
    fields = {"name": "anna", "password": "four unrelated words here", "token": "0" * 64}
    assert only.post("/sign-in", data=fields).status_code == 403
    only.cookies.set(SESSION_COOKIE, secret)
    assert only.get("/page/sites").status_code == 303
    only.cookies.clear()
    only.get(there(only, provider))
    assert only.get("/page/sites").status_code == 200
    none = services.settings.model_copy(update={"provider": None})
    gone = CoordinatorServices(none, services.publisher, services.registry)
    other = TestClient(create_app(gone), base_url=BASE, follow_redirects=False)
    other.cookies.set(SESSION_COOKIE, only.cookies[SESSION_COOKIE])
    assert other.get("/page/sites").status_code == 303
    assert other.get("/sign-in/provider").status_code == 404


def test_a_secret_that_others_can_read_is_refused(opened: Open) -> None:
    _, services = opened()
    secret = services.settings.keys / "provider.secret"
    secret.chmod(0o644)
    with pytest.raises(ConfigurationError) as caught:
        compose(services.settings)
    assert caught.value.code == "key-readable"
    secret.unlink()
    with pytest.raises(ConfigurationError) as caught:
        compose(services.settings)
    assert caught.value.code == "client-secret-missing"
