"""The coordinator's pages in Chromium: axe-core finds nothing, and the keyboard is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from server.publishing.service import follow_registry
from tests.chromium import NEEDS_CHROMIUM, SCREENSHOTS
from tests.releases import approve
from tests.server.api.serving import Service
from tests.server.signed_in import PASSWORD
from tests.server.test_api_coordinator import running_campaign

WIDTHS = (1280, 390)
MOST_TABS = 40

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    expect.set_options(timeout=30_000)
    opened = browser.new_context(ignore_https_errors=True, bypass_csp=True)
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


def faults(page: Page, name: str) -> list[str]:
    """Return what axe-core finds, and whatever sticks out to the side, at both widths."""
    found: list[str] = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 860})
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"{name} at {width}: scrolls sideways")
        for fault in Axe().run(page).response["violations"]:
            nodes = [node["html"][:120] for node in fault["nodes"][:3]]
            found.append(f"{name} at {width}: {fault['id']} ({fault['impact']}): {nodes}")
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{width}.png", full_page=True)
    return found


def sign_in(page: Page, address: str) -> None:
    page.goto(f"{address}/sign-in")
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Sites")).to_be_visible()


def test_axe_finds_nothing_on_any_page_and_nothing_scrolls_sideways(
    service: Service, context: BrowserContext
) -> None:
    registry = service.services.registry
    campaign = running_campaign(service.coordinator, registry)
    waiting = registry.candidates(campaign=campaign)[0].id
    approve(service.coordinator, registry, 6)
    models = service.services.settings.models
    follow_registry(service.services.publisher, registry, models)
    address, page = f"https://localhost:{service.port}", context.new_page()
    page.goto(f"{address}/sign-in")
    found = faults(page, "sign-in")
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found += faults(page, "sign-in-refused")
    sign_in(page, address)
    pages = {
        **{"sites": "sites", "campaigns": "campaigns", "campaign": f"campaigns/{campaign}"},
        **{"releases": "releases", "candidate": f"candidates/{waiting}", "audit": "audit"},
        "not-found": "candidates/none",
    }
    for name, path in pages.items():
        page.goto(f"{address}/page/{path}")
        for details in page.locator("details").all():
            details.evaluate("part => { part.open = true }")
        found += faults(page, name)
    assert not found, "\n".join(found)


def tab_to(page: Page, wanted: str) -> None:
    """Press Tab until the focus is on something of that name, seen on the way to be visible."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        name, seen = page.evaluate(
            """() => {
                const at = document.activeElement;
                const label = at.labels && at.labels.length ? at.labels[0].innerText : "";
                const box = at.getBoundingClientRect();
                const style = getComputedStyle(at);
                const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
                return [(label || at.innerText || at.value || "").trim(), box.width > 0 && ring];
            }"""
        )
        assert seen, f"{name!r} has the focus and does not show it"
        if name == wanted:
            return
    raise AssertionError(f"the keyboard never reaches {wanted!r}")


def test_a_candidate_is_approved_without_a_mouse(service: Service, context: BrowserContext) -> None:
    registry = service.services.registry
    made = approve(service.coordinator, registry, 7, approved=False)
    page = context.new_page()
    page.goto(f"https://localhost:{service.port}/")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("anna")
    tab_to(page, "Password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sites")).to_be_visible()
    page.keyboard.press("Tab")  # the first stop leads past the menu
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.reload()
    tab_to(page, "Releases")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Releases", exact=True)).to_be_visible()
    link = page.locator(f'a[href="/page/candidates/{made.id}"]').first
    tab_to(page, link.inner_text().strip())
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Candidate")).to_be_visible()
    tab_to(page, "Every site")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    tab_to(page, "Approve and publish")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Approved")
    assert registry.candidate(made.id).decided_by == "anna"
