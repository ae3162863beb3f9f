"""An empty case store."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cases.store import CaseStore
from tests.client.stores import open_store


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    return open_store(tmp_path / "site")
