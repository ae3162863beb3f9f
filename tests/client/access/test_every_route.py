"""Every route against every kind of caller, found by walking the app: none can be forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from client.access.door import SAFE_METHODS
from client.access.guard import PUBLIC, all_routes, path_of, roles_wanted
from client.access.names import digest_of
from client.access.roles import Role
from client.access.tables import SiteSessionRow
from client.main import make_app
from client.settings import SiteSettings
from common.accounts import passwords
from common.moments import utc_now
from tests.client.access.conftest import OWN, PASSWORD, GuardedSite
from tests.client.serving import RECIPE, FakeReleases

C, IT, A = Role.clinician, Role.it, Role.auditor
EVERYBODY = {C, IT, A}
CASE = "/review/{case_id}"
MODEL = "/v2/models/{model}"
VERSION = f"{MODEL}/versions/{{version}}"
WHO_MAY = {
    ("GET", "/"): EVERYBODY,
    ("GET", "/budget"): {IT, A},
    ("GET", "/cases"): EVERYBODY,
    ("GET", "/it"): EVERYBODY,
    ("GET", "/metrics"): {IT},
    ("GET", "/model"): EVERYBODY,
    ("GET", "/model-version"): EVERYBODY,
    ("GET", "/monitoring"): EVERYBODY,
    ("GET", "/outcomes"): EVERYBODY,
    ("GET", "/releases"): EVERYBODY,
    ("GET", "/review"): {C},
    ("GET", "/review-queue"): EVERYBODY,
    ("GET", "/review/outcomes"): {C, A},
    ("GET", "/status"): {IT, A},
    ("GET", CASE): {C},
    ("GET", f"{CASE}/history"): {C, A},
    ("GET", f"{CASE}/image"): {C},
    ("GET", MODEL): EVERYBODY,
    ("GET", VERSION): EVERYBODY,
    ("GET", f"{MODEL}/ready"): EVERYBODY,
    ("GET", f"{VERSION}/ready"): EVERYBODY,
    ("POST", "/cases"): {C},
    ("POST", "/cases/{case_id}/confirm"): {C},
    ("POST", "/explain"): {C},
    ("POST", "/predict"): {C},
    ("POST", "/predict/batch"): {C},
    ("POST", "/predict/fhir"): {C},
    ("POST", "/releases/rollback"): {IT},
    ("POST", "/releases/{version}/accept"): {IT},
    ("POST", "/releases/{version}/refuse"): {IT},
    ("POST", "/similar"): {C},
    ("POST", "/training/pause"): {IT},
    ("POST", "/training/resume"): {IT},
    ("POST", f"{CASE}/flags/{{code}}/dismiss"): {C},
    ("POST", f"{CASE}/explain"): {C},
    ("POST", f"{CASE}/opinion"): {C},
    ("POST", f"{CASE}/predict"): {C},
    ("POST", f"{CASE}/similar"): {C},
    ("POST", f"{CASE}/withdraw"): {C},
    ("POST", f"{MODEL}/infer"): {C},
    ("POST", f"{VERSION}/infer"): {C},
}
"""Written down twice, here and at the route: who changes one is asked whether they mean it.

The pages are for everybody, and show each the ones that they may open (`client.pages.frame`).
"""
HIDDEN_PAGES = {"/": {C}, "/it": {IT, A}, "/outcomes": {C, A}, "/review-queue": {C}}


def guarded_routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    for route in all_routes(app.routes):
        if path_of(route) not in PUBLIC:
            for method in sorted(getattr(route, "methods", None) or {"?"}):
                if method != "HEAD":
                    yield method, path_of(route)


def address(path: str) -> str:
    values = {"model": RECIPE.name, "version": "1", "case_id": "0" * 32, "code": "a-flag"}
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], path)


def ask(guarded: GuardedSite, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    return guarded.site.call(method, address(path), headers=headers)


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def eager(guarded: GuardedSite, monkeypatch: pytest.MonkeyPatch) -> GuardedSite:
    """A site that lets each caller ask as often as this takes, and hashes quickly."""
    monkeypatch.setattr(passwords, "_hasher", passwords.PasswordHasher(1, 64, 1))
    monkeypatch.setattr(passwords, "_made", [])
    limits = guarded.site.services.access.limits
    assert limits is not None
    limits._burst = 10_000.0
    return guarded


def test_the_routes_and_their_roles_are_those_written_down(settings: SiteSettings) -> None:
    app = make_app(settings, releases=FakeReleases())
    found = {
        (method, path_of(route)): set(roles_wanted(route) or ())
        for route in all_routes(app.routes)
        if path_of(route) not in PUBLIC
        for method in getattr(route, "methods", None) or {"?"}
        if method != "HEAD"
    }
    app.state.services.store.close()
    assert found == WHO_MAY


def test_every_route_lets_its_roles_in_and_no_others(eager: GuardedSite) -> None:
    for method, path in guarded_routes(eager.site.app):
        for role in Role:
            answer = ask(eager, method, path, bearer(eager.keys[role]))
            refused = answer.status_code == 403
            allowed = WHO_MAY[method, path] & HIDDEN_PAGES.get(path, EVERYBODY)
            if path == "/":
                allowed = EVERYBODY  # led on to a page of theirs
            assert refused == (role not in allowed), (method, path, role, answer.text[:200])
            assert answer.status_code not in (401, 429, 500), (method, path, role)


def strangers(eager: GuardedSite) -> dict[str, dict[str, str]]:
    """Headers of everybody who once was, or never was, let in; each had every role."""
    access = eager.site.services.access
    revoked = access.keys.add("revoked", list(Role))
    access.keys.remove("revoked")
    sessions = {}
    for name in ("removed", "changed", "idle", "old", "signed-out"):
        person = access.people.add(name, list(Role), password=PASSWORD)
        sessions[name] = access.people.open_session(person, life=timedelta(hours=1))
        let_in = eager.site.call("GET", "/model", headers=cookie(sessions[name]))
        assert let_in.status_code == 200, name
    access.people.remove("removed")
    access.people.set_password("changed", "another horse battery")
    eager.site.call("POST", "/sign-out", headers=cookie(sessions["signed-out"]) | OWN)
    with access.people._transactions.writing() as session:
        for name, column in (("idle", "seen_at"), ("old", "expires_at")):
            row = session.get(SiteSessionRow, digest_of(sessions[name]))
            setattr(row, column, utc_now() - timedelta(days=1))
    found = {name: cookie(secret) | OWN for name, secret in sessions.items()}
    found |= {"nobody": {}, "revoked": bearer(revoked), "wrong": bearer("wrk_nonsense")}
    # A key that is none does not fall back on a session that is one.
    anna = access.people.add("anna", list(Role), password=PASSWORD)
    good = access.people.open_session(anna, life=timedelta(hours=1))
    found["both"] = cookie(good) | OWN | bearer(revoked)
    return found


def cookie(secret: str) -> dict[str, str]:
    return {"cookie": f"wardround-session={secret}"}


def test_no_route_lets_in_who_is_not_let_in_any_more(eager: GuardedSite) -> None:
    for who, headers in strangers(eager).items():
        for method, path in guarded_routes(eager.site.app):
            answer = ask(eager, method, path, headers)
            assert answer.status_code == 401, (who, method, path, answer.text[:200])


@pytest.mark.parametrize(
    "foreign",
    [{}, {"origin": "null"}, {"origin": "https://evil.example"}, {"sec-fetch-site": "same-site"}],
    ids=str,
)
def test_no_route_changes_anything_for_a_foreign_page(
    eager: GuardedSite, foreign: dict[str, str]
) -> None:
    access = eager.site.services.access
    anna = access.people.add("anna", list(Role), password=PASSWORD)
    session = cookie(access.people.open_session(anna, life=timedelta(hours=1)))
    changing = [
        (method, path_of(route))
        for route in all_routes(eager.site.app.routes)
        for method in getattr(route, "methods", None) or ()
        if method not in SAFE_METHODS
    ]
    assert len(changing) >= 19
    for method, path in changing:
        answer = ask(eager, method, path, session | foreign)
        assert (answer.status_code, "cross-origin") == (403, code_of(answer)), (method, path)


def code_of(answer: httpx.Response) -> str:
    """Return a problem's code; below ``/v2`` an error is a text."""
    document = answer.json()
    if "code" in document:
        return str(document["code"])
    told = ("It cannot be told where this comes from", "Another web site asked for this")
    return "cross-origin" if document["error"].startswith(told) else document["error"]
