"""Per-sample gradients of single layers, exact where Opacus' own are not.

A sampler is given a layer, its input and the gradient of its output, and returns the gradient of
every parameter for each sample alone. Opacus looks samplers up by exact type in a global table;
`register_samplers` puts ours there. What they cure:

* the stock convolution sampler reads memory as if it were contiguous (`unfold2d` uses raw
  strides), so ``channels_last`` or permuted inputs give wrong gradients without an error;
* it costs the square of the channels for grouped convolutions; one grouped convolution over
  samples x groups costs no more than the plain backward pass;
* it ignores ``padding_mode``;
* the stock ghost norm of `nn.Linear` (Li et al. 2021, arXiv:2110.05679) returns nothing for
  inputs of four or more dimensions, as in ConvNeXt's MLP;
* in float32 it takes a large gradient for a small one where its terms cancel.

The ghost norms serve the gradient check and the benchmark alone: no round is trained by ghost
clipping (`client.training.gradients` says why).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)
from opacus.grad_sample import register_grad_sampler, register_norm_sampler
from opacus.grad_sample.linear import compute_linear_grad_sample
from opacus.utils.tensor_utils import unfold2d
from timm.layers.layer_scale import LayerScale, LayerScale2d
from timm.layers.norm import GroupNorm, GroupNorm1, LayerNorm, LayerNorm2d
from torch import Tensor, nn

from common.errors import ModelError

Samples: TypeAlias = dict[Tensor, Tensor]
Sampler: TypeAlias = Callable[..., Samples]


def convolution(layer: nn.Conv2d, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradients of a 2-D convolution.

    Parameters
    ----------
    layer : nn.Conv2d
        Zero padding, given in numbers.
    activations : list of one Tensor, shape (B, C_in, H, W)
        The layer's input, in any memory format.
    backprops : Tensor, shape (B, C_out, H_out, W_out)
        Gradient of the loss by the layer's output.

    Returns
    -------
    dict
        Each trainable parameter's gradients, shape (B, *parameter.shape), in its dtype.

    Raises
    ------
    ModelError
        If the layer pads with anything but zeros: there is no exact sampler for it.
    """
    _refuse_padding(layer)
    samples: Samples = {}
    if layer.weight.requires_grad:
        # Contiguous first: both ways below read memory by strides of their own.
        x = activations[0].to(backprops.dtype).contiguous()
        weight = (_grouped if layer.groups > 1 else _dense)(layer, x, backprops.contiguous())
        samples[layer.weight] = weight.to(layer.weight.dtype)
    if layer.bias is not None and layer.bias.requires_grad:
        samples[layer.bias] = backprops.sum((2, 3), dtype=layer.bias.dtype)
    return samples


def _dense(layer: nn.Conv2d, x: Tensor, backprops: Tensor) -> Tensor:
    """One matrix product a sample: gradient (C_out, L) times unfolded input (L, C_in*kh*kw)."""
    if len(x) == 0:
        return x.new_zeros((0, *layer.weight.shape))
    patches = _patches(layer, x)
    product = torch.bmm(backprops.flatten(2), patches.transpose(1, 2))
    return product.view(len(x), *layer.weight.shape)


def _refuse_padding(layer: nn.Conv2d) -> None:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ModelError("A convolution pads with something but zeros.", code="model-padding")


def _patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what each output position sees, shape (B, C_in*kh*kw, L); ``x`` is contiguous."""
    patches: Tensor = unfold2d(
        x,
        kernel_size=layer.kernel_size,
        padding=layer.padding,
        stride=layer.stride,
        dilation=layer.dilation,
    )
    return patches


def _grouped(layer: nn.Conv2d, x: Tensor, backprops: Tensor) -> Tensor:
    """Fold the batch into the groups: the weight gradient of B*groups groups is per sample."""
    batch = len(x)
    if batch == 0:
        return x.new_zeros((0, *layer.weight.shape))
    weight = layer.weight.detach().to(x.dtype)
    repeated = weight.repeat(batch, 1, 1, 1)
    _, gradient, _ = torch.ops.aten.convolution_backward(
        backprops.reshape(1, -1, *backprops.shape[2:]),
        x.reshape(1, -1, *x.shape[2:]),
        repeated,
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        False,
        [0, 0],
        batch * layer.groups,
        [False, True, False],
    )
    per_sample: Tensor = gradient.view(batch, *weight.shape)
    return per_sample


def convolution_norm(layer: nn.Conv2d, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradient NORMS of a convolution (Bu et al. 2022, arXiv:2205.10683).

    A dense convolution is a Linear on its L output positions: where L is small, as deep in a
    network, two L x L Gram matrices replace a gradient of millions of numbers a sample.

    Returns
    -------
    dict
        Norms of shape (B,) for each trainable parameter.
    """
    positions = backprops.shape[2] * backprops.shape[3]
    gram = layer.groups == 1 and _gram_pays(layer, positions, backprops)
    if not gram or not layer.weight.requires_grad or len(backprops) == 0:
        return _norms(convolution(layer, activations, backprops))
    _refuse_padding(layer)
    patches = _patches(layer, activations[0].to(backprops.dtype).contiguous())
    upstream = backprops.flatten(2).mT
    norms = {layer.weight: _gram_norm(patches.mT, upstream).to(layer.weight.dtype)}
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = upstream.sum(1, dtype=layer.bias.dtype).norm(dim=1)
    return norms


def _gram_pays(layer: nn.Conv2d | nn.Linear, positions: int, backprops: Tensor) -> bool:
    """Tell whether two Gram matrices are smaller than the gradient, and can be had exactly."""
    # Apple's GPUs have no float64.
    return 2 * positions**2 <= layer.weight.numel() and backprops.device.type != "mps"


def _gram_norm(inputs: Tensor, upstream: Tensor) -> Tensor:
    """Return norms (B,) of the gradients sum_t upstream_t inputs_t', never less than they are.

    Parameters
    ----------
    inputs : Tensor, shape (B, T, features)
    upstream : Tensor, shape (B, T, outputs)

    Notes
    -----
    The square of the norm is the sum of the two Gram matrices' product. Where inputs share a large
    offset and the upstream gradients sum to zero, its terms are 1e10 times the sum and more, which
    float32 loses: hence float64. What is left to rounding here is added: about 1e-6 of an ordinary
    gradient. It bounds no second backward pass, whose rounding is its own.
    """
    x, u = inputs.double(), upstream.double()
    gram_x, gram_u = x @ x.mT, u @ u.mT
    square = (gram_x * gram_u).sum((1, 2)).clamp(min=0)
    sizes = _trace(gram_x) * _trace(gram_u) * inputs.shape[1]
    return square.sqrt() + torch.finfo(upstream.dtype).eps * sizes.sqrt()


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _norms(samples: Samples) -> Samples:
    return {p: gradient.flatten(1).norm(dim=1) for p, gradient in samples.items()}


def group_norm(layer: nn.GroupNorm, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradients of a GroupNorm over (B, C, ...)."""
    samples: Samples = {}
    if layer.weight.requires_grad:
        x = F.group_norm(activations[0].to(backprops.dtype), layer.num_groups, eps=layer.eps)
        samples[layer.weight] = _to_channels(x * backprops, layer.weight)
    if layer.bias is not None and layer.bias.requires_grad:
        samples[layer.bias] = _to_channels(backprops, layer.bias)
    return samples


def layer_norm(layer: nn.LayerNorm, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradients of a LayerNorm over the last axis of (B, ..., C)."""
    samples: Samples = {}
    if layer.weight is not None and layer.weight.requires_grad:
        x = F.layer_norm(activations[0].to(backprops.dtype), layer.normalized_shape, eps=layer.eps)
        samples[layer.weight] = _to_last(x * backprops, layer.weight)
    if layer.bias is not None and layer.bias.requires_grad:
        samples[layer.bias] = _to_last(backprops, layer.bias)
    return samples


def layer_norm_2d(layer: nn.LayerNorm, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradients of timm's LayerNorm2d, which normalises C of (B, C, H, W)."""
    channels_last = [activations[0].permute(0, 2, 3, 1)]
    return layer_norm(layer, channels_last, backprops.permute(0, 2, 3, 1))


def layer_scale(layer: LayerScale, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradients of the scale ``gamma`` on the last axis of (B, ..., C)."""
    return {layer.gamma: _to_last(activations[0] * backprops, layer.gamma)}


def layer_scale_2d(layer: LayerScale2d, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradients of the scale ``gamma`` on C of (B, C, H, W)."""
    return {layer.gamma: _to_channels(activations[0] * backprops, layer.gamma)}


def linear(layer: nn.Linear, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradients of a Linear over (B, ..., features), in the parameters' dtype."""
    samples: Samples = compute_linear_grad_sample(layer, activations, backprops)
    return {p: gradient.to(p.dtype) for p, gradient in samples.items()}


def linear_norm(layer: nn.Linear, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Return per-sample gradient NORMS of a Linear, without its gradients (ghost clipping).

    The T positions of a sample may lie on any number of axes, (B, ..., features). The gradient's
    norm comes from two T x T Gram matrices, or from the gradient itself where that is smaller.

    Returns
    -------
    dict
        Norms of shape (B,) for each trainable parameter.
    """
    x = activations[0].to(backprops.dtype)
    if backprops.dim() > 3:
        x, backprops = x.flatten(1, -2), backprops.flatten(1, -2)
    if backprops.dim() > 2 and not _gram_pays(layer, backprops.shape[1], backprops):
        return _norms(linear(layer, [x], backprops))
    norms: Samples = {}
    if layer.weight.requires_grad and backprops.dim() > 2:
        norms[layer.weight] = _gram_norm(x, backprops).to(layer.weight.dtype)
    elif layer.weight.requires_grad:
        norms[layer.weight] = (backprops.norm(dim=1) * x.norm(dim=1)).to(layer.weight.dtype)
    if layer.bias is not None and layer.bias.requires_grad:
        upstream = backprops.flatten(1, -2).sum(1) if backprops.dim() > 2 else backprops
        norms[layer.bias] = upstream.norm(dim=1).to(layer.bias.dtype)
    return norms


def _to_channels(products: Tensor, parameter: nn.Parameter) -> Tensor:
    return products.flatten(2).sum(2, dtype=parameter.dtype) if products.dim() > 2 else products


def _to_last(products: Tensor, parameter: nn.Parameter) -> Tensor:
    return products.flatten(1, -2).sum(1, dtype=parameter.dtype) if products.dim() > 2 else products


SAMPLERS: dict[type[nn.Module], Sampler] = {
    nn.Conv2d: convolution,
    nn.Linear: linear,
    nn.GroupNorm: group_norm,
    GroupNorm: group_norm,
    GroupNorm1: group_norm,
    nn.LayerNorm: layer_norm,
    LayerNorm: layer_norm,
    LayerNorm2d: layer_norm_2d,
    LayerScale: layer_scale,
    LayerScale2d: layer_scale_2d,
}
"""Every layer type that Wardround trains. Looked up by exact type, as in Opacus."""


def register_samplers() -> None:
    """Put the samplers into Opacus' global tables; calling it again changes nothing."""
    for layer_type, sampler in SAMPLERS.items():
        register_grad_sampler(layer_type)(sampler)
    register_norm_sampler(nn.Linear)(linear_norm)
    register_norm_sampler(nn.Conv2d)(convolution_norm)


def has_exact_sampler(layer: nn.Module) -> bool:
    """Tell whether the layer's own type (a subclass does not count) is one of `SAMPLERS`."""
    return type(layer) in SAMPLERS
