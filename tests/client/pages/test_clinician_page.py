"""The clinician's page in a real browser: from the image to the confirmed row."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from client.api.services import Services
from client.main import make_app
from common.errors import ModelError
from tests.client.serving import (
    FakeReleases,
    listening,
    picture,
    release,
    site_settings,
)

CHROMIUM = os.environ.get("WARDROUND_CHROMIUM") or shutil.which("chromium")
SCREENSHOTS = os.environ.get("WARDROUND_SCREENSHOTS")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH nor in WARDROUND_CHROMIUM"),
]


@dataclass
class Visit:
    """One open page, the service behind it, and what the browser complained about."""

    page: Page
    url: str
    services: Services
    releases: FakeReleases
    folder: Path
    complaints: list[str] = field(default_factory=list)

    def choose(self, image: bytes, name: str = "MRN-4711 Doe.png") -> None:
        files = [{"name": name, "mimeType": "image/png", "buffer": image}]
        self.page.locator("#file").set_input_files(files)  # type: ignore[arg-type]

    def shoot(self, name: str) -> None:
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--headless"]
        )
        yield launched
        launched.close()


@pytest.fixture(params=[1280])
def visit(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    releases = FakeReleases(release(tmp_path, 1))
    app = make_app(site_settings(tmp_path, maximum_upload_bytes=1_000_000), releases=releases)
    with listening(app.state.services.settings, app) as url:
        context = browser.new_context(viewport={"width": request.param, "height": 800})
        page = context.new_page()
        opened = Visit(page, url, app.state.services, releases, tmp_path)
        page.on("console", lambda message: opened.complaints.append(message.text))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("request", lambda sent: _own(opened, sent.url))
        page.goto(url)
        yield opened
        context.close()


def _own(visit: Visit, url: str) -> None:
    if not url.startswith((visit.url, "blob:")):
        visit.complaints.append(f"fetched from elsewhere: {url}")


@pytest.mark.parametrize("visit", [1280, 390], indirect=True)
def test_from_the_image_to_the_confirmed_row(visit: Visit) -> None:
    page = visit.page
    width = page.viewport_size["width"] if page.viewport_size else 0
    visit.shoot(f"{width}-empty")
    visit.choose(picture(1, size=(400, 300)))
    expect(page.locator("#reading-status")).to_contain_text("The image was read")
    expect(page.locator("#preview")).to_be_visible()
    assert page.evaluate("document.querySelector('#preview').naturalWidth") == 400
    rows = page.locator("#classes tr")
    assert rows.count() == 7
    shown = [float(row.split()[-2]) for row in rows.all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    assert sum(shown) == pytest.approx(100, abs=0.5)
    expect(page.locator("#verdict-word")).to_have_text("Positive")
    expect(page.locator("#verdict-reason")).to_contain_text("threshold of 30.0 %")
    digest = visit.services.holder.require().digest
    expect(page.locator("#reading-version")).to_have_text(f"1 ({digest[:12]})")
    assert page.locator("#classes .dot").count() == 3

    page.get_by_label("Patient number").fill("MRN-4711")
    page.get_by_label("Age (optional)").fill("57")
    page.get_by_role("button", name="Store as a case").click()
    expect(page.locator("#case-status")).to_contain_text("Stored")
    expect(page.get_by_label("What does the image show?")).to_be_focused()
    visit.shoot(f"{width}-stored")
    (waiting,) = visit.services.store.waiting_cases("dermoscopy")
    page.get_by_label("What does the image show?").select_option("mel")
    page.get_by_role("button", name="Confirm the label").click()
    expect(page.locator("#case-status")).to_contain_text("confirmed as mel")
    row = visit.services.store.get(waiting.id)
    assert (row.status, row.label, row.age_band) == ("confirmed", "mel", "50-59")
    visit.shoot(f"{width}-confirmed")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.complaints == []


def test_another_image_starts_from_nothing(visit: Visit) -> None:
    page = visit.page
    visit.choose(picture(1))
    expect(page.locator("#reading")).to_be_visible()
    page.get_by_label("Patient number").fill("MRN-1")
    page.get_by_role("button", name="Store as a case").click()
    expect(page.locator("#case-status")).to_contain_text("Stored")
    visit.choose(b"no image at all", "notes.png")
    expect(page.locator("#reading-status")).to_contain_text("image")
    expect(page.locator("#reading-status")).to_have_class("status failed")
    expect(page.locator("#reading")).to_be_hidden()
    expect(page.get_by_label("Patient number")).to_have_value("")
    expect(page.locator("#label")).to_be_disabled()
    visit.shoot("refused")


def test_an_image_above_the_limit_is_not_sent(visit: Visit) -> None:
    sent: list[str] = []
    visit.page.on("request", lambda request: sent.append(request.url))
    visit.choose(bytes(1_000_001))
    expect(visit.page.locator("#reading-status")).to_contain_text("larger than")
    assert not [url for url in sent if url.endswith("/predict")]


def test_a_dropped_image_is_read(visit: Visit) -> None:
    script = """async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 50, height: 50 });
      canvas.getContext("2d").fillRect(5, 5, 20, 20);
      const blob = await new Promise((done) => canvas.toBlob(done));
      const files = new DataTransfer();
      files.items.add(new File([blob], "x.png", { type: "image/png" }));
      document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
    }"""
    visit.page.evaluate(script)
    expect(visit.page.locator("#reading")).to_be_visible()
    assert visit.complaints == []


def test_the_keyboard_alone_reaches_everything(visit: Visit) -> None:
    page = visit.page
    # Asked for well before the key, or the browser may open a dialog of its own instead.
    page.on("filechooser", lambda _: None)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    path = visit.folder / "chosen.png"
    path.write_bytes(picture(2))
    chooser.value.set_files(path)
    expect(page.locator("#reading")).to_be_visible()
    page.locator("#file").focus()
    for reached in ("summary", "#patient", "#age", "#sex"):
        page.keyboard.press("Tab")
        expect(page.locator(reached)).to_be_focused()
    page.locator("#patient").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#case-status")).to_contain_text("Stored")


def test_a_new_release_and_an_alarm_show_without_reloading(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit.page
    expect(page.locator("#model")).to_contain_text("Model version 1")
    visit.releases.published.append(release(visit.folder, 2, favours="nv"))
    visit.services.watcher.poll()
    bad = release(visit.folder, 3)

    def unloadable(_self: object) -> object:
        raise ModelError("The weights do not fit.", code="model-mismatch")

    with monkeypatch.context() as patch:
        patch.setattr(type(bad), "load", unloadable)
        visit.releases.published.append(bad)
        visit.services.watcher.poll()
    visit.choose(picture(1))
    expect(page.locator("#verdict-word")).to_have_text("Negative")
    expect(page.locator("#model")).to_contain_text("Model version 2")
    expect(page.locator("#alarms")).to_contain_text("The weights do not fit.")
    visit.shoot("negative-alarm")
    assert visit.complaints == []


def test_the_browser_really_enforces_the_policy(visit: Visit) -> None:
    """The absence of complaints above means something only if a breach would give one."""
    script = "document.body.append(Object.assign(document.createElement('img'), {src: 'data:,x'}))"
    visit.page.evaluate(script)
    visit.page.wait_for_timeout(0)
    expect(visit.page.locator("body > img")).to_have_count(1)
    assert any("Content Security Policy" in text for text in visit.complaints)
