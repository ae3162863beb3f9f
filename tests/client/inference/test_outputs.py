from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from client.inference.engine import InferenceEngine
from client.inference.graphs import GraphStore
from client.inference.outputs import Outputs, WithFeatures, probabilities_of
from common.errors import ModelError
from tests.client.inference.graph_files import graph_of
from tests.client.serving import RECIPE, release

CPU = torch.device("cpu")
SIDE = RECIPE.image.size


def noise(count: int = 3) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def through_the_classifier(engine: InferenceEngine, found: Outputs) -> np.ndarray:
    assert engine.classifier is not None
    result: np.ndarray = found.features @ engine.classifier.weights.T + engine.classifier.bias
    return result


def test_features_are_what_the_classifier_sees_whatever_computes(
    tmp_path: Path,
    graphs: GraphStore,
) -> None:
    engine = InferenceEngine.load(release(tmp_path, 1), device=CPU)
    by_torch = engine.outputs(noise())
    engine.quicken(graph_of(graphs))
    by_onnx = engine.outputs(noise())
    for found in (by_torch, by_onnx):
        np.testing.assert_allclose(through_the_classifier(engine, found), found.logits, atol=1e-4)
        np.testing.assert_allclose(found.probabilities, probabilities_of(found.logits))
        assert (found.logits.dtype, found.features.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(by_onnx.features, by_torch.features, atol=1e-4)
    assert by_torch.features.std(axis=0).max() > 0


def test_a_row_is_one_images(tmp_path: Path) -> None:
    engine = InferenceEngine.load(release(tmp_path, 1), device=CPU)
    together, alone = engine.outputs(noise()), engine.outputs(noise()[1:2])
    np.testing.assert_allclose(together.row(1).features, alone.features, atol=1e-5)
    np.testing.assert_allclose(together.row(1).logits, alone.logits, atol=1e-5)


def test_a_graph_whose_features_are_others_is_not_used(
    tmp_path: Path,
    graphs: GraphStore,
) -> None:
    """Same probabilities, other features: distances would mean nothing."""
    model = onnx.load(str(graph_of(graphs)))
    for node in model.graph.node:
        for names in (node.output, node.input):
            for place, name in enumerate(names):
                if name == "features":
                    names[place] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["features"]))
    path = tmp_path / "other.onnx"
    onnx.save(model, str(path))
    engine = InferenceEngine.load(release(tmp_path, 1), device=CPU)
    with pytest.raises(ModelError) as refused:
        engine.quicken(path)
    assert refused.value.code == "graph-differs"
    assert "features" in refused.value.line()
    assert engine.runtime == "torch"


class Pooling(nn.Module):
    """A network without a linear layer at its end."""

    def get_classifier(self) -> nn.Module:
        return nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


def test_a_network_without_a_linear_end_has_its_logits_for_features() -> None:
    network = WithFeatures(Pooling().eval(), 16)
    logits, features = network(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(features, logits)
    assert network.classifier is None
