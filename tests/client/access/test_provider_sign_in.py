"""A site's people sign in at a real OpenID provider over TLS, with the roles of their claim."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from client.access.roles import Role
from client.api.provider_sign_in import PROVIDER_COOKIE
from client.settings import SiteSettings
from tests.client.serving import FakeReleases, ServedSite, served_site
from tests.server.accounts.openid_provider import CLIENT, SECRET
from tests.server.accounts.provider_process import Provider, browse, provider_running

CALLBACK = "https://127.0.0.1/sign-in/callback"
ROLES = {"clinician": ["staff"], "it": ["admins"], "auditor": ["approvers"]}


def with_provider(settings: SiteSettings, found: Provider, **changes: Any) -> SiteSettings:
    secret = settings.keys / "provider.secret"
    secret.touch(0o600)
    secret.write_text(SECRET + "\n")
    table = {
        **{"issuer": found.issuer, "client_id": CLIENT, "redirect_uri": CALLBACK},
        **{"ca_file": str(found.folder / "ca.crt"), "role_claim": "realm.groups"},
        **{"client_secret_file": "keys/provider.secret", "roles": ROLES, "label": "the login"},
        **changes,
    }
    fields = settings.model_dump() | {"accounts": {"local_users": False, "provider": table}}
    return SiteSettings.model_validate(fields)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider_running(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture
def login(running: Provider) -> Provider:
    running.does()
    return running


@pytest.fixture
def site(settings: SiteSettings, login: Provider) -> Iterator[ServedSite]:
    with served_site(with_provider(settings, login), FakeReleases()) as served:
        yield served


def cookie(answer: httpx.Response, name: str) -> str:
    (found,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith(f"{name}=")]
    return found


def come_back(site: ServedSite, found: Provider, *, browser: str | None = None) -> httpx.Response:
    """Sign in there and come back, in the browser that began it unless another is named."""
    away = site.call("GET", "/sign-in/provider?next=/model")
    assert away.status_code == 303, away.text
    kept = browser or cookie(away, PROVIDER_COOKIE).partition(";")[0]
    back = browse(found, away.headers["location"]).headers["location"]
    return site.call("GET", back.removeprefix("https://127.0.0.1"), headers={"cookie": kept})


def test_the_claims_values_give_every_role_they_stand_for(
    site: ServedSite,
    login: Provider,
) -> None:
    assert "Sign in with the login" in site.call("GET", "/sign-in").text
    assert 'type="password"' not in site.call("GET", "/sign-in").text
    answer = come_back(site, login)
    assert answer.status_code == 200, answer.text
    assert 'content="0; url=/model"' in answer.text
    kept = cookie(answer, "__Host-wardround-session")
    for part in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert part in kept
    session = {"cookie": kept.partition(";")[0]}
    assert site.call("GET", "/cases", headers=session).status_code == 200
    assert site.call("GET", "/metrics", headers=session).status_code == 403
    (person,) = site.services.access.people.all()
    assert (person.roles, person.issuer) == ({Role.clinician, Role.auditor}, login.issuer)
    login.does(claims={"realm": {"groups": ["strangers"]}})
    assert come_back(site, login).status_code == 403
    assert site.call("GET", "/cases", headers=session).status_code == 401, "the role is gone"


@pytest.mark.parametrize(
    "wrong",
    [
        {"claims": {"aud": "another"}},
        {"claims": {"nonce": "x"}},
        {"stranger": True},
        {"alg": "none"},
    ],
)
def test_what_does_not_hold_signs_nobody_in(
    site: ServedSite,
    login: Provider,
    wrong: dict[str, object],
) -> None:
    login.does(**wrong)
    answer = come_back(site, login)
    assert answer.status_code == 403
    assert re.search(r'role="alert">.*\(provider-token\)', answer.text)
    assert "__Host-wardround-session=" not in str(answer.headers.get_list("set-cookie"))
    assert site.services.access.people.all() == ()


def test_an_answer_counts_once_and_for_the_browser_that_asked(
    site: ServedSite,
    login: Provider,
) -> None:
    stolen = come_back(site, login, browser=f"{PROVIDER_COOKIE}=guessed")
    assert stolen.status_code == 403
    assert "provider-state" in stolen.text


def test_without_local_users_a_password_is_no_way_in(
    site: ServedSite,
    login: Provider,
) -> None:
    site.services.access.people.add("anna", [Role.it], password="correct horse battery")
    form = {"name": "anna", "password": "correct horse battery"}
    headers = {"origin": "http://127.0.0.1"}
    assert site.call("POST", "/sign-in", data=form, headers=headers).status_code == 403


def test_no_provider_no_way_there(settings: SiteSettings) -> None:
    with served_site(settings, FakeReleases()) as served:
        assert served.call("GET", "/sign-in/provider").status_code == 404
