"""ONNX graphs of the small network; the fixture ``graphs`` is where they are kept."""

from __future__ import annotations

from pathlib import Path

from client.inference.graphs import GraphStore
from tests.client.serving import RECIPE


def graph_of(store: GraphStore) -> Path:
    """Return the graph of the tests' recipe, made if need be."""
    return store.make(RECIPE)
