"""Debian's Chromium, for tests of pages; without one they skip, and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = os.environ.get("WARDROUND_CHROMIUM") or shutil.which("chromium")
SCREENSHOTS = os.environ.get("WARDROUND_SCREENSHOTS")
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH nor in WARDROUND_CHROMIUM"),
]


@contextmanager
def launched() -> Iterator[Browser]:
    """Start it without a window, and close it at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--headless"]
        )
        yield browser
        browser.close()
