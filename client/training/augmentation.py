"""Random changes to a batch of training images, each image by its own chances alone.

Independence is what privacy needs: an augmentation that looked at other images of the batch would
let one patient touch another's gradient. Done on whole batches of tensors, because a loop over
images costs more than a small network's training step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)

from common.imaging import Pixels
from common.recipe import Augmentation

LUMA = (0.299, 0.587, 0.114)
"""Grey value of an RGB pixel (ITU-R BT.601)."""


def augment(batch: Pixels, spec: Augmentation, generator: torch.Generator) -> Pixels:
    """Return changed copies of prepared images.

    Parameters
    ----------
    batch : ndarray of uint8, shape (B, size, size, 3)
    spec : Augmentation
        Flips by an even chance each; a rotation within plus or minus ``rotation_degrees``, black
        outside; brightness, contrast and saturation by factors within 1 plus or minus
        ``colour_jitter``.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    ndarray of uint8, shape (B, size, size, 3)
    """
    images = torch.from_numpy(batch).permute(0, 3, 1, 2)
    if spec.horizontal_flip:
        images = _flip(images, 3, generator)
    if spec.vertical_flip:
        images = _flip(images, 2, generator)
    if (spec.rotation_degrees or spec.colour_jitter) and len(images):
        unit = images.float() / 255
        if spec.rotation_degrees:
            unit = _rotate(unit, math.radians(spec.rotation_degrees), generator)
        if spec.colour_jitter:
            unit = _jitter(unit, spec.colour_jitter, generator)
        images = (unit * 255).round_().clamp_(0, 255).to(torch.uint8)
    result: Pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    return result


def _flip(images: torch.Tensor, dimension: int, generator: torch.Generator) -> torch.Tensor:
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(dimension), images)


def _rotate(images: torch.Tensor, limit: float, generator: torch.Generator) -> torch.Tensor:
    angles = (torch.rand(len(images), generator=generator) * 2 - 1) * limit
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(len(images))
    matrices = torch.stack(
        [torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)], dim=1
    )
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _jitter(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    factors = 1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean((1, 2, 3), keepdim=True)  # of each image alone
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    grey = _grey(images)
    jittered: torch.Tensor = (grey + saturation * (images - grey)).clamp(0, 1)
    return jittered


def _grey(images: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(LUMA)[None, :, None, None]
    grey: torch.Tensor = (images * weights).sum(1, keepdim=True)
    return grey
