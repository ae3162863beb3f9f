import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from common.errors import ModelError
from common.model import (
    build_model,
    classifier_names,
    load_tensors,
    set_trainable,
    state_tensors,
    write_safetensors,
)
from common.recipe import Recipe, load_recipe, shipped_recipes


def recipe_of(architecture: str, *, size: int = 32, classes: int = 7, **model: object) -> Recipe:
    data = load_recipe("dermoscopy").model_dump()
    data["model"] |= {"architecture": architecture, **model}
    data["image"]["size"] = size
    data["classes"] = data["classes"][:classes]
    data["loss"]["class_weights"] = ()
    data["decision"]["positive_classes"] = data["classes"][:1]
    return Recipe.model_validate(data)


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = state_tensors(one), state_tensors(other)
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_builds_with_every_alternative(name):
    recipe = load_recipe(name).with_changes(image_size=32)
    for architecture in (recipe.model.architecture, *recipe.model.alternatives):
        model = build_model(recipe.with_changes(model=architecture)).eval()
        with torch.no_grad():
            assert model(torch.zeros(2, 3, 32, 32)).shape == (2, len(recipe.classes))


@pytest.mark.parametrize(
    ("short", "name"),
    [("vit_tiny", "vit_tiny_patch16_224"), ("vit_small", "vit_small_patch16_224")],
)
def test_short_names(short, name):
    assert equal(build_model(recipe_of(short)), build_model(recipe_of(name)))


def test_equal_seeds_give_equal_models_and_others_do_not():
    recipe = recipe_of("test_resnet")
    assert equal(build_model(recipe, seed=3), build_model(recipe, seed=3))
    assert not equal(build_model(recipe, seed=3), build_model(recipe, seed=4))


def test_building_never_touches_the_generators_that_draw_the_noise(monkeypatch):
    """A GPU's generator re-seeded at every round would draw the same noise, which cancels."""

    def forbidden(seed: int) -> None:
        raise AssertionError("a GPU's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", forbidden)
    monkeypatch.setattr(torch, "manual_seed", forbidden)
    before = torch.get_rng_state()
    build_model(recipe_of("test_resnet"))
    assert torch.equal(torch.get_rng_state(), before)
    first = torch.randn(4)
    build_model(recipe_of("test_resnet"))
    assert not torch.equal(first, torch.randn(4))


@pytest.mark.parametrize(
    "architecture", ["no_such_network", "hf-hub:someone/something", "local-dir:/etc", ""]
)
def test_only_networks_of_timms_own_registry(architecture):
    with pytest.raises(ModelError) as caught:
        build_model(recipe_of(architecture))
    assert caught.value.code == "model-unknown"


def test_an_image_that_does_not_divide_into_patches_is_refused():
    with pytest.raises(ModelError, match="multiple of 16"):
        build_model(recipe_of("test_vit", size=40))


def test_scopes_nest_and_tokens_never_move():
    model = build_model(recipe_of("test_vit"))
    head, bias, everything = (set(set_trainable(model, s)) for s in ("head", "bias", "all"))
    assert head == {"head.weight", "head.bias"} == set(classifier_names(model))
    assert head < bias < everything
    assert all(n in head or model.get_parameter(n).dim() == 1 for n in bias)
    frozen = {n for n, _ in model.named_parameters()} - everything
    assert frozen == {"cls_token", "pos_embed"}
    assert {n for n, p in model.named_parameters() if p.requires_grad} == everything


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("test_resnet", "fc"),
        ("test_efficientnet_gn", "classifier"),
        ("test_convnext", "head.fc"),
        ("densenet121", "classifier"),
    ],
)
def test_the_head_is_timms_classifier(architecture, head):
    model = build_model(recipe_of(architecture, trainable="head"))
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{head}.weight", f"{head}.bias"}


@pytest.mark.parametrize("normalisation", ["group", "frozen"])
@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_a_file_of_our_own_is_taken_whole(tmp_path, architecture, normalisation):
    recipe = recipe_of(architecture, normalisation=normalisation)
    trained = build_model(recipe, seed=1)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, state_tensors(trained))
    assert equal(build_model(recipe, weights=path), trained)


def timm_file(folder: Path, architecture: str, *, classes: int, **options: object) -> Path:
    """Weights as timm publishes them: its own names, 1000 or so classes, BatchNorm counters."""
    model = timm.create_model(architecture, num_classes=classes, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            nn.init.uniform_(module.weight)
    path = folder / "timm.safetensors"
    write_safetensors(path, state_tensors(model))
    return path


def test_pretrained_features_stay_and_another_classifier_is_dropped(tmp_path, caplog):
    path = timm_file(tmp_path, "test_resnet", classes=11)
    with caplog.at_level(logging.WARNING, "common.model"):
        model = build_model(recipe_of("test_resnet", normalisation="frozen"), weights=path)
    assert "classifier dropped tensor=fc.weight found=[11, 96] needed=[7, 96]" in caplog.text
    fresh = build_model(recipe_of("test_resnet", normalisation="frozen"))
    again = build_model(recipe_of("test_resnet", normalisation="frozen"), weights=path)
    state = state_tensors(model)
    assert equal(model, again)
    assert np.array_equal(state["fc.weight"], state_tensors(fresh)["fc.weight"])
    assert not np.array_equal(state["bn1.running_mean"], state_tensors(fresh)["bn1.running_mean"])


def test_a_classifier_of_the_right_size_is_kept(tmp_path, caplog):
    path = timm_file(tmp_path, "test_resnet", classes=7)
    with caplog.at_level(logging.WARNING, "common.model"):
        build_model(recipe_of("test_resnet", normalisation="frozen"), weights=path)
    assert not caplog.records


def test_group_norm_inherits_pretrained_scales(tmp_path):
    """Conversion comes after loading: made before, it would throw the affine weights away."""
    path = timm_file(tmp_path, "test_efficientnet", classes=7)
    original = timm.create_model("test_efficientnet", num_classes=7)
    model = build_model(recipe_of("test_efficientnet"), weights=path)
    assert original.bn1.weight.eq(1).all()
    scales = model.get_parameter("bn1.norm.weight")
    assert not bool(scales.eq(1).any())


def test_vit_positions_are_resampled_to_the_image_size(tmp_path):
    path = timm_file(tmp_path, "test_vit", classes=11, img_size=64)
    model = build_model(recipe_of("test_vit", size=32), weights=path)
    assert model.get_parameter("pos_embed").shape == (1, 1 + 4, 64)


def test_weights_of_another_network_are_refused(tmp_path):
    path = timm_file(tmp_path, "test_convnext", classes=7)
    with pytest.raises(ModelError) as caught:
        build_model(recipe_of("test_resnet"), weights=path)
    assert caught.value.code == "model-mismatch"


def test_a_site_can_build_a_pretrained_recipe_without_the_network(monkeypatch):
    asked: list[bool] = []
    create = timm.create_model

    def watched(name: str, *, pretrained: bool, **options: object) -> nn.Module:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    recipe = recipe_of("test_resnet", pretrained=True, normalisation="frozen")
    model = build_model(recipe, pretrained=False)
    build_model(recipe)
    load_tensors(model, state_tensors(build_model(recipe, seed=5, pretrained=False)))
    assert asked == [False, True, False]


def test_unreachable_weights_are_one_clear_error(monkeypatch):
    def offline(name: str, **options: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match=r"no route to host.*local safetensors file"):
        build_model(recipe_of("test_resnet", pretrained=True))
