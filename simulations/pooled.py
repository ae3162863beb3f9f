"""The baseline of every federated study: the same network on the union of the data.

The same preparation, augmentation, class weights and number of passes as the campaign; AdamW on
a one-cycle schedule (Smith and Topin 2017, arXiv:1708.07120), which is what a careful researcher
would use with all images in one place. Always without privacy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.training.augmentation import augment
from client.training.dataset import PatientImages
from client.training.device import choose_device
from client.training.loss import per_sample_loss
from common.errors import InputRefused
from common.imaging import Pixels, to_tensor
from common.model import build_model
from common.recipe import Recipe


@dataclass(frozen=True)
class PooledTraining:
    """Passes over the union of the data; batch size; peak learning rate of the one-cycle."""

    passes: float
    batch: int = 64
    learning_rate: float = 2e-3


def train_pooled(
    recipe: Recipe,
    hospitals: Sequence[PatientImages],
    training: PooledTraining,
    *,
    weights: Path | None = None,
    seed: int = 0,
    threads: int = 0,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> nn.Module:
    """Train the recipe's network on all hospitals' training images together.

    Parameters
    ----------
    recipe : Recipe
        Network, augmentation and loss.
    hospitals : sequence of PatientImages
        The training sides.
    training : PooledTraining
        How long and how fast.
    weights : Path, optional
        A safetensors file to start from, as the campaign did.
    seed : int, default 0
        Of the initialisation, the order and the augmentation: equal seeds, equal models.
    threads : int, default 0
        CPU threads; 0 is one for each core.
    on_step : callable, optional
        Told the steps done and the steps in all.

    Raises
    ------
    InputRefused
        If there is no image.
    """
    sizes = [len(images) for images in hospitals]
    total = sum(sizes)
    if total == 0:
        raise InputRefused("There is no image to train on.", code="no-cases")
    steps = max(1, round(training.passes * total / training.batch))
    device = choose_device().torch
    torch.set_num_threads(threads or os.cpu_count() or 1)
    model = build_model(recipe, weights=weights, seed=seed).to(device).train()
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=training.learning_rate)
    # torch's own one-cycle needs two steps at least.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=max(2, steps)
    )
    order = _Order(total, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    for number in range(1, steps + 1):
        pixels, labels = _gather(hospitals, sizes, order.take(training.batch))
        inputs = to_tensor(augment(pixels, recipe.augmentation, generator), recipe.image).to(device)
        optimizer.zero_grad(set_to_none=True)
        losses = per_sample_loss(model(inputs), torch.from_numpy(labels).to(device), recipe.loss)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        on_step(number, steps)
    return model.eval()


class _Order:
    """An endless stream of shuffled passes over ``total`` images."""

    def __init__(self, total: int, rng: np.random.Generator) -> None:
        self._total = total
        self._rng = rng
        self._left = np.zeros(0, np.int64)

    def take(self, count: int) -> NDArray[np.int64]:
        """Return the next ``count`` indices."""
        while len(self._left) < count:
            self._left = np.concatenate([self._left, self._rng.permutation(self._total)])
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def _gather(
    hospitals: Sequence[PatientImages], sizes: Sequence[int], chosen: NDArray[np.int64]
) -> tuple[Pixels, NDArray[np.int64]]:
    """Return pixels and labels of images numbered through all hospitals."""
    bounds = np.cumsum([0, *sizes])
    owner = np.searchsorted(bounds, chosen, side="right") - 1
    pixels, labels = [], []
    for index in np.unique(owner):
        own = chosen[owner == index] - bounds[index]
        pixels.append(hospitals[index].read(own))
        labels.append(hospitals[index].labels[own])
    return np.concatenate(pixels), np.concatenate(labels)
