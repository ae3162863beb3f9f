"""A served site, as the tests of the HTTP interface have it, and one that a browser visits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from client.main import make_app
from tests.chromium import launched
from tests.client.api.conftest import (  # noqa: F401 - pytest finds fixtures by name
    kit,
    melanoma,
    settings,
    site,
)
from tests.client.pages.visits import House, Visit
from tests.client.serving import FakeReleases, listening, release, site_settings


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)
    with launched() as opened:
        yield opened


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One site for a module's tests: two readers must agree there."""
    folder = tmp_path_factory.mktemp("house")
    releases = FakeReleases(release(folder, 1, favours="mel"))
    made = site_settings(folder, maximum_upload_bytes=1_000_000, review={"readers": 2})
    app = make_app(made, releases=releases)
    with listening(app.state.services.settings, app) as url:
        yield House(url, app, app.state.services, releases, folder)


@pytest.fixture
def visit(browser: Browser, house: House) -> Iterator[Visit]:
    """The clinician's page."""
    opened = Visit.open(browser, house)
    yield opened
    opened.close()
