"""MixUp and CutMix, for studies without privacy: they make one picture of two patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from common.recipe import NonPrivateExtras


@dataclass(frozen=True)
class Mixed:
    """Images of which ``share`` is the labelled one's, and the rest its partner's.

    The loss is ``share`` times that by ``labels`` plus the rest times that by ``partners``.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    partners: torch.Tensor
    share: float


def mix(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    extras: NonPrivateExtras,
    generator: torch.Generator,
) -> Mixed:
    """Mix a batch by MixUp or CutMix; where both are on, by either with an even chance.

    MixUp: Zhang et al. 2018, arXiv:1710.09412. CutMix: Yun et al. 2019, arXiv:1905.04899.

    Parameters
    ----------
    inputs : Tensor, shape (B, 3, H, W)
    labels : Tensor of int64, shape (B,)
    extras : NonPrivateExtras
        The alphas of both; 0 is off.
    generator : torch.Generator
        On the CPU.
    """
    ways = [w for w, alpha in (("up", extras.mixup_alpha), ("cut", extras.cutmix_alpha)) if alpha]
    if not ways or len(inputs) < 2:
        return Mixed(inputs, labels, labels, 1.0)
    way = ways[int(torch.randint(len(ways), (1,), generator=generator))]
    order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    partners = labels[order]
    if way == "up":
        share = _beta(extras.mixup_alpha, generator)
        return Mixed(share * inputs + (1 - share) * inputs[order], labels, partners, share)
    share = _beta(extras.cutmix_alpha, generator)
    top, bottom, left, right = _box(inputs.shape[-2:], share, generator)
    mixed = inputs.clone()
    mixed[:, :, top:bottom, left:right] = inputs[order][:, :, top:bottom, left:right]
    area = (bottom - top) * (right - left) / (inputs.shape[-2] * inputs.shape[-1])
    return Mixed(mixed, labels, partners, 1 - area)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha)."""
    shape = torch.full((2,), alpha, dtype=torch.float64)
    first, second = torch._standard_gamma(shape, generator=generator).tolist()
    return float(first / (first + second)) if first + second > 0 else 0.5


def _box(size: torch.Size, share: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    height, width = size
    side = math.sqrt(1 - share)
    row, column = (torch.rand(2, generator=generator) * torch.tensor([height, width])).tolist()
    half_height, half_width = side * height / 2, side * width / 2
    return (
        max(0, round(row - half_height)),
        min(height, round(row + half_height)),
        max(0, round(column - half_width)),
        min(width, round(column + half_width)),
    )
