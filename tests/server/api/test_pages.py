"""The coordinator's page: nothing without an account, or by a foreign hand; decisions hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from common.accounts.throttle import FREE_BY_ACCOUNT, Throttle
from server.api import campaigns, decisions, health, releases
from server.api import pages as page_routes
from server.api import sign_in as sign_in_routes
from server.api.application import create_app
from server.api.authentication import SESSION_COOKIE
from server.api.services import CoordinatorServices
from server.pages.views import site_views
from server.registry.records import Contribution, SiteForecast
from server.registry.registry import Registry
from tests.releases import TASK, Coordinator, approve
from tests.server.signed_in import BASE, account, bearer, sign_in, token_of
from tests.server.test_api_coordinator import running_campaign

OPEN = {
    "/releases/metadata/{name}",
    "/releases/targets/{name:path}",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/sign-in",
}


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator")


@pytest.fixture
def registry(coordinator: Coordinator) -> Iterator[Registry]:
    opened = Registry.open(coordinator.settings)
    for number, name in enumerate(("north", "south")):
        opened.register_site(name, node_id=number + 1, public_key="key")
    for name, role in (("vera", "viewer"), ("otto", "operator"), ("anna", "approver")):
        account(opened, name, role)  # type: ignore[arg-type]
    yield opened
    opened.close()


@pytest.fixture
def services(coordinator: Coordinator, registry: Registry) -> CoordinatorServices:
    still = Throttle(clock=lambda: 0.0)  # on a busy machine a wait of a second is soon over
    return CoordinatorServices(
        coordinator.settings, coordinator.publisher, registry, throttle=still
    )


@pytest.fixture
def client(services: CoordinatorServices) -> Iterator[TestClient]:
    with TestClient(create_app(services), base_url=BASE, follow_redirects=False) as opened:
        yield opened


def pages(registry: Registry, coordinator: Coordinator) -> list[str]:
    campaign = running_campaign(coordinator, registry)
    candidate = registry.candidates()[0].id
    return [
        "/page/sites",
        "/page/campaigns",
        f"/page/campaigns/{campaign}",
        "/page/releases",
        f"/page/candidates/{candidate}",
        "/page/audit",
    ]


def post(client: TestClient, page: str, address: str, **fields: object) -> int:
    """Send a form as the page that holds it would; returns the status."""
    token = token_of(client.get(page))
    return client.post(address, data={"token": token, **fields}).status_code  # type: ignore[dict-item]


def test_nothing_but_what_sites_need_is_open(client: TestClient) -> None:
    parts = (releases, health, campaigns, sign_in_routes, page_routes, decisions)
    routes = [r for part in parts for r in part.router.routes if isinstance(r, APIRoute)]
    assert len(routes) > 15
    for path in ("/openapi.json", "/page/live"):
        assert client.get(path).status_code in (303, 401)
    for route in routes:
        if route.path in OPEN:
            continue
        path = re.sub(r"\{[^}]+\}", "1", route.path)
        for method in route.methods:
            answer = client.request(method, path)
            shut = answer.status_code == 401 or (
                answer.status_code == 303 and answer.headers["location"].startswith("/sign-in?")
            )
            assert shut, (method, path, answer.status_code)


def test_an_account_sees_every_page_and_nothing_breaks_the_policy(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    addresses = pages(registry, coordinator)
    assert sign_in(client, "vera").headers["location"] == "/page/sites"
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200, address
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"
        assert " style=" not in answer.text
        assert not re.search(r"\son[a-z]+=", answer.text)
        assert re.findall(r"<script[^>]*>", answer.text) == [
            '<script type="module" src="/static/live.js">'
        ]
        assert answer.text.count("<h1") == 1


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


def test_a_form_without_its_token_does_nothing(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, "anna")
    address = f"/page/candidates/{waiting.id}/approve"
    for token in ("", "0" * 64, "é"):
        answer = client.post(address, data={"token": token, "ring": "all"})
        assert answer.status_code in (400, 403)
    fields = {"name": "anna", "password": "x", "token": "0" * 64}
    assert client.post("/sign-in", data=fields).status_code == 403
    assert registry.candidate(waiting.id).state == "waiting"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
def test_another_web_site_cannot_decide(
    client: TestClient, registry: Registry, coordinator: Coordinator, headers: dict[str, str]
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, "anna")
    token = token_of(client.get("/page/releases"))
    address = f"/page/candidates/{waiting.id}/approve"
    answer = client.post(address, data={"token": token, "ring": "all"}, headers=headers)
    assert answer.status_code == 403
    assert registry.candidate(waiting.id).state == "waiting"
    assert client.post(address, data={"token": token, "ring": "all"}).status_code == 303


def test_a_candidate_against_another_champion_is_approved_knowingly_or_not_at_all(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = [approve(coordinator, registry, seed, approved=False) for seed in (1, 2)]
    sign_in(client, "anna")
    first, page = (f"/page/candidates/{one.id}" for one in waiting)
    assert "champion_changed" not in client.get(first).text
    assert post(client, first, f"{first}/approve", ring="all") == 303
    shown = client.get(page).text
    assert "compared it with none; the current release is release 1" in shown
    assert 'name="champion_changed"' in shown
    assert post(client, page, f"{page}/approve", ring="all") == 409
    assert registry.candidate(waiting[1].id).state == "waiting"
    assert post(client, page, f"{page}/approve", ring="all", champion_changed="true") == 303
    assert "although the champion had changed" in client.get(page).text


@pytest.mark.parametrize("name", ["vera", "otto"])
def test_only_an_approver_decides(
    client: TestClient, registry: Registry, coordinator: Coordinator, name: str
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, name)
    for address, fields in (
        (f"/page/candidates/{waiting.id}/approve", {"ring": "all"}),
        (f"/page/candidates/{waiting.id}/refuse", {"reason": "no"}),
        ("/page/releases/1/hold", {}),
        ("/page/releases/1/rollout", {"ring": "all"}),
        ("/page/releases/1/roll-back", {"reason": "x", "confirmation": "v1"}),
    ):
        assert post(client, "/page/releases", address, **fields) == 403
    assert "Approve" not in client.get(f"/page/candidates/{waiting.id}").text
    assert registry.candidate(waiting.id).state == "waiting"


def test_a_site_that_has_failed_since_is_not_shown_as_accepted(
    services: CoordinatorServices, registry: Registry, coordinator: Coordinator
) -> None:
    campaign = running_campaign(coordinator, registry)
    registry.start_round(campaign, 2, purpose="train", base_digest="1" * 64)
    registry.record_contribution(
        Contribution(campaign, 2, "north", 1, "failed", code="site-failed")
    )
    north, _ = site_views(services)
    assert north.last is not None
    assert (north.last.outcome, north.last.code) == ("failed", "site-failed")
    assert north.epsilon is not None, "what it has spent is in its last receipt"


def test_a_viewer_moves_no_campaign_and_an_operator_does(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    campaign = running_campaign(coordinator, registry)
    page = f"/page/campaigns/{campaign}"
    sign_in(client, "vera")
    assert post(client, page, f"{page}/pause") == 403
    sign_in(client, "otto")
    assert post(client, page, f"{page}/cancel", confirmation="yes") == 400
    assert post(client, page, f"{page}/pause") == 303
    assert registry.campaign(campaign).state == "pausing"
    assert post(client, page, f"{page}/cancel", confirmation="cancel") == 303
    assert registry.campaign(campaign).state == "cancelled"
    assert post(client, page, f"{page}/resume") == 409


def test_from_the_candidate_to_the_rollback_by_forms(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    sign_in(client, "anna")
    for seed in (1, 2):
        waiting = approve(coordinator, registry, seed, approved=False)
        page = f"/page/candidates/{waiting.id}"
        ring = {"ring": "all"} if seed == 1 else {"ring": "chosen", "site": ["north"]}
        assert post(client, page, f"{page}/approve", **ring) == 303
    assert coordinator.publisher.rollout(TASK).offered("north") == 2
    assert coordinator.publisher.rollout(TASK).offered("south") == 1
    page = "/page/releases/2"
    assert "north" in client.get(page).text
    assert post(client, page, f"{page}/rollout", ring="all") == 303
    assert coordinator.publisher.rollout(TASK).version == 2
    back = "/page/releases/1/roll-back"
    assert post(client, page, back, reason="worse", confirmation="v2") == 400
    assert post(client, page, back, reason="worse", confirmation="v1") == 303
    assert coordinator.publisher.manifest(3).lineage.restores == 1
    shown = client.get("/page/releases", params={"done": "rolled-back"}).text
    assert "those of v1" in shown
    assert "Rolled back" in shown
    assert "withdrawn" in shown
    assert "rolled-back" in client.get("/page/audit").text
    assert client.get("/page/releases/3").status_code == 200
    assert post(client, page, f"{page}/hold") == 409


def test_a_worse_candidate_shows_what_failed_and_offers_no_approval(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    worse = approve(coordinator, registry, 1, passed=False, approved=False)
    sign_in(client, "anna")
    page = f"/page/candidates/{worse.id}"
    shown = client.get(page).text
    assert "Refused by the gate: above-majority" in shown
    assert "Approve and publish" not in shown
    assert post(client, page, f"{page}/approve", ring="all") == 409
    assert coordinator.publisher.releases() == ()


def test_a_decision_that_cannot_be_published_now_is_recorded(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    (coordinator.metadata / "timestamp.json").rename(coordinator.metadata / "away")
    sign_in(client, "anna")
    page = f"/page/candidates/{waiting.id}"
    token = token_of(client.get(page))
    answer = client.post(f"{page}/approve", data={"token": token, "ring": "all"})
    assert answer.headers["location"] == "/page/releases?done=recorded"
    assert registry.candidate(waiting.id).state == "approved"


def test_what_people_typed_is_text_on_the_page(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, "anna")
    page = f"/page/candidates/{waiting.id}"
    script = "<script>alert(1)</script>"
    assert post(client, page, f"{page}/refuse", reason=script) == 303
    for address in (page, "/page/releases"):
        assert script not in client.get(address).text
        assert "&lt;script&gt;" in client.get(address).text
    strange = client.get("/page/campaigns/%3Cscript%3E")
    assert strange.status_code == 404
    assert "<script>" not in strange.text


def test_scripts_read_with_a_token_of_a_role(client: TestClient, registry: Registry) -> None:
    headers = bearer(registry)
    assert client.get("/campaigns").status_code == 401
    assert client.get("/campaigns").headers["www-authenticate"] == "Bearer"
    assert client.get("/campaigns", headers=headers).json() == []
    assert "/releases" in client.get("/openapi.json", headers=headers).json()["paths"]
    registry.accounts.disable("script-viewer", by="anna")
    assert client.get("/campaigns", headers=headers).status_code == 401


def test_a_disabled_account_is_out_at_once(client: TestClient, registry: Registry) -> None:
    sign_in(client, "vera")
    assert client.get("/page/sites").status_code == 200
    registry.accounts.disable("vera", by="anna")
    assert client.get("/page/sites").status_code == 303
    assert sign_in(client, "vera").status_code == 401


def test_sites_are_seen_by_what_they_ask(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    coordinator.publish(1)
    for site, release in (("north", "7"), ("../x", "1"), ("south", "x"), ("stranger", "3")):
        headers = {"Wardround-Site": site, "Wardround-Release": release}
        assert client.get("/releases/metadata/timestamp.json", headers=headers).status_code == 200
    sign_in(client, "vera")
    text = client.get("/page/sites").text
    assert "v7" in text
    assert text.count("● alive") == 2
    assert "stranger" not in text


def test_a_page_hears_of_changes_and_of_its_sessions_end(
    services: CoordinatorServices, registry: Registry, coordinator: Coordinator
) -> None:
    from server.api.live import Pulse

    now = [0.0]
    pulse = Pulse(services, clock=lambda: now[0])
    first = pulse.value()
    approve(coordinator, registry, 1, approved=False)
    assert pulse.value() == first, "at most once a second"
    now[0] += 1
    second = pulse.value()
    assert second != first
    now[0] += 1
    assert pulse.value() == second
    services.presence.note("north", "1")
    now[0] += 1
    assert pulse.value() != second


def test_a_preflight_has_a_page_of_its_own_and_is_not_among_the_campaigns(
    client: TestClient, coordinator: Coordinator, registry: Registry
) -> None:
    trained = registry.campaign(running_campaign(coordinator, registry))
    asking = trained.settings.model_copy(update={"only_preflight": True})
    asks = registry.add_campaign(trained.recipe, asking, initial_digest="0" * 64)
    registry.record_forecasts(asks.id, [SiteForecast("north", "budget-exhausted", refuses=True)])
    sign_in(client, "vera")
    assert asks.id not in client.get("/page/campaigns").text
    assert asks.id in client.get("/page/campaigns?all=true").text
    page = client.get(f"/page/campaigns/{asks.id}").text
    assert f'<h1>Preflight <span class="id">{asks.id}' in page
    assert "budget-exhausted" in page
    assert "Round 0 of" not in page
    headers = bearer(registry)
    assert [c["id"] for c in client.get("/campaigns", headers=headers).json()] == [trained.id]
    listed = client.get("/campaigns?all=true", headers=headers).json()
    assert {c["id"]: c["kind"] for c in listed} == {asks.id: "preflight", trained.id: "training"}
