"""Hospital IT's page while it is open: it takes over what changed, or says that it did not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from client.pause import pause, resume
from client.status.reader import KEPT_SECONDS
from tests.chromium import NEEDS_CHROMIUM
from tests.client.pages.visits import House, Visit

pytestmark = NEEDS_CHROMIUM

INTERVAL = 31_000
PAUSED = "Paused by it-anna"


@pytest.fixture
def page(browser: Browser, house: House) -> Iterator[Page]:
    expect.set_options(timeout=30_000)
    visit = Visit.open(browser, house, "/it")
    visit.page.clock.install()
    visit.page.reload()
    expect(visit.page.get_by_text("answers rounds")).to_be_visible()
    yield visit.page
    visit.close()
    resume(house.services.settings, by="test")
    time.sleep(KEPT_SECONDS + 0.2)


@pytest.fixture
def switch(house: House) -> Callable[[bool], None]:
    """Pause training or let it go on, as the command does, and wait until the service sees it."""

    def turn(on: bool) -> None:
        settings = house.services.settings
        if on:
            pause(settings, by="it-anna", reason="a new scanner")
        else:
            resume(settings, by="test")
        time.sleep(KEPT_SECONDS + 0.2)

    return turn


def test_a_part_that_somebody_only_clicked_in_is_renewed_and_keeps_its_focus(
    page: Page, switch: Callable[[bool], None]
) -> None:
    for _ in range(2):  # opened, and closed again
        page.get_by_text("Pause training…").click()
    switch(True)
    page.clock.fast_forward(INTERVAL)
    expect(page.get_by_text(PAUSED)).to_be_visible()
    button = page.get_by_role("button", name="Resume training")
    button.focus()
    button.evaluate("part => { part.dataset.old = 'yes' }")
    page.clock.fast_forward(INTERVAL)
    expect(page.locator("[data-old]")).to_have_count(0)
    expect(button).to_be_focused()


def test_an_open_form_is_left_alone_and_the_page_says_so_and_catches_up(
    page: Page, switch: Callable[[bool], None]
) -> None:
    page.get_by_text("Pause training…").click()
    page.get_by_label("Why").fill("half a reas")
    switch(True)
    page.clock.fast_forward(INTERVAL)
    expect(page.locator("#live-status")).to_contain_text("waits until")
    expect(page.get_by_label("Why")).to_have_value("half a reas")
    page.get_by_text("Pause training…").click()
    expect(page.get_by_text(PAUSED)).to_be_visible()
    expect(page.locator("#live-status")).to_contain_text("Read at")


def test_a_page_that_cannot_be_read_anew_says_so_and_tries_again(
    page: Page, switch: Callable[[bool], None]
) -> None:
    page.route("**/it", lambda route: route.fulfill(status=503, body="{}"))
    switch(True)
    page.clock.fast_forward(INTERVAL)
    expect(page.locator("#live-status")).to_contain_text("Not up to date")
    page.unroute("**/it")
    page.clock.fast_forward(INTERVAL)
    expect(page.get_by_text(PAUSED)).to_be_visible()
    expect(page.locator("#live-status")).to_contain_text("Read at")
