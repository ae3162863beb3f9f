"""Drawn lesions whose place is known, and a small network that learns to tell them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simulations.lesions import draw, smooth_noise, style_for, vary

SIDE = 64
CLASSES = ("nv", "mel", "vasc")
Batch = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Phantoms:
    """Images (N, 3, S, S), normalised; where the lesion is (N, S, S), bool; classes (N,)."""

    images: Batch
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]


def phantoms(count: int, seed: int) -> Phantoms:
    """Draw lesions on skin, anywhere in the picture."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    images = np.zeros((count, 3, SIDE, SIDE), np.float32)
    masks = np.zeros((count, SIDE, SIDE), bool)
    for number, label in enumerate(labels):
        style = vary(style_for(CLASSES[label], int(label)), rng)
        lesion = draw(style, SIDE, rng, wander=0.3)
        skin = np.array([0.86, 0.68, 0.58], np.float32) + np.float32(rng.normal(0, 0.04))
        skin = skin + 0.03 * smooth_noise(SIDE, 5, rng)[..., None]
        blend = np.clip(0.5 + 0.5 * lesion.texture, 0, 1)[..., None] * np.float32(style.texture)
        colours = (np.asarray(c, np.float32) for c in (style.colour, style.second_colour))
        first, second = colours
        inside = first * (1 - blend) + second * blend
        picture = skin + lesion.mask[..., None] * (inside - skin)
        images[number] = ((picture - 0.6) / 0.25).transpose(2, 0, 1)
        masks[number] = lesion.mask > 0.5
    return Phantoms(images, masks, labels.astype(np.int64))


def small_network(seed: int) -> nn.Module:
    """Return a network of random weights whose last map has 8 x 8 places."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(64, len(CLASSES)),
        ).eval()


def trained(network: nn.Module, known: Phantoms, *, steps: int) -> nn.Module:
    """Train a network in place, always with the same draws."""
    dice = np.random.default_rng(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    for _ in range(steps):
        chosen = dice.integers(0, len(known.labels), 32)
        logits = network(torch.from_numpy(known.images[chosen]))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(known.labels[chosen]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()
