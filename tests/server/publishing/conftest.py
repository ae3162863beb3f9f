"""A TUF client that looks on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.releases import Coordinator
from tests.server.publishing.onlooker import Onlooker


@pytest.fixture
def onlooker(coordinator: Coordinator, tmp_path: Path) -> Onlooker:
    return Onlooker(coordinator, tmp_path / "onlooker")
