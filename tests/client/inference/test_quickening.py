import gc
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

from client.inference.engine import InferenceEngine
from client.inference.graphs import GraphStore
from client.inference.quickening import Quickener
from client.releases.cache import LocalRelease
from common.errors import ModelError, ReleaseError
from common.recipe import Recipe
from tests.client.inference.graph_files import graph_of
from tests.client.serving import release

CPU = torch.device("cpu")


def load(local: LocalRelease) -> InferenceEngine:
    return InferenceEngine.load(local, device=CPU)


class NoGraphs(GraphStore):
    """A store that cannot make a graph."""

    def make(self, recipe: Recipe, *, seconds: float = 0.0) -> Path:
        raise ModelError("no disk", code="graph-export")


class SlowGraphs(GraphStore):
    """A store whose graph is made when the test says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked, self.made = threading.Event(), threading.Event()

    def make(self, recipe: Recipe, *, seconds: float = 0.0) -> Path:
        self.asked.set()
        assert self.made.wait(10)
        return Path("graph.onnx")


def test_with_a_graph_the_first_answer_is_onnx_runtimes(
    tmp_path: Path,
    graphs: GraphStore,
) -> None:
    graph_of(graphs)
    quickener = Quickener(load, graphs)
    assert quickener.load(release(tmp_path, 1)).runtime == "onnxruntime"
    assert quickener.alarms() == ()


def test_without_one_torch_answers_until_it_is_made(tmp_path: Path) -> None:
    quickener = Quickener(load, GraphStore(tmp_path / "graphs"))
    engine = quickener.load(release(tmp_path, 1))
    assert engine.runtime == "torch"
    deadline = time.monotonic() + 120
    while engine.runtime == "torch" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.runtime == "onnxruntime"
    quickener.close()


def test_a_graph_that_cannot_be_made_costs_speed_and_is_told(tmp_path: Path) -> None:
    quickener = Quickener(load, NoGraphs(tmp_path / "graphs"))
    engine = quickener.load(release(tmp_path, 1))
    quickener.close()
    assert engine.runtime == "torch"
    assert [alarm.code for alarm in quickener.alarms()] == ["graph-export"]


def test_a_damaged_graph_costs_speed_and_is_told(tmp_path: Path, graphs: GraphStore) -> None:
    store = GraphStore(tmp_path / "graphs")
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / graph_of(graphs).name).write_bytes(b"no graph")
    quickener = Quickener(load, store)
    assert quickener.load(release(tmp_path, 1)).runtime == "torch"
    assert [alarm.code for alarm in quickener.alarms()] == ["graph-weights"]


def test_a_network_that_was_swapped_out_is_not_kept(tmp_path: Path) -> None:
    store = SlowGraphs(tmp_path / "graphs")
    quickener = Quickener(load, store)
    engine = quickener.load(release(tmp_path, 1))
    assert store.asked.wait(10)
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    store.made.set()
    quickener.close()
    assert quickener.alarms() == ()


def test_what_torch_cannot_load_is_no_release(tmp_path: Path, graphs: GraphStore) -> None:
    local = release(tmp_path, 1)
    local.path.write_bytes(b"damaged")
    with pytest.raises(ReleaseError):
        Quickener(load, graphs).load(local)
