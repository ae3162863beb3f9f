import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from client.inference.engine import InferenceEngine
from client.inference.graphs import GraphStore, graph_key, with_weights
from client.inference.outputs import WithFeatures, probabilities_of
from client.inference.runtimes import OnnxRuntime, TorchRuntime, compared
from common.errors import ModelError
from common.model import build_model, state_tensors
from common.update import Tensors
from tests.client.inference.graph_files import graph_of
from tests.client.serving import RECIPE, release

CPU = torch.device("cpu")
SIDE = RECIPE.image.size


def noise(count: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def batch(count: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


def weights(seed: int) -> Tensors:
    return state_tensors(build_model(RECIPE, seed=seed))


def reference(seed: int) -> TorchRuntime:
    return TorchRuntime(WithFeatures(build_model(RECIPE, seed=seed).eval(), SIDE), CPU)


def test_each_releases_weights_answer_in_the_same_graph(
    tmp_path: Path,
    graphs: GraphStore,
) -> None:
    graph = graph_of(graphs)
    answers = []
    for version in (1, 2):
        engine = InferenceEngine.load(release(tmp_path, version), device=CPU)
        by_torch = engine.probabilities(noise())
        assert engine.runtime == "torch"
        engine.quicken(graph)
        assert engine.runtime == "onnxruntime"
        np.testing.assert_allclose(engine.probabilities(noise()), by_torch, atol=1e-6)
        answers.append(by_torch)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3, "the weights, not the graph, answer"


def test_a_graph_that_answers_differently_is_not_used(
    tmp_path: Path,
    graphs: GraphStore,
) -> None:
    graph = tmp_path / "other.onnx"
    model = onnx.load(str(graph_of(graphs)))
    negated = next(n for n in model.graph.node if n.op_type in ("Relu", "Sigmoid"))
    negated.op_type = "Tanh"
    onnx.save(model, str(graph))
    engine = InferenceEngine.load(release(tmp_path, 1), device=CPU)
    before = engine.probabilities(noise())
    with pytest.raises(ModelError) as refused:
        engine.quicken(graph)
    assert refused.value.code == "graph-differs"
    assert engine.runtime == "torch"
    np.testing.assert_array_equal(engine.probabilities(noise()), before)


def test_outputs_that_are_not_finite_are_no_agreement(graphs: GraphStore) -> None:
    tensors = {n: np.full_like(a, np.nan) if n.endswith("bias") else a
               for n, a in weights(1).items()}  # fmt: skip
    with pytest.raises(ModelError) as refused:
        compared(graph_of(graphs), tensors, reference(1), batch())
    assert refused.value.code == "graph-differs"


@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_a_damaged_graph_is_refused(tmp_path: Path, graphs: GraphStore, damage: str) -> None:
    path = tmp_path / "damaged.onnx"
    whole = graph_of(graphs).read_bytes()
    if damage != "missing":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"no graph" * 100)
    with pytest.raises(ModelError) as refused:
        compared(path, weights(1), reference(1), batch())
    assert refused.value.code == "graph-weights"


def test_weights_without_a_place_or_of_another_shape_are_refused(graphs: GraphStore) -> None:
    tensors = weights(1)
    name = next(iter(tensors))
    for wrong in (
        {**tensors, "another.weight": tensors[name]},
        {**tensors, name: np.zeros((1, 2), np.float32)},
        {**tensors, name: tensors[name].astype(np.float64)},
    ):
        with pytest.raises(ModelError) as refused:
            with_weights(graph_of(graphs), wrong)
        assert refused.value.code == "graph-weights"


def test_a_batch_of_any_size_is_answered(graphs: GraphStore) -> None:
    runtime = OnnxRuntime(with_weights(graph_of(graphs), weights(1)))
    for count in (1, 2, 7):
        expected = probabilities_of(reference(1).run(batch(count))[0])
        np.testing.assert_allclose(
            probabilities_of(runtime.run(batch(count))[0]), expected, atol=1e-6
        )


def test_images_of_another_size_are_an_error_of_ours(graphs: GraphStore) -> None:
    runtime = OnnxRuntime(with_weights(graph_of(graphs), weights(1)))
    with pytest.raises(ModelError) as refused:
        runtime.run(np.zeros((1, 4, 8, 8), np.float32))
    assert refused.value.code == "prediction-failed"


def kinds_as_run(graph: Path, folder: Path) -> set[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "as-run.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def test_a_frozen_networks_normalisation_is_one_that_runtimes_fuse(
    tmp_path: Path, graphs: GraphStore
) -> None:
    recipe = RECIPE.with_changes(normalisation="frozen")
    graph = graphs.make(recipe)
    kinds = {node.op_type for node in onnx.load(str(graph)).graph.node}
    assert "BatchNormalization" in kinds
    assert "BatchNormalization" not in kinds_as_run(graph, tmp_path)
    network = build_model(recipe, seed=3).eval()
    torch_runtime = TorchRuntime(WithFeatures(network, SIDE), CPU)
    runtime = compared(graph, state_tensors(network), torch_runtime, batch())
    np.testing.assert_allclose(runtime.run(batch())[0], torch_runtime.run(batch())[0], atol=1e-5)


def test_recipes_share_a_graph_only_where_the_network_is_the_same() -> None:
    assert graph_key(RECIPE) == graph_key(RECIPE.with_changes(rounds=3, epsilon=1.0))
    keys = {
        graph_key(r)
        for r in (
            RECIPE,
            RECIPE.with_changes(image_size=64),
            RECIPE.with_changes(model="resnet18"),
            RECIPE.with_changes(normalisation="frozen"),
        )
    }
    assert len(keys) == 4


def test_closing_ends_an_export_and_begins_no_other(tmp_path: Path) -> None:
    store = GraphStore(tmp_path / "graphs")
    told: list[str] = []

    def make() -> None:
        try:
            store.make(RECIPE.with_changes(model="densenet121"))
        except ModelError as error:
            told.append(error.code)

    thread = threading.Thread(target=make)
    thread.start()
    while not (children := _exports(tmp_path)):
        time.sleep(0.01)
    store.close()
    thread.join(20)
    assert told == ["graph-export"]
    assert not any(_alive(pid) for pid in children)
    with pytest.raises(ModelError):
        store.make(RECIPE)
    assert not list((tmp_path / "graphs").glob("*.onnx"))


def test_what_the_exporter_cannot_read_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "client.inference.graph_export", "--out", str(tmp_path / "g.onnx")],
        input=b"no recipe",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def _exports(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"graph_export" in line and os.fsencode(folder) in line:
                found.append(int(entry.name))
    return found


def _alive(pid: int) -> bool:
    try:
        return b"graph_export" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False
