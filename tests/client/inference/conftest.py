"""ONNX graphs of the small network, made once a test run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from client.inference.graphs import GraphStore


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphStore]:
    """A store that all workers share, closed at the end: each graph takes ten seconds to make."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    store = GraphStore(base / "graphs")
    yield store
    store.close()
