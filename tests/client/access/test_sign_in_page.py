"""The sign-in page in a real browser: its cookie and its origin are what the service wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from client.access.roles import Role
from client.main import make_app
from tests.chromium import NEEDS_CHROMIUM, launched
from tests.client.access.conftest import PASSWORD
from tests.client.pages.visits import faults
from tests.client.serving import FakeReleases, listening, site_settings

pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    site = site_settings(tmp_path)
    app = make_app(site, releases=FakeReleases())
    app.state.services.access.people.add("anna", [Role.auditor], password=PASSWORD)
    with listening(site, app) as url, launched() as browser:
        opened = browser.new_context(bypass_csp=True).new_page()  # for axe-core
        opened.goto(f"{url}/outcomes")
        yield opened


def test_a_person_signs_in_comes_back_and_signs_out(page: Page) -> None:
    assert "/sign-in?next=%2Foutcomes" in page.url
    assert faults(page, "sign-in") == []
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/outcomes")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.context.cookies() == []
