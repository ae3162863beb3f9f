import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping
from opacus.grad_sample.conv import compute_conv_grad_sample
from timm.layers.layer_scale import LayerScale, LayerScale2d
from timm.layers.norm import GroupNorm, LayerNorm, LayerNorm2d
from torch import Tensor, nn

from common.dp_samplers import (
    SAMPLERS,
    convolution,
    convolution_norm,
    has_exact_sampler,
    linear_norm,
    register_samplers,
)
from common.errors import ModelError


def true_gradients(layer: nn.Module, x: Tensor, backprops: Tensor) -> dict[str, Tensor]:
    """Each sample's parameter gradients by plain autograd, one sample at a time."""
    rows: dict[str, list[Tensor]] = {name: [] for name, _ in layer.named_parameters()}
    for sample, upstream in zip(x, backprops, strict=True):
        parameters = dict(layer.named_parameters())
        gradients = torch.autograd.grad(
            layer(sample[None]), list(parameters.values()), upstream[None]
        )
        for name, gradient in zip(parameters, gradients, strict=True):
            rows[name].append(gradient)
    return {name: torch.stack(gradients) for name, gradients in rows.items()}


def assert_exact(layer: nn.Module, x: Tensor, *, backprops: Tensor | None = None) -> None:
    upstream = torch.randn_like(layer(x)) if backprops is None else backprops
    found = SAMPLERS[type(layer)](layer, [x], upstream)
    for name, truth in true_gradients(layer, x, upstream).items():
        torch.testing.assert_close(found[layer.get_parameter(name)], truth, rtol=1e-10, atol=1e-12)


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 4),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
    height=st.integers(5, 9),
    width=st.integers(5, 9),
    batch=st.integers(1, 3),
)
def test_any_zero_padded_convolution_is_exact(
    groups, inputs, outputs, kernel, stride, padding, dilation, bias, height, width, batch
):
    layer = nn.Conv2d(
        groups * inputs, groups * outputs, kernel, stride, padding, dilation, groups, bias
    ).double()
    assert_exact(layer, double(batch, groups * inputs, height, width))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("layout", ["channels_last", "permuted", "expanded"])
def test_memory_layout_does_not_matter(groups, layout):
    layer = nn.Conv2d(4, 8, 3, padding=1, groups=groups).double()
    x = {
        "channels_last": double(3, 4, 6, 6).contiguous(memory_format=torch.channels_last),
        "permuted": double(3, 6, 6, 4).permute(0, 3, 1, 2),
        "expanded": double(3, 4, 1, 6).expand(3, 4, 6, 6),
    }[layout]
    upstream = double(3, 6, 6, 8).permute(0, 3, 1, 2)
    assert_exact(layer, x, backprops=upstream)


def test_stock_convolution_is_silently_wrong_on_channels_last():
    """Why the sampler is ours; should this fail, Opacus has been cured."""
    layer = nn.Conv2d(4, 8, 3, padding=1).double()
    x = double(3, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    upstream = double(3, 8, 6, 6)
    stock = compute_conv_grad_sample(layer, [x], upstream)[layer.weight]
    truth = true_gradients(layer, x, upstream)["weight"]
    assert (stock - truth).abs().max() > 0.1 * truth.abs().max()


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(32, 32, 3, padding=1, padding_mode=m) for m in ("reflect", "circular")],
)
@pytest.mark.parametrize("sampler", [convolution, convolution_norm])
def test_other_paddings_are_refused(layer, sampler):
    with pytest.raises(ModelError) as caught:
        sampler(layer, [torch.zeros(1, 32, 4, 4)], torch.zeros(1, 32, 4, 4))
    assert caught.value.code == "model-padding"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (4, 5)),
        (nn.Linear(5, 3), (4, 7, 5)),
        (nn.Linear(5, 3), (4, 2, 3, 5)),
        (nn.GroupNorm(2, 6), (3, 6, 4, 4)),
        (nn.GroupNorm(2, 6), (3, 6)),
        (GroupNorm(6, num_groups=3), (3, 6, 4, 4)),
        (nn.LayerNorm(6), (3, 6)),
        (nn.LayerNorm(6), (3, 5, 6)),
        (LayerNorm(6), (3, 2, 4, 6)),
        (LayerNorm2d(6), (3, 6, 2, 4)),
        (LayerScale(6), (3, 5, 6)),
        (LayerScale2d(6), (3, 6, 2, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_other_layers_are_exact(layer, shape):
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert_exact(layer, double(*shape))


@pytest.mark.parametrize("shape", [(4, 5), (4, 2, 5), (4, 40, 5), (4, 2, 3, 5), (4, 8, 8, 5)])
def test_ghost_norm_of_linear(shape):
    """Few positions take the Gram way, many the direct one; four axes are flattened."""
    layer = nn.Linear(5, 30).double()
    x = double(*shape)
    upstream = torch.randn_like(layer(x))
    found = linear_norm(layer, [x], upstream)
    for name, truth in true_gradients(layer, x, upstream).items():
        norms = truth.flatten(1).norm(dim=1)
        torch.testing.assert_close(found[layer.get_parameter(name)], norms, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 2, 1),
        nn.Conv2d(2, 2, 1, groups=2),
        nn.Linear(2, 2),
        nn.GroupNorm(1, 2),
        nn.LayerNorm(2),
        LayerNorm2d(2),
    ],
    ids=str,
)
def test_frozen_parameters_get_no_gradient(layer):
    layer.get_parameter("weight").requires_grad_(False)
    x = torch.randn(3, 2, 2, 2)
    found = SAMPLERS[type(layer)](layer, [x], torch.randn_like(layer(x)))
    assert list(found) == [layer.get_parameter("bias")]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("side", "stride"), [(4, 1), (4, 2), (20, 1), (20, 3)])
def test_ghost_norm_of_convolution(groups, side, stride):
    """Few positions take the Gram way, many the direct one, groups always the latter."""
    layer = nn.Conv2d(8, 12, 3, stride, padding=1, groups=groups).double()
    x = double(3, 8, side, side).contiguous(memory_format=torch.channels_last)
    upstream = torch.randn_like(layer(x))
    found = convolution_norm(layer, [x], upstream)
    for name, truth in true_gradients(layer, x, upstream).items():
        norms = truth.flatten(1).norm(dim=1)
        torch.testing.assert_close(found[layer.get_parameter(name)], norms, rtol=1e-10, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("dense", [True, False], ids=["convolution", "linear"])
def test_ghost_norm_takes_no_large_gradient_for_a_small_one(dense, offset):
    """A base model's layer may add an offset, and the next make the upstream sum to zero.

    The terms of the Gram product then cancel; in float32 the norm of 0 came out, which no clip
    would touch.
    """
    shape = (3, 64, 2, 4) if dense else (3, 8, 64)
    layer, axes = (nn.Conv2d(64, 64, 1), (2, 3)) if dense else (nn.Linear(64, 64), (1,))
    x, upstream = torch.randn(shape) + offset, torch.randn(shape)
    upstream -= upstream.mean(axes, keepdim=True)
    found = (convolution_norm if dense else linear_norm)(layer, [x], upstream)
    twin = copy.deepcopy(layer).double()
    truth = true_gradients(twin, x.double(), upstream.double())["weight"].flatten(1).norm(dim=1)
    ratio = found[layer.weight].double() / truth
    assert ((ratio > 0.99999) & (ratio < (1.00001 if offset == 0 else 3))).all(), ratio


@pytest.mark.parametrize("sampler", [convolution, convolution_norm])
@pytest.mark.parametrize("groups", [1, 4])
def test_empty_batch(groups, sampler):
    layer = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    found = sampler(layer, [torch.zeros(0, 4, 6, 6)], torch.zeros(0, 8, 6, 6))
    assert {g.shape[0] for g in found.values()} == {0}
    assert set(found) == set(layer.parameters())


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3, groups=4), nn.Linear(6, 8)], ids=str
)
def test_half_precision_gradients_come_in_the_parameters_dtype(layer):
    """So that the clipped norm is that of the vector which is then summed."""
    x = torch.randn(3, 4, 6, 6)
    upstream = torch.randn_like(layer(x)).bfloat16()
    found = SAMPLERS[type(layer)](layer, [x.bfloat16()], upstream)
    full = SAMPLERS[type(layer)](layer, [x], upstream.float())
    for parameter, gradient in found.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, full[parameter], rtol=0.05, atol=0.3)


def test_registration_can_be_repeated_and_wins_over_stock():
    GradSampleHooks.GRAD_SAMPLERS[nn.Conv2d] = compute_conv_grad_sample
    register_samplers()
    before = dict(GradSampleHooks.GRAD_SAMPLERS)
    register_samplers()
    assert before == GradSampleHooks.GRAD_SAMPLERS
    for table in (GradSampleHooks, GradSampleHooksFastGradientClipping):
        assert table.GRAD_SAMPLERS[nn.Conv2d] is convolution
    assert GradSampleHooksFastGradientClipping.NORM_SAMPLERS[nn.Linear] is linear_norm


def test_a_subclass_has_no_exact_sampler():
    class Scaled(nn.Conv2d):
        pass

    assert has_exact_sampler(nn.Conv2d(1, 1, 1))
    assert not has_exact_sampler(Scaled(1, 1, 1))
