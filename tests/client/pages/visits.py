"""A real browser on a real service, for the tests of the pages."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, Page

from client.api.services import Services
from tests.chromium import SCREENSHOTS
from tests.client.serving import FakeReleases, picture

WIDTHS = (1280, 390)


@dataclass
class House:
    """A service that listens, with what its tests reach behind it."""

    url: str
    app: FastAPI
    services: Services
    releases: FakeReleases
    folder: Path
    used: int = 0

    def fresh_picture(self, *, size: tuple[int, int] = (320, 240)) -> bytes:
        """Return a picture that no other test has used."""
        self.used += 1
        return picture(self.used, size=size)

    def case(self, label: str | None = None, *, image: bytes | None = None) -> str:
        """Store a case, of a picture of its own unless one is given; return its id."""
        store = self.services.store
        task = self.services.settings.task
        made = store.add(
            image or self.fresh_picture(),
            task=task,
            patient_id=None,
            label=label,
            source="dicom",
        )
        return made.id


@dataclass
class Visit:
    """One open page, the service behind it, and what the browser complained about."""

    page: Page
    house: House
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, house: House, path: str = "/", *, axe: bool = False) -> Visit:
        """Open a page in a context of its own; ``axe`` lets axe-core be put into it."""
        context = browser.new_context(
            viewport={"width": 1280, "height": 860}, bypass_csp=axe or None
        )
        context.set_default_timeout(30_000)
        visit = cls(context.new_page(), house)
        visit.page.on("console", lambda message: visit._said(message.text))
        visit.page.on("response", lambda answer: visit._answered(answer.url, answer.status))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on("request", lambda sent: visit._own(sent.url))
        visit.page.goto(house.url + path)
        return visit

    def choose(self, image: bytes, name: str = "MRN-4711 Doe.png") -> None:
        """Choose an image as the file dialog does."""
        files = [{"name": name, "mimeType": "image/png", "buffer": image}]
        self.page.locator("#file").set_input_files(files)  # type: ignore[arg-type]

    def shoot(self, name: str) -> None:
        """Take pictures at a desk and on a phone; nothing may stick out to the side."""
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 860})
            assert self.page.evaluate("document.documentElement.scrollWidth") <= width, name
            if SCREENSHOTS:
                time.sleep(0.2)
                path = Path(SCREENSHOTS) / f"{name}-{width}.png"
                self.page.screenshot(path=path, full_page=True)
        self.page.set_viewport_size({"width": 1280, "height": 860})

    def close(self) -> None:
        """Close the page's context."""
        self.page.context.close()

    def _said(self, text: str) -> None:
        # A refusal is an answer like others; what failed stands in `_answered`.
        if not text.startswith("Failed to load resource"):
            self.complaints.append(text)

    def _answered(self, url: str, status: int) -> None:
        if status >= 500:
            self.complaints.append(f"{status} from {url}")

    def _own(self, url: str) -> None:
        if not url.startswith((self.house.url, "blob:")):
            self.complaints.append(f"fetched from elsewhere: {url}")


def faults(page: Page, name: str) -> list[str]:
    """Return what axe-core finds, and whatever sticks out to the side, at both widths."""
    found: list[str] = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 860})
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"{name} at {width}: scrolls sideways")
        for fault in Axe().run(page).response["violations"]:
            nodes = [node["html"][:160] for node in fault["nodes"][:3]]
            found.append(f"{name} at {width}: {fault['id']} ({fault['impact']}): {nodes}")
    page.set_viewport_size({"width": 1280, "height": 860})
    return found
