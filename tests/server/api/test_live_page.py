"""An open page in Chromium: it takes over what changed, and where it did not, it says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from server.registry.records import Contribution, SiteForecast
from server.registry.registry import Registry
from tests.chromium import NEEDS_CHROMIUM
from tests.releases import approve
from tests.server.api.serving import Service
from tests.server.signed_in import PASSWORD, account

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def registry(service: Service) -> Registry:
    return service.services.registry


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    expect.set_options(timeout=30_000)
    context = browser.new_context(
        ignore_https_errors=True, base_url=f"https://localhost:{service.port}"
    )
    context.set_default_timeout(30_000)
    opened = context.new_page()
    opened.goto("/sign-in")
    opened.get_by_label("Name").fill("anna")
    opened.get_by_label("Password").fill(PASSWORD)
    opened.get_by_role("button", name="Sign in").click()
    expect(opened.get_by_role("heading", name="Sites")).to_be_visible()
    yield opened
    context.close()


def listening(page: Page, address: str) -> None:
    """Open a page, and wait until it hears of changes."""
    with page.expect_response("**/page/live*"):
        page.goto(address)


def campaign(service: Service, seed: int) -> str:
    registry = service.services.registry
    made = approve(service.coordinator, registry, seed, approved=False).campaign
    registry.start_campaign(made)
    answered(registry, made, 1)
    return made


def answered(registry: Registry, campaign: str, number: int) -> None:
    registry.start_round(campaign, number, purpose="train", base_digest="0" * 64)
    registry.record_contribution(
        Contribution(campaign, number, "north", 1, "refused", code="budget")
    )


def test_a_part_in_which_nobody_types_is_renewed_and_keeps_its_focus(
    service: Service, registry: Registry, page: Page
) -> None:
    found = campaign(service, 1)
    listening(page, f"/page/campaigns/{found}")
    page.locator("#answers summary").click()
    rows = page.locator("#answers tbody tr")
    expect(rows).to_have_count(1)
    answered(registry, found, 2)
    expect(rows).to_have_count(2)
    expect(rows.last).to_be_visible()  # it is open still
    expect(page.locator("#answers summary")).to_be_focused()
    expect(page.locator("#live-status")).to_contain_text("Up to date at")


def test_a_part_in_which_somebody_types_waits_and_then_catches_up(
    service: Service, registry: Registry, page: Page
) -> None:
    found = campaign(service, 2)
    listening(page, f"/page/campaigns/{found}")
    page.evaluate("document.getElementById('answers').prepend(document.createElement('textarea'))")
    page.locator("#answers textarea").fill("half a sen")
    answered(registry, found, 2)
    expect(page.locator("#live-status")).to_contain_text("waits until nobody types")
    expect(page.locator("#answers textarea")).to_have_value("half a sen")
    expect(page.locator("#answers tbody tr")).to_have_count(1)
    page.locator("#answers textarea").blur()
    expect(page.locator("#answers tbody tr")).to_have_count(2)
    expect(page.locator("#live-status")).to_contain_text("Up to date at")


@pytest.mark.parametrize("how", ["refused", "unreachable", "unanswered"])
def test_a_page_that_could_not_be_read_anew_says_so_and_tries_again(
    service: Service, registry: Registry, page: Page, how: str
) -> None:
    found = campaign(service, 10 + len(how))
    listening(page, "/page/campaigns")
    state = page.locator("#campaigns tr").filter(has_text=found).locator("[data-label=State]")
    expect(state).to_have_text("running")
    tries: list[Route] = []

    def fail(route: Route) -> None:
        tries.append(route)
        if len(tries) > 1:
            route.continue_()
        elif how == "refused":
            route.fulfill(status=503, body="{}")
        elif how == "unreachable":
            route.abort()

    page.route("**/page/campaigns", fail)
    registry.moves.cancel(found)
    expect(page.locator("#live-status")).to_contain_text("Not up to date")
    expect(state).to_have_text("running")
    expect(state).to_have_text("cancelled")
    expect(page.locator("#live-status")).to_contain_text("Up to date at")
    assert len(tries) >= 2


def test_a_page_whose_stream_is_refused_says_so_and_opens_another(
    service: Service, registry: Registry, page: Page
) -> None:
    found = campaign(service, 4)
    tries: list[Route] = []

    def refuse(route: Route) -> None:
        tries.append(route)
        route.fulfill(status=429, body="{}") if len(tries) == 1 else route.continue_()

    page.route("**/page/live*", refuse)
    page.goto("/page/campaigns")
    expect(page.locator("#live-status")).to_contain_text("Not connected")
    registry.moves.cancel(found)
    state = page.locator("#campaigns tr").filter(has_text=found).locator("[data-label=State]")
    expect(state).to_have_text("cancelled")
    expect(page.locator("#live-status")).not_to_contain_text("Not connected")


def test_an_open_audit_page_shows_a_new_account(
    service: Service, registry: Registry, page: Page
) -> None:
    listening(page, "/page/audit")
    expect(page.locator("#audit")).not_to_contain_text("eve")
    account(registry, "eve", "approver")
    expect(page.locator("#audit")).to_contain_text("eve")


def test_what_the_sites_say_comes_to_an_open_page(
    service: Service, registry: Registry, page: Page
) -> None:
    found = campaign(service, 5)
    listening(page, f"/page/campaigns/{found}")
    registry.record_forecasts(found, [SiteForecast("north", "budget-exhausted", refuses=True)])
    page.locator("#preflight summary").click()
    expect(page.locator("#preflight")).to_contain_text("budget-exhausted")


def test_a_page_whose_forms_are_of_before_says_so(
    service: Service, registry: Registry, page: Page
) -> None:
    made = approve(service.coordinator, registry, 6, approved=False)
    listening(page, f"/page/candidates/{made.id}")
    page.get_by_label("Why").fill("half a reas")
    registry.rollouts.refuse(made.id, by="bob", reason="worse at north")
    expect(page.locator("#facts")).to_contain_text("worse at north")
    expect(page.locator("#live-status")).to_contain_text("load the page again")
    expect(page.get_by_label("Why")).to_have_value("half a reas")
