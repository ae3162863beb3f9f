"""What a frozen backbone makes of each image: computed once, kept, and trained on.

Where only the classifier moves, all before it is the same function in every step of every round,
and again in the next campaign that starts from that model. So each image passes it once, as it
is (unaugmented), and a step trains the classifier on what came out: the same gradients as those
of the whole network, for a fraction of its cost (Tramer and Boneh 2021, arXiv:2011.11660, train
private linear classifiers on fixed features likewise).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.training.device import Device, physical_rows
from common.imaging import Pixels, to_tensor
from common.model import classifier_names
from common.recipe import Recipe
from common.update import Tensors, tensors_digest

Features = NDArray[np.float32]
TOLERANCE = 1e-3
"""Largest difference of a logit, in units of the largest one, that counts as the same network."""


@dataclass(frozen=True)
class HeadSplit:
    """A network as two: ``backbone`` gives (B, D) features, ``head`` is the linear classifier."""

    backbone: Callable[[torch.Tensor], torch.Tensor]
    head: nn.Linear


def split_head(model: nn.Module, image_size: int) -> HeadSplit | None:
    """Divide a timm network before its classifier; None where it cannot be divided there.

    That both parts together are the network is tried on random images.
    """
    network: Any = model
    head = network.get_classifier()
    if not isinstance(head, nn.Linear) or not hasattr(network, "forward_head"):
        return None

    def backbone(images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = network.forward_head(
            network.forward_features(images), pre_logits=True
        )
        return features

    split = HeadSplit(backbone, head)
    return split if _is_whole(model, split, image_size) else None


def features_key(recipe: Recipe, base: Tensors, model: nn.Module) -> str:
    """Return a digest of all that decides the features: the network and its frozen tensors."""
    moving = set(classifier_names(model))
    frozen = tensors_digest({name: array for name, array in base.items() if name not in moving})
    spec = f"{recipe.model.architecture}\0{recipe.model.normalisation}\0{recipe.image.mean}"
    return hashlib.sha256(f"{spec}\0{recipe.image.std}\0{frozen}".encode()).hexdigest()


def compute_features(
    split: HeadSplit, model: nn.Module, recipe: Recipe, *, device: Device, memory_megabytes: int
) -> Callable[[Pixels], Features]:
    """Return a function from uint8 (N, S, S, 3) pixels to float32 (N, D) features."""
    model.to(device.torch).eval()
    size = recipe.image.size
    rows = physical_rows(model, size, megabytes=memory_megabytes, per_sample_gradients=False)

    def compute(pixels: Pixels) -> Features:
        parts: list[Features] = []
        with torch.no_grad():
            for start in range(0, len(pixels), rows):
                batch = np.asarray(pixels[start : start + rows])
                inputs = to_tensor(batch, recipe.image).to(device.torch)
                parts.append(split.backbone(inputs).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)

    return compute


def _is_whole(model: nn.Module, split: HeadSplit, size: int) -> bool:
    training = model.training
    device = next(model.parameters()).device
    probe = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        model.eval()
        with torch.no_grad():
            features, logits = split.backbone(probe), model(probe)
            if features.shape != (2, split.head.in_features):
                return False
            apart = (split.head(features) - logits).abs().max()
            return bool(apart <= TOLERANCE * logits.abs().max().clamp(min=TOLERANCE))
    finally:
        model.train(training)
