"""Turn a timm network into one whose per-sample gradients are exact, and refuse what is not.

Differential privacy by DP-SGD (Abadi et al. 2016, arXiv:1607.00133) bounds what ONE sample may
do, so a network must treat every sample alone, and the gradient that is clipped must be the
sample's true gradient. Stock timm networks break both, some without any error:

* BatchNorm mixes the samples of a batch;
* ``x += shortcut`` and in-place activations overwrite tensors that the hooks still need;
* parameters outside a module of their own (ConvNeXt's ``gamma``, ViT's tokens) have no sampler.

`convert` cures these; `validate` refuses every network in which one of them, or a layer without
an exact sampler, is left. Convert AFTER loading weights: conversion keeps them, but renames some.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Literal, TypeAlias

import torch
from timm.layers.layer_scale import LayerScale2d
from timm.layers.norm_act import BatchNormAct2d, GroupNormAct, freeze_batch_norm_2d
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from common.dp_samplers import has_exact_sampler, register_samplers
from common.errors import ModelError

Normalisation: TypeAlias = Literal["group", "frozen"]

TOKEN_PARAMETERS = ("cls_token", "dist_token", "reg_token", "pos_embed")
"""Bare parameters of timm's vision transformers: frozen, because a hook cannot see them alone."""

MAXIMUM_GROUPS = 32
MINIMUM_CHANNELS_PER_GROUP = 4


class NormAct(nn.Module):
    """Group normalisation, then dropout, then activation: what timm does in one class.

    The GroupNorm is a child of its own, so that the gradient its hook sees is that of the
    normalisation's output and not of the activation's.

    Parameters
    ----------
    norm : nn.GroupNorm
        Its parameters appear as ``norm.weight`` and ``norm.bias``.
    drop, act : nn.Module
        Taken over from the replaced layer.
    """

    def __init__(self, norm: nn.GroupNorm, drop: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.drop = drop
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised, activated features, shape (B, C, H, W)."""
        activated: torch.Tensor = self.act(self.drop(self.norm(x)))
        return activated


class Clone(nn.Module):
    """Copy the tensor, so that a following in-place addition spares the hooked layer's output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a copy of ``x``."""
        return x.clone()


def convert(model: nn.Module, *, normalisation: Normalisation) -> nn.Module:
    """Make a timm network DP-trainable in place, keeping its weights.

    Parameters
    ----------
    model : nn.Module
        With its weights already loaded.
    normalisation : {"group", "frozen"}
        ``group`` puts GroupNorm (Wu and He 2018, arXiv:1803.08494) in place of BatchNorm, keeping
        scale and shift; ``frozen`` keeps BatchNorm's public statistics, scale and shift as
        constants, which is what a pretrained network's features need.

    Returns
    -------
    nn.Module
        The same network, validated.

    Raises
    ------
    ModelError
        If something is left that would make private training wrong (see `validate`).
    """
    register_samplers()
    if normalisation == "frozen":
        model = freeze_batch_norm_2d(model)  # type: ignore[no-untyped-call]  # timm's
    for name, module in list(model.named_modules()):
        replacement = _replacement(module, normalisation)
        if replacement is not None:
            _replace(model, name, replacement)
    for module in model.modules():
        _separate(module)
    _freeze_tokens(model)
    validate(model)
    return model


def group_count(channels: int) -> int:
    """Return the number of groups: at most 32, a divisor, with 4 or more channels a group.

    The floor matters where a small image has shrunk to one pixel: a group of one channel would
    then be normalised to zero.
    """
    groups = math.gcd(MAXIMUM_GROUPS, channels)
    while groups > 1 and channels // groups < MINIMUM_CHANNELS_PER_GROUP:
        groups //= 2
    return groups


def _replacement(module: nn.Module, normalisation: Normalisation) -> nn.Module | None:
    if type(module) is GroupNormAct:
        return NormAct(_plain_group_norm(module, module.num_groups), module.drop, module.act)
    if normalisation == "frozen":
        return None
    if type(module) is BatchNormAct2d:
        norm = _plain_group_norm(module, group_count(module.num_features))
        return NormAct(norm, module.drop, module.act)
    if type(module) is nn.BatchNorm2d:
        return _plain_group_norm(module, group_count(module.num_features))
    return None


def _plain_group_norm(source: nn.Module, groups: int) -> nn.GroupNorm:
    channels = getattr(source, "num_features", None) or getattr(source, "num_channels", None)
    if channels is None or not isinstance(source.weight, nn.Parameter):
        raise ModelError(
            "A normalisation layer has no scale and shift of its own.", code="model-unsupported"
        )
    weight = source.weight
    norm = nn.GroupNorm(
        groups, int(channels), eps=float(str(source.eps)), device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        norm.weight.copy_(weight)
        norm.bias.copy_(torch.as_tensor(source.bias))
    return norm


def _replace(model: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    model.get_submodule(parent).register_module(last, replacement)


def _separate(module: nn.Module) -> None:
    """Undo in-place work, and give ConvNeXt's ``gamma`` a module of its own."""
    if getattr(module, "inplace", False) is True:
        module.inplace = False  # type: ignore[assignment]  # the flag of an activation
    if isinstance(module, BasicBlock | Bottleneck):
        block: nn.Module = module
        path = block.drop_path
        block.drop_path = nn.Sequential(Clone(), path) if isinstance(path, nn.Module) else Clone()
    if isinstance(module, ConvNeXtBlock) and module.gamma is not None:
        scale = LayerScale2d(module.gamma.numel())
        scale.gamma = nn.Parameter(module.gamma.detach().clone())
        module.gamma = None
        module.register_module("drop_path", nn.Sequential(scale, module.drop_path))


def _freeze_tokens(model: nn.Module) -> None:
    for owner in model.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if name in TOKEN_PARAMETERS:
                parameter.requires_grad_(False)


def must_stay_frozen(owner: nn.Module, name: str) -> bool:
    """Tell whether the parameter ``name`` directly under ``owner`` may never be trained."""
    return name in TOKEN_PARAMETERS or not has_exact_sampler(owner)


def validate(model: nn.Module) -> None:
    """Refuse a network that private training would get wrong.

    Refused are: any BatchNorm (by ``isinstance``; one with frozen scale left in ``train()``
    passes Opacus' own check, and leaks), instance normalisation with running statistics,
    convolutions with a padding other than zeros, in-place layers, one parameter in two places,
    and trainable parameters of a layer without an exact per-sample gradient.

    Raises
    ------
    ModelError
        With code ``model-batch-norm``, ``model-padding``, ``model-in-place``, ``model-tied`` or
        ``model-unsupported``; the message names the layer.
    """
    for name, module in model.named_modules():
        for fault, code in _faults(module):
            raise ModelError(
                f"The layer {name or 'at the root'} ({type(module).__name__}) {fault}.",
                meaning="Its per-sample gradients would be wrong, so privacy would not hold.",
                action="Choose one of the recipe's networks.",
                code=code,
            )
    places = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    if any(count > 1 for count in places.values()):
        raise ModelError("The network uses one parameter in two places.", code="model-tied")


def _faults(module: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(module, _BatchNorm):
        yield "mixes the samples of a batch", "model-batch-norm"
    if isinstance(module, _InstanceNorm) and module.track_running_stats:
        yield "keeps running statistics of private images", "model-batch-norm"
    if isinstance(module, _ConvNd) and module.padding_mode != "zeros":
        yield f"pads with {module.padding_mode}, not zeros", "model-padding"
    if isinstance(module, _ConvNd) and isinstance(module.padding, str):
        yield f"has the padding {module.padding!r} instead of numbers", "model-padding"
    if getattr(module, "inplace", False) is True:
        yield "changes its input in place", "model-in-place"
    trainable = any(p.requires_grad for p in module.parameters(recurse=False))
    if trainable and not has_exact_sampler(module):
        yield "has trainable parameters but no exact per-sample gradient", "model-unsupported"
