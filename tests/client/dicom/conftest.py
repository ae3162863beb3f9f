"""A PACS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.dicom.pacs import FakePacs, fake_pacs


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with fake_pacs() as made:
        yield made
