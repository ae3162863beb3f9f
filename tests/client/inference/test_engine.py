import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.cache import LocalRelease
from common.errors import ModelError, ReleaseError
from common.model import build_model, classifier_names, state_tensors
from common.update import Tensors
from tests.client.serving import RECIPE, release, release_of

CPU = torch.device("cpu")
SIDE = RECIPE.image.size


def noise(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def test_rows_are_probabilities_whatever_the_batch(tmp_path: Path) -> None:
    engine = InferenceEngine.load(release(tmp_path, 1), device=CPU)
    rows = engine.probabilities(noise(5))
    assert rows.shape == (5, len(RECIPE.classes))
    assert rows.dtype == np.float64
    np.testing.assert_allclose(rows.sum(1), 1)
    np.testing.assert_allclose(engine.probabilities(noise(5)[2:3])[0], rows[2], atol=1e-6)


def test_the_manifest_says_who_answers(tmp_path: Path) -> None:
    local = release(tmp_path, 7)
    engine = InferenceEngine.load(local, device=CPU)
    assert (engine.version, engine.digest) == (7, local.manifest.model_digest)
    assert engine.recipe is local.manifest.recipe


@dataclass(frozen=True)
class Substituted(LocalRelease):
    """A release whose verified bytes are not what arrives in the network."""

    tensors: Mapping[str, np.ndarray] | None = None

    def load(self) -> Tensors:
        assert self.tensors is not None
        return self.tensors


def test_other_weights_than_the_manifests_fail_the_self_test(tmp_path: Path) -> None:
    honest = release(tmp_path, 1)
    other = Substituted(honest.manifest, honest.path, release(tmp_path, 2).load())
    with pytest.raises(ReleaseError) as refused:
        InferenceEngine.load(other, device=CPU)
    assert refused.value.code == "release-self-test"


def test_weights_that_overflow_fail_the_self_test(tmp_path: Path) -> None:
    tensors = state_tensors(build_model(RECIPE))
    bias = classifier_names(build_model(RECIPE))[-1]
    tensors[bias] = np.full(len(RECIPE.classes), 3e38, np.float32)
    weight = classifier_names(build_model(RECIPE))[0]
    tensors[weight] = np.full(tensors[weight].shape, 3e38, np.float32)
    with pytest.raises(ReleaseError) as refused:
        InferenceEngine.load(release_of(tmp_path, 1, tensors), device=CPU)
    assert refused.value.code == "release-self-test"


def test_weights_of_another_network_do_not_load(tmp_path: Path) -> None:
    tensors = state_tensors(build_model(RECIPE))
    tensors.popitem()
    with pytest.raises(ModelError):
        InferenceEngine.load(release_of(tmp_path, 1, tensors), device=CPU)


def test_corrupted_bytes_do_not_load(tmp_path: Path) -> None:
    local = release(tmp_path, 1)
    data = bytearray(local.path.read_bytes())
    data[-1] ^= 1
    local.path.write_bytes(data)
    with pytest.raises(ReleaseError) as refused:
        InferenceEngine.load(local, device=CPU)
    assert refused.value.code == "release-corrupted"


class BatchDependent(nn.Module):
    """What BatchNorm left in training mode would do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)[:, : len(RECIPE.classes)]
        return (flat - flat.mean(0)) * 10


class OneOutputTooFew(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, : len(RECIPE.classes) - 1]


class Failing(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shape")


class OutOfMemory(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError


@pytest.mark.parametrize(
    ("network", "code"),
    [
        (BatchDependent(), "release-self-test"),
        (OneOutputTooFew(), "release-self-test"),
        (Failing(), "release-self-test"),
        (OutOfMemory(), "device-memory"),  # says nothing against the release
    ],
    ids=["batch-dependent", "outputs", "failing", "memory"],
)
def test_networks_that_must_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: nn.Module, code: str
) -> None:
    local = release(tmp_path, 1)
    # The weights are the manifest's; the code around them is what is wrong.
    monkeypatch.setattr("client.inference.engine.build_model", lambda _recipe, pretrained: network)
    monkeypatch.setattr("client.inference.engine.load_tensors", lambda _network, _tensors: None)
    monkeypatch.setattr("client.inference.engine.state_tensors", lambda _network: local.load())
    with pytest.raises(ReleaseError) as refused:
        InferenceEngine.load(local, device=CPU)
    assert refused.value.code == code


def test_an_empty_holder_says_so() -> None:
    with pytest.raises(ReleaseError) as refused:
        ModelHolder().require()
    assert refused.value.code == "no-model"


def test_the_old_model_answers_to_the_end_and_is_then_freed(tmp_path: Path) -> None:
    holder = ModelHolder()
    holder.swap(InferenceEngine.load(release(tmp_path, 1), device=CPU))
    in_flight = holder.require()
    old = weakref.ref(in_flight)
    holder.swap(InferenceEngine.load(release(tmp_path, 2), device=CPU))
    assert holder.require().version == 2
    assert in_flight.probabilities(noise(1)).shape == (1, len(RECIPE.classes))
    del in_flight
    assert old() is None
