import copy

import pytest
import torch
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping
from opacus.grad_sample.conv import compute_conv_grad_sample
from opacus.grad_sample.linear import compute_linear_norm_sample
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from common.errors import PrivacyRefused
from common.gradient_check import check_gradients, check_model
from common.model import build_model, set_trainable
from common.recipe import Recipe, load_recipe

NETWORKS = (
    "efficientnet_b0",
    "efficientnet_b4",
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenetv2_100",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
)
TINY = ("test_resnet", "test_efficientnet_gn", "test_convnext", "test_vit")


def recipe_of(architecture: str, *, size: int = 32, **model: object) -> Recipe:
    data = load_recipe("dermoscopy").model_dump()
    data["model"] |= {"architecture": architecture, **model}
    data["image"]["size"] = size
    return Recipe.model_validate(data)


@pytest.mark.parametrize("architecture", NETWORKS)
def test_per_sample_gradients_are_exact(architecture):
    """Three images, hooks and ghost, float64, at most 1e-6 off a loop over single images."""
    model = build_model(recipe_of(architecture))
    check = check_model(model, image_size=32, samples=3)
    assert check.hooks_error <= 1e-6
    assert check.ghost_error <= 1e-6
    assert check.dependence <= 1e-6


@pytest.mark.parametrize("architecture", ["test_resnet", "resnet18", "mobilenetv2_100"])
def test_frozen_batch_norm_is_exact(architecture):
    model = build_model(recipe_of(architecture, normalisation="frozen"))
    assert check_model(model, image_size=32, samples=3).hooks_error <= 1e-6


@pytest.mark.parametrize("architecture", TINY)
@pytest.mark.parametrize("trainable", ["all", "bias", "head"])
def test_every_scope_of_the_tiny_networks_is_exact(architecture, trainable):
    check = check_gradients(recipe_of(architecture, trainable=trainable))
    assert check.architecture == architecture
    assert max(check.hooks_error, check.ghost_error, check.dependence) <= 1e-6


@pytest.mark.parametrize("architecture", TINY)
def test_channels_last_images_are_exact(architecture):
    """The clipped sum of a whole Opacus step, against one computed by hand."""
    model = build_model(recipe_of(architecture, size=64)).double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    images = images.contiguous(memory_format=torch.channels_last)
    for mode in ("hooks", "ghost"):
        found, expected = clipped_sums(copy.deepcopy(model), images, mode=mode)
        assert float((found - expected).norm() / expected.norm()) <= 1e-6


def clipped_sums(model: nn.Module, images: Tensor, *, mode: str) -> tuple[Tensor, Tensor]:
    """Return Opacus' clipped sum and the true one, both flat."""
    labels = torch.arange(len(images))
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = nn.functional.cross_entropy(model(image[None]), label[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    singles = torch.stack(rows)
    norms = singles.norm(dim=1)
    clip = float(norms.median())
    expected = ((clip / (norms + 1e-6)).clamp(max=1)[:, None] * singles).sum(0)
    private = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(parameters, lr=0.1),
        data_loader=DataLoader(TensorDataset(images, labels), batch_size=len(images)),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        poisson_sampling=False,
        grad_sample_mode=mode,
        criterion=nn.CrossEntropyLoss(),
    )
    module, optimizer = private[0], private[1]
    criterion = private[2] if mode == "ghost" else nn.CrossEntropyLoss()
    optimizer.zero_grad()
    criterion(module(images), labels).backward()
    optimizer.step()
    return torch.cat([p.grad.flatten() for p in parameters]) * len(images), expected


@pytest.mark.parametrize("architecture", TINY)
def test_an_empty_batch_gives_empty_gradients(architecture):
    """Poisson sampling draws one now and then; the step must go on."""
    model = build_model(recipe_of(architecture))
    hooks = GradSampleHooks(model)
    model(torch.zeros(0, 3, 32, 32)).sum().backward()
    lengths = {len(p.grad_sample) for p in model.parameters() if p.requires_grad}
    hooks.cleanup()
    assert lengths == {0}


def test_the_check_catches_the_stock_convolution(monkeypatch):
    """ConvNeXt under stock Opacus runs without an error, and its gradients are wrong."""
    model = build_model(recipe_of("test_convnext"))
    for table in (GradSampleHooks, GradSampleHooksFastGradientClipping):
        monkeypatch.setitem(table.GRAD_SAMPLERS, nn.Conv2d, compute_conv_grad_sample)
    monkeypatch.delitem(GradSampleHooksFastGradientClipping.NORM_SAMPLERS, nn.Conv2d)
    with pytest.raises(PrivacyRefused, match=r"relative error by hooks .* ghost") as caught:
        check_model(model, image_size=32)
    assert caught.value.code == "self-test-failed"


def test_the_check_catches_a_wrong_ghost_norm(monkeypatch):
    model = build_model(recipe_of("test_vit"))

    def shrunk(layer, activations, backprops):
        norms = compute_linear_norm_sample(layer, activations, backprops)
        return {parameter: 0.99 * norm for parameter, norm in norms.items()}

    table = GradSampleHooksFastGradientClipping.NORM_SAMPLERS
    monkeypatch.setitem(table, nn.Linear, shrunk)
    with pytest.raises(PrivacyRefused, match=r"by ghost [\d.e-]+\."):
        check_model(model, image_size=32)


def test_the_check_catches_ghost_without_four_axes(monkeypatch):
    """Stock Opacus gives no norm at all for ConvNeXt's MLP: an error, mapped to a refusal."""
    model = build_model(recipe_of("test_convnext"))
    table = GradSampleHooksFastGradientClipping.NORM_SAMPLERS
    monkeypatch.setitem(table, nn.Linear, compute_linear_norm_sample)
    with pytest.raises(PrivacyRefused) as caught:
        check_model(model, image_size=32)
    assert caught.value.code == "self-test-failed"


class Mixing(nn.Module):
    """A network whose samples see each other, without any BatchNorm that could be refused."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.convolution(x).mean((2, 3))
        return self.head(features + features.mean(0))


def test_the_check_catches_samples_that_depend_on_each_other():
    with pytest.raises(PrivacyRefused, match="another sample"):
        check_model(Mixing(), image_size=8, samples=3)


def test_a_proof_needs_gradients_that_are_not_zero():
    model = Mixing()
    nn.init.zeros_(model.head.weight)  # 2-D: no perturbation reaches it
    with pytest.raises(PrivacyRefused, match="vanished"):
        check_model(model, image_size=8)


def test_a_network_that_cannot_be_made_exact_is_refused():
    with pytest.raises(PrivacyRefused) as caught:
        check_gradients(recipe_of("test_vit3"))
    assert caught.value.code == "self-test-failed"


def test_the_check_leaves_the_random_generator_alone():
    state = torch.get_rng_state()
    check_gradients(recipe_of("test_vit"))
    assert torch.equal(torch.get_rng_state(), state)


def test_scope_argument_wins_over_the_recipe():
    recipe = recipe_of("test_resnet")
    model = build_model(recipe)
    assert len(set_trainable(model, "head")) == 2
    assert check_gradients(recipe, trainable="head").hooks_error <= 1e-6
