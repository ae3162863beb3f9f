"""An empty case store, on either database."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cases.store import CaseStore
from tests.client.stores import open_store


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> CaseStore:
    return open_store(tmp_path / "site", database_url=database_url)
