"""ONNX graphs of the small network, made once a test run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.inference.graphs import GraphStore


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphStore]:
    """A store, closed at the end."""
    store = GraphStore(tmp_path_factory.mktemp("graphs"))
    yield store
    store.close()


def graph_of(store: GraphStore) -> Path:
    """Return the graph of the tests' recipe, made if need be."""
    from tests.client.serving import RECIPE

    return store.make(RECIPE)
