"""Where each network keeps what is where, and what the four methods make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from client.explanation.budget import Budget
from client.explanation.methods import GRID, Heat, Method, heat_map
from client.explanation.twin import Twin, make_twin
from common.errors import Busy
from common.model import build_model
from common.recipe import load_recipe

SIDE = 64
LAYERS = {
    # name: where Grad-CAM looks, and the side of its map for images of 64 pixels
    "resnet18": ("layer4", 2),
    "resnet50": ("layer4", 2),
    "efficientnet_b0": ("bn2", 2),
    "efficientnet_b4": ("bn2", 2),
    "densenet121": ("features", 2),
    "mobilenetv2_100": ("bn2", 2),
    "convnext_tiny": ("norm_pre", 2),
    "vit_tiny": ("blocks.11.norm1.grid", 4),
    "vit_small_patch16_224": ("blocks.11.norm1.grid", 4),
}
LARGER_OF_A_FAMILY = ("resnet50", "efficientnet_b4", "vit_small_patch16_224")
ARCHITECTURES = [
    pytest.param(name, marks=pytest.mark.journey if name in LARGER_OF_A_FAMILY else ())
    for name in LAYERS
]


def network(architecture: str, *, seed: int = 0) -> torch.nn.Module:
    recipe = load_recipe("dermoscopy").with_changes(model=architecture, image_size=SIDE)
    return build_model(recipe, pretrained=False, seed=seed).eval()


def image(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)


def explained(twin: Twin, method: Method = Method.grad_cam, *, target: int = 0) -> Heat:
    return heat_map(method, twin, image(), target, Budget(60))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_spatial_layer_of_every_network_is_found(architecture: str) -> None:
    served = network(architecture)
    twin = make_twin(served, SIDE)
    names = {id(module): name for name, module in twin.network.named_modules()}
    sides: list[int] = []
    handle = twin.layer.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    batch = torch.from_numpy(image())
    with torch.no_grad():
        torch.testing.assert_close(twin.network(batch), served(batch))
    handle.remove()
    assert (names[id(twin.layer)], sides[0]) == LAYERS[architecture]
    heats = [explained(twin, target=target) for target in range(2)]
    assert all(heat.shape == (SIDE, SIDE) for heat in heats)
    assert all(heat.min() >= 0 and heat.max() in (0, 1) for heat in heats)
    assert any(heat.any() for heat in heats)


def test_the_served_network_is_left_as_it_was() -> None:
    served = network("resnet18")
    before = {name: tensor.clone() for name, tensor in served.state_dict().items()}
    asked = [p.requires_grad for p in served.parameters()]
    twin = make_twin(served, SIDE)
    explained(twin)
    assert not any(m._forward_hooks or m._backward_hooks for m in served.modules())
    assert [p.requires_grad for p in served.parameters()] == asked
    assert all(p.grad is None for p in (*served.parameters(), *twin.network.parameters()))
    assert all(torch.equal(before[n], tensor) for n, tensor in served.state_dict().items())
    # One set of weights, not two.
    ours, theirs = twin.network.state_dict(), served.state_dict()
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in theirs)


@pytest.mark.parametrize("method", Method)
def test_a_map_is_the_same_every_time_and_leaves_the_generator_alone(method: Method) -> None:
    twin = make_twin(network("test_resnet"), SIDE)
    state = torch.get_rng_state()
    target = next(t for t in range(7) if explained(twin, target=t).any())
    first = explained(twin, method, target=target)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = explained(twin, method, target=target)
    assert first.any()
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("method", Method)
def test_only_the_pixels_that_the_answer_rests_on_are_hot(method: Method) -> None:
    """A network that looks at one square and nothing else (Adebayo 2018: it must depend on it)."""

    class OneSquare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = torch.nn.Conv2d(3, 2, 1, bias=False)
            torch.nn.init.constant_(self.own.weight[0], 0.5)
            torch.nn.init.constant_(self.own.weight[1], -0.5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen = self.own(images)
            weights = torch.zeros(SIDE, SIDE)
            weights[8:24, 40:56] = 0.02
            return (seen * weights).sum(dim=(2, 3))

    twin = make_twin(OneSquare().eval(), SIDE)
    batch = np.abs(image()) + 1
    heat = heat_map(method, twin, batch, 0, Budget(60))
    if method is Method.grad_cam:  # weights by MEAN gradients: says what, not where
        return
    cell = -(-SIDE // GRID)
    share = heat[: 24 + cell, 40 - cell :].sum() / heat.sum()
    assert share > 0.9


def test_grad_cam_is_that_of_its_paper() -> None:
    """Selvaraju 2017, equations 1 and 2, written out."""
    served = network("resnet18")
    twin = make_twin(served, SIDE)
    kept: list[torch.Tensor] = []
    other = make_twin(served, SIDE)
    other.layer.register_forward_hook(lambda _m, _i, out: kept.append(out))
    batch = torch.from_numpy(image())
    logits = other.network(batch.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(logits[0, 3], kept[0])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    expected = torch.relu((weights * kept[0]).sum(dim=1))[0].detach()
    cam = LayerGradCam(twin.network, twin.layer)
    found = cam.attribute(batch.clone().requires_grad_(), 3, relu_attributions=True)[0, 0]
    torch.testing.assert_close(found.detach(), expected)
    wide = explained(twin, target=3)
    assert wide[: SIDE // 4, : SIDE // 4].mean() == pytest.approx(
        float(expected[0, 0] / expected.max()), abs=0.02
    )


@pytest.mark.parametrize("method", Method)
def test_a_spent_budget_ends_it_between_two_calls(method: Method) -> None:
    one_pass = method is Method.grad_cam

    class Spent(Budget):
        calls = 0

        def check(self) -> None:
            self.calls += 1
            if self.calls > 1 or one_pass:
                super().check()

    twin = make_twin(network("test_resnet"), SIDE)
    spent = Spent(-1)
    with pytest.raises(Busy) as caught:
        heat_map(method, twin, image(), 0, spent)
    assert (caught.value.code, spent.calls) == ("explanation-deadline", 1 if one_pass else 2)


@pytest.mark.parametrize("architecture", ["resnet18", "vit_tiny"])
def test_other_weights_give_another_map(architecture: str) -> None:
    """The sanity check of Adebayo 2018 (arXiv:1810.03292): a map of the image alone would not."""
    maps = [explained(make_twin(network(architecture, seed=s), SIDE)) for s in range(4)]
    correlations = [
        abs(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        for i, a in enumerate(maps)
        for b in maps[i + 1 :]
        if a.any() and b.any()
    ]
    assert correlations
    assert np.mean(correlations) < 0.9
