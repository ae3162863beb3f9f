"""Training on a frozen backbone's features is training the network's head."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from client.cases.store import CaseStore
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.training.cache_folder import prepared_folders
from client.training.dataset import PatientImages
from client.training.evaluation import predict
from client.training.features import compute_features, features_key, split_head
from client.training.gradients import ClippedSum
from client.training.job import Workbench
from client.training.pixel_cache import CachedPixels, PixelCache
from client.withdrawal import withdraw_patient
from common.imaging import Pixels
from common.model import build_model, classifier_names, state_tensors
from common.recipe import Augmentation, ModelSpec, Recipe
from common.update import Tensors, apply
from tests.client.rounds import TOY, base_tensors, fill, make_plan, make_site, signed
from tests.client.training_toys import CPU, TinyNet, toy_images, toy_job, toy_recipe

NETWORKS = (
    *("resnet18", "efficientnet_b0", "densenet121", "mobilenetv2_100"),
    *("convnext_tiny", "vit_tiny_patch16_224", "test_vit"),
)


def with_features(images: PatientImages, model: nn.Module, recipe: Recipe) -> PatientImages:
    split = split_head(model, recipe.image.size)
    assert split is not None
    compute = compute_features(split, model, recipe, device=CPU, memory_megabytes=512)
    return replace(images, features=compute(images.pixels))


@pytest.mark.parametrize("network", NETWORKS)
def test_backbone_and_head_are_the_network(network: str) -> None:
    recipe = TOY.model_copy(update={"model": ModelSpec(architecture=network)})
    model = build_model(recipe.with_changes(image_size=64), pretrained=False).eval()
    split = split_head(model, 64)
    assert split is not None
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(split.head(split.backbone(images)), model(images))
    assert {n for n, p in model.named_parameters() if p is split.head.weight} <= set(
        classifier_names(model)
    )


def test_a_network_that_cannot_be_divided_is_trained_whole() -> None:
    assert split_head(TinyNet(), 16) is None

    class Scaled(nn.Module):
        """Its logits are more than its classifier's output."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def get_classifier(self) -> nn.Module:
            return self.fc

        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

        def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return features if pre_logits else 2 * self.fc(features)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.forward_head(self.forward_features(images))

    assert split_head(Scaled(), 16) is None


def test_the_clipped_sum_is_that_of_the_whole_network() -> None:
    recipe = toy_recipe(augmentation=Augmentation(horizontal_flip=False)).with_changes(
        image_size=32
    )
    model = build_model(recipe, pretrained=False)
    images = toy_images([1, 2, 1, 3])
    big = np.repeat(np.repeat(images.pixels, 2, 1), 2, 2)
    images = replace(images, pixels=big)
    job = toy_job(recipe, trainable="head")
    found = []
    for given in (images, with_features(images, model, recipe)):
        bench = Workbench.prepare(job, model, given)
        assert bench.on_features == (given.features is not None)
        gradients = ClippedSum(bench, max_grad_norm=0.3)
        chosen = np.array([0, 1, 3, 4])
        gradients.add(*bench.inputs(given, chosen, torch.Generator().manual_seed(0)))
        gradients.close()
        found.append([p.grad.clone() for p in bench.parameters() if p.grad is not None])
    assert found[0]
    for whole, head in zip(*found, strict=True):
        torch.testing.assert_close(whole, head, rtol=1e-4, atol=1e-6)


def test_predictions_are_the_networks() -> None:
    recipe = toy_recipe().with_changes(image_size=32)
    model = build_model(recipe, pretrained=False)
    images = toy_images([1, 1, 2])
    images = replace(images, pixels=np.repeat(np.repeat(images.pixels, 2, 1), 2, 2))
    spec = recipe.image
    slow = predict(model, images, spec, device=CPU, memory_megabytes=512)
    quick = predict(
        model, with_features(images, model, recipe), spec, device=CPU, memory_megabytes=512
    )
    np.testing.assert_allclose(quick, slow, atol=1e-5)


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=6, holdout=4)


def head_round(site: SiteSettings, base: Tensors, **plan: object) -> Tensors:
    made = make_plan(base=base, **plan)  # type: ignore[arg-type]
    made = made.model_copy(update={"trainable": "head"})
    reply = RoundHandler(site, self_test=lambda *_, **__: None).handle(signed(made), base)
    assert reply.refusal is None, reply.refusal
    return base if reply.update is None else apply(base, reply.update.tensors)


def kept(site: SiteSettings) -> list[Path]:
    return sorted(site.cache.glob("toy-*/features-*.npy"))


def test_features_are_computed_once_for_a_backbone(site: SiteSettings) -> None:
    base = base_tensors()
    after = head_round(site, base)
    (first,) = kept(site)
    written = first.stat().st_mtime_ns
    assert np.load(first).shape[0] == 10
    head_round(site, after, round=2)  # another head on the same backbone
    assert [p.stat().st_mtime_ns for p in kept(site)] == [written]
    other = {name: array + np.float32(0.01) for name, array in base.items()}
    head_round(site, other, campaign="other")
    assert len(kept(site)) == 1
    assert kept(site) != [first]


def test_a_new_case_and_a_withdrawn_patient_change_them(site: SiteSettings) -> None:
    base = base_tensors()
    head_round(site, base)
    (first,) = kept(site)
    fill(site, 7, "train")
    head_round(site, base, round=2)
    assert kept(site) != [first]
    withdraw_patient(site, "train-0")
    assert kept(site) == []


def test_damaged_features_are_computed_again(site: SiteSettings) -> None:
    base = base_tensors()
    head_round(site, base)
    (path,) = kept(site)
    whole = path.read_bytes()
    for damage in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(damage)
        head_round(site, base, campaign=f"after-{len(damage)}")
        assert path.read_bytes() == whole


def test_only_evaluating_computes_none(site: SiteSettings) -> None:
    head_round(site, base_tensors(), purpose="evaluate")
    assert kept(site) == []


def test_they_are_not_readable_by_others(site: SiteSettings) -> None:
    head_round(site, base_tensors())
    assert [p.stat().st_mode & 0o077 for p in kept(site)] == [0]


def test_the_key_is_of_the_backbone_alone() -> None:
    model = build_model(TOY, pretrained=False)
    base = state_tensors(model)
    key = features_key(TOY, base, model)
    head = {n: a + np.float32(1) if n in classifier_names(model) else a for n, a in base.items()}
    assert features_key(TOY, head, model) == key
    name = next(n for n in base if n not in classifier_names(model))
    assert features_key(TOY, {**base, name: base[name] + np.float32(1)}, model) != key
    darker = TOY.model_copy(
        update={"image": TOY.image.model_copy(update={"mean": (0.1, 0.1, 0.1)})}
    )
    assert features_key(darker, base, model) != key


@pytest.mark.parametrize("since", ["a withdrawal", "a withdrawal and a new case"])
def test_features_of_who_withdrew_since_are_kept_nowhere(site: SiteSettings, since: str) -> None:
    """Between loading and asking for features, as while a head is fitted, or by a killed round."""
    cache = PixelCache(site.cache, "toy", TOY.image)

    def load() -> CachedPixels:
        with closing(CaseStore.open(site)) as store:
            cases = [*store.training_cases("toy"), *store.holdout_cases("toy")]
            return cache.load(cases, store.image_bytes)

    def compute(pixels: Pixels) -> NDArray[np.float32]:
        return pixels.reshape(len(pixels), -1)[:, :4].astype(np.float32)

    cached = load()
    assert withdraw_patient(site, "train-1").unfinished == ()
    if since != "a withdrawal":
        fill(site, 1, "holdout")
        load()
    before = prepared_folders(site.cache, "toy")
    features = cache.features("ab" * 16, cached, compute)
    assert features is not None
    np.testing.assert_array_equal(features, compute(cached.pixels))
    assert prepared_folders(site.cache, "toy") == before
    assert kept(site) == []
    now = load()
    assert cache.features("ab" * 16, now, compute) is not None
    assert len(kept(site)) == 1
