"""Every route names its roles or is public; nobody without one of them gets through."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Mount

from client.access.caller import requires
from client.access.guard import PUBLIC, all_routes, path_of, roles_wanted
from client.access.roles import Role
from client.settings import SiteSettings
from tests.client.access.conftest import GuardedSite
from tests.client.serving import picture


def faults(app: FastAPI) -> list[str]:
    """Routes that neither name roles nor are public, and public ones that name roles."""
    found = []
    for route in all_routes(app.routes):
        public, wanted = path_of(route) in PUBLIC, roles_wanted(route)
        if public == (wanted is not None):
            found.append(path_of(route))
    return found


def test_every_route_names_its_roles_or_is_public(guarded: GuardedSite) -> None:
    assert faults(guarded.site.app) == []
    assert sum(1 for _ in all_routes(guarded.site.app.routes)) > 10


def test_the_walk_finds_a_route_that_names_none() -> None:
    app, router = FastAPI(openapi_url=None, docs_url=None, redoc_url=None), APIRouter()
    router.add_api_route("/forgotten", lambda: None)
    router.add_api_route("/named", lambda: None, dependencies=[requires(Role.it)])
    inner = APIRouter(prefix="/inner")
    inner.add_api_route("/forgotten", lambda: None)
    router.include_router(inner)
    app.include_router(router)
    app.mount("/files", Mount("/x", routes=[]))
    assert faults(app) == ["/forgotten", "/inner/forgotten", "/files"]


def test_a_route_that_names_no_role_answers_nobody(guarded: GuardedSite) -> None:
    app = guarded.site.app
    app.add_api_route("/forgotten", lambda: {"secret": True})
    for role in Role:
        answer = guarded.call("GET", "/forgotten", role)
        assert (answer.status_code, answer.json()["code"]) == (403, "no-role-declared")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/predict", {Role.clinician}),
        ("POST", "/cases", {Role.clinician}),
        ("GET", "/cases", set(Role)),
        ("GET", "/model", set(Role)),
        ("GET", "/metrics", {Role.it}),
        ("GET", "/budget", {Role.it, Role.auditor}),
    ],
)
def test_who_may_ask_what(guarded: GuardedSite, method: str, path: str, allowed: set[Role]) -> None:
    files = {"image": ("x.png", picture())} if method == "POST" else None
    for role in (None, *Role):
        answer = guarded.call(method, path, role, files=files)
        if role is None:
            assert answer.status_code == 401, answer.text
            assert answer.headers["www-authenticate"].startswith("Bearer")
        else:
            assert (answer.status_code < 400) == (role in allowed), (role, answer.text)
            assert answer.status_code in (200, 201, 403)


def test_what_is_public_says_nothing_about_trouble(guarded: GuardedSite) -> None:
    services = guarded.site.services
    guarded.site.releases.trouble = RuntimeError("the disk /srv/secret is full")
    services.watcher.poll()
    known = guarded.call("GET", "/health/ready", Role.it).json()
    assert any(alarm["message"] for alarm in known["alarms"])
    anybody = guarded.call("GET", "/health/ready", None)
    assert anybody.status_code == 200
    assert [alarm["code"] for alarm in anybody.json()["alarms"]] == [
        alarm["code"] for alarm in known["alarms"]
    ]
    assert {alarm["message"] for alarm in anybody.json()["alarms"]} == {""}


def test_metrics_without_a_key_only_where_the_setting_says_so(
    settings: SiteSettings, guarded: GuardedSite
) -> None:
    assert guarded.call("GET", "/metrics", None).status_code == 401
    door = guarded.site.services.access.door
    door._settings = settings.accounts.model_copy(update={"metrics_on_loopback": True})  # type: ignore[attr-defined]
    assert guarded.call("GET", "/metrics", None).status_code == 200
    assert guarded.call("GET", "/model", None).status_code == 401
    proxied = guarded.call("GET", "/metrics", None, headers={"x-forwarded-for": "10.0.0.9"})
    assert proxied.status_code == 401
