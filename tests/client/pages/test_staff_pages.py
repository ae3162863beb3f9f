"""Review, outcomes and hospital IT in a real browser, and axe-core over every page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect

from client.access.caller import Role
from client.pause import current_pause, resume
from client.review.room import Submission
from tests.chromium import NEEDS_CHROMIUM
from tests.client.pages.doors import as_caller
from tests.client.pages.visits import House, Visit, faults

pytestmark = NEEDS_CHROMIUM

Open = Callable[[str], Visit]


@pytest.fixture
def visiting(browser: Browser, house: House) -> Iterator[Open]:
    """Open pages, and see in the end that the browser had nothing to complain about."""
    opened: list[Visit] = []

    def open_page(path: str) -> Visit:
        opened.append(Visit.open(browser, house, path))
        return opened[-1]

    yield open_page
    for visit in opened:
        visit.close()
    assert [complaint for visit in opened for complaint in visit.complaints] == []


@contextmanager
def reader(house: House, name: str) -> Iterator[None]:
    with as_caller(house.app, Role.clinician, name=name):
        yield


def test_two_readers_by_keyboard_and_what_is_hidden_until_then(
    house: House, visiting: Open
) -> None:
    identifier = house.case()
    with reader(house, "anna"):
        visit = visiting(f"/review-queue?case={identifier}")
        page = visit.page
        page.get_by_label("Hide the model's answer").check()
        page.locator('input[value="unsure"]').focus()
        page.keyboard.press("c")
        expect(page.locator("#label")).to_be_focused()
        page.locator("#label").select_option("nv")
        page.get_by_role("button", name="Give this opinion").click()
        expect(page.locator("#opinion-status")).to_have_text("Your opinion is kept.")
        expect(page.locator("#case-state")).to_contain_text("waits for a second reader")
    with reader(house, "ben"):
        visit = visiting(f"/review-queue?case={identifier}")
        page = visit.page
        expect(page.locator("#opinions")).to_contain_text("anna said Melanocytic naevus (nv)")
        page.locator('input[value="agree"]').focus()
        page.keyboard.press("a")
        page.keyboard.press("Enter")
        expect(page.locator("#case-state")).to_contain_text("confirmed as Melanocytic naevus (nv)")
        visit.shoot("review")
    case = house.services.store.get(identifier)
    assert (case.status, case.label) == ("confirmed", "nv")


def test_a_case_that_changed_meanwhile_is_shown_anew_and_not_touched(
    house: House, visiting: Open
) -> None:
    identifier = house.case()
    with reader(house, "anna"):
        page = visiting(f"/review-queue?case={identifier}").page
        expect(page.locator("#case-state")).to_contain_text("not read yet")
        room, recipe = house.services.review, house.services.recipe()
        room.give(identifier, "ben", Submission("correct", "mel"), recipe)
        page.get_by_label("Correct it:").check()
        page.locator("#label").select_option("nv")
        page.get_by_role("button", name="Give this opinion").click()
        expect(page.locator("#opinion-status")).to_have_class("status failed")
        expect(page.locator("#opinions")).to_contain_text("ben said Melanoma (mel)")
        expect(page.locator("#opinions")).not_to_contain_text("anna")


def test_withdrawing_asks_for_the_word(house: House, visiting: Open) -> None:
    identifier = house.case("mel")
    page = visiting(f"/review-queue?case={identifier}").page
    page.get_by_text("Withdraw this case…").click()
    word = page.get_by_label("Type withdraw to confirm")
    word.fill("yes")
    page.get_by_role("button", name="Withdraw the case").click()
    assert house.services.store.get(identifier).status == "confirmed"
    word.fill("withdraw")
    page.get_by_role("button", name="Withdraw the case").click()
    expect(page.locator("#case-state")).to_contain_text("withdrawn")
    expect(page.locator("#case-image")).to_be_hidden()
    assert house.services.store.get(identifier).status == "withdrawn"


def test_hospital_it_pauses_and_resumes(house: House, visiting: Open) -> None:
    settings = house.services.settings
    visit = visiting("/it")
    page = visit.page
    page.get_by_text("Pause training…").click()
    page.get_by_label("Why").fill("a new scanner")
    page.get_by_role("button", name="Pause training", exact=True).click()
    expect(page.get_by_text("Paused by local")).to_contain_text("a new scanner")
    assert current_pause(settings) is not None
    visit.shoot("it-paused")
    page.get_by_role("button", name="Resume training").click()
    expect(page.get_by_text("answers rounds")).to_be_visible()
    assert current_pause(settings) is None
    resume(settings, by="test")


HELD = {
    **{"site": "st-elsewhere", "task": "dermoscopy", "serving": 1, "previous": 1, "waiting": 2},
    **{"pinned": False, "policy": {}, "answering": 1, "judging": None, "vouched_at": None},
    **{"stale": True, "refuses": False},
    "rows": [
        {
            **{"version": 2, "model_digest": "e" * 64, "state": "held", "by": "policy"},
            **{"reason": "worse", "at": "2026-11-21T12:00:00Z"},
            "figures": {
                **{"beside": 1, "patients": 61, "positives": 14, "auroc": 0.78},
                **{"auroc_beside": 0.83, "auroc_lower": -0.09, "auroc_upper": -0.01},
                **{"sensitivity": 0.71, "sensitivity_beside": 0.86},
                **{"sensitivity_lower": -0.3, "sensitivity_upper": 0.0},
            },
        },
        {
            **{"version": 1, "model_digest": "d" * 64, "state": "serving", "by": "policy"},
            **{"reason": "first", "at": "2026-11-01T12:00:00Z", "figures": None},
        },
    ],
}


def test_a_held_release_is_shown_with_its_figures_and_decided(house: House, visiting: Open) -> None:
    visit = visiting("/it")
    page = visit.page
    sent: list[str] = []
    page.route("**/releases", lambda route: route.fulfill(json=HELD))
    page.route(
        "**/releases/2/*", lambda route: (sent.append(route.request.url), route.fulfill(json=HELD))
    )
    page.reload()
    expect(page.locator("#releases")).to_contain_text("held: waits for you")
    expect(page.locator("#releases")).to_contain_text("On 61 held-out patients here")
    visit.shoot("it-held")
    page.get_by_text("Accept version 2…").click()
    assert sent == []
    with page.expect_request("**/releases/2/accept"):
        page.get_by_role("button", name="Accept it").click()
    expect(page.get_by_text("Accept version 2…")).to_be_visible()
    assert sent == [f"{house.url}/releases/2/accept"]


def test_axe_finds_nothing_on_any_page_and_nothing_scrolls_sideways(
    house: House, browser: Browser
) -> None:
    identifier = house.case("bcc")
    house.case()
    found: list[str] = []
    visit = Visit.open(browser, house, axe=True)
    page = visit.page
    for path in ("/", f"/review-queue?case={identifier}", "/outcomes", "/it", "/model-version"):
        page.goto(house.url + path)
        if path == "/":
            visit.choose(house.fresh_picture())
            expect(page.locator("#why-controls")).to_be_visible()
        page.wait_for_load_state("networkidle")
        for details in page.locator("details").all():
            details.evaluate("part => { part.open = true }")
        found += faults(page, path)
    with as_caller(house.app, Role.it):
        page.goto(f"{house.url}/outcomes")
        expect(page.get_by_role("heading", name="Not for this account")).to_be_visible()
        expect(page.locator("#model, #alarms")).to_have_count(0)
        found += faults(page, "forbidden")
    visit.close()
    assert not found, "\n".join(found)
