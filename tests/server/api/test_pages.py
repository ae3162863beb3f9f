"""The coordinator's page: nothing without an account, and what each part of it shows."""

from __future__ import annotations

import re

from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from common.records import Forecast
from server.api import campaigns, decisions, health, releases
from server.api import pages as page_routes
from server.api import sign_in as sign_in_routes
from server.api.services import CoordinatorServices
from server.pages.views import site_views
from server.registry.records import Contribution, SiteForecast
from server.registry.registry import Registry
from server.registry.site_history import LifeSpent
from tests.releases import Coordinator, approve
from tests.server.signed_in import bearer, sign_in
from tests.server.test_api_coordinator import receipt, running_campaign

OPEN = {
    "/releases/metadata/{name}",
    "/releases/targets/{name:path}",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/sign-in",
}


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
    assert north.spent is not None, "what it has spent is in its last receipt"


def test_a_site_shows_what_it_spent_in_an_older_campaign_that_ran_longer(
    services: CoordinatorServices, registry: Registry, coordinator: Coordinator
) -> None:
    older = running_campaign(coordinator, registry)
    same = registry.campaign(older)
    newer = registry.add_campaign(same.recipe, same.settings, initial_digest="0" * 64).id
    registry.start_campaign(newer)
    for campaign, number, life in ((newer, 2, 20.0), (older, 2, 25.0), (older, 3, 30.5)):
        told = receipt(campaign).model_copy(update={"round": number, "epsilon_life": life})
        registry.start_round(campaign, number, purpose="train", base_digest="0" * 64)
        registry.record_contribution(
            Contribution(campaign, number, "north", 1, "accepted", receipt=told)
        )
    north, south = site_views(services)
    assert north.spent == LifeSpent(30.5, told.delta)
    assert north.last is not None
    assert (north.last.campaign, north.last.round) == (older, 3)
    assert south.spent is None


def test_a_site_that_trained_without_privacy_has_no_figure_that_bounds_its_life(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    campaign = running_campaign(coordinator, registry)
    sign_in(client, "vera")
    assert "2.50" in client.get("/page/sites").text
    told = receipt(campaign).model_copy(update={"round": 2, "epsilon_life": None})
    registry.start_round(campaign, 2, purpose="train", base_digest="0" * 64)
    registry.record_contribution(Contribution(campaign, 2, "north", 1, "accepted", receipt=told))
    shown = client.get("/page/sites").text
    assert "unbounded" in shown
    assert "2.50" not in shown


def test_a_campaign_claims_no_bound_over_the_life_of_a_site_that_states_none(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    campaign = running_campaign(coordinator, registry)
    forecast = Forecast(
        site="north",
        campaign=campaign,
        nonce="1" * 64,
        rounds=3,
        affordable=True,
        noise_multiplier=1.1,
        epsilon_round=0.5,
        epsilon_campaign=1.5,
    )
    registry.record_forecasts(campaign, [SiteForecast("north", forecast=forecast)])
    sign_in(client, "vera")
    address = f"/page/campaigns/{campaign}"
    assert client.get(address).text.count("unbounded") == 1  # before it
    told = receipt(campaign).model_copy(update={"round": 2, "epsilon_life": None})
    registry.start_round(campaign, 2, purpose="train", base_digest="0" * 64)
    registry.record_contribution(Contribution(campaign, 2, "north", 1, "accepted", receipt=told))
    assert client.get(address).text.count("unbounded") == 2  # and by its receipt


def test_a_round_that_was_lost_is_explained(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    campaign = running_campaign(coordinator, registry)
    registry.start_round(campaign, 2, purpose="train", base_digest="1" * 64)
    told = Contribution(campaign, 2, "north", 1, "refused", code="training-lost")
    registry.record_contribution(told)
    registry.end_round(campaign, 2, state="failed", aggregate_digest="1" * 64)
    sign_in(client, "vera")
    shown = client.get(f"/page/campaigns/{campaign}").text
    assert "<code>round-lost</code>" in shown
    assert "The round is over without a step" in shown


def test_scripts_read_with_a_token_of_a_role(client: TestClient, registry: Registry) -> None:
    headers = bearer(registry)
    assert client.get("/campaigns").status_code == 401
    assert client.get("/campaigns").headers["www-authenticate"] == "Bearer"
    assert client.get("/campaigns", headers=headers).json() == []
    assert "/releases" in client.get("/openapi.json", headers=headers).json()["paths"]
    registry.accounts.disable("script-viewer", by="anna")
    assert client.get("/campaigns", headers=headers).status_code == 401


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
