"""Gradient inversion: a patient's image rebuilt from the update of a round.

The attacker knows the base model and the diagnosis, and looks for the image whose gradient is
most like the update (Zhu et al. 2019, arXiv:1906.08935; cosine distance as Geiping et al. 2020,
arXiv:2003.14053). One patient, one step and a small network with sigmoids are the attacker's best
case; the figure is the structural similarity (SSIM, Wang et al. 2004) with the true image, and
that of the best guess without the update is given beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from client.privacy.accounting import Budget, noise_multiplier_for
from client.training import PrivateStep, TrainingJob, train_private
from client.training.dataset import PatientImages
from client.training.device import Device
from common.imaging import decode, prepare, to_tensor
from common.recipe import Augmentation, LocalTraining, Recipe, load_recipe
from simulations.phantoms import phantom_hospital, scanner_for_site
from tests.attacks.attack import Attack, Finding

SIDE = 16
LIMIT = 0.3
STEPS = 30
CPU = Device(torch.device("cpu"), autocast=False)


class SmoothNet(nn.Module):
    """Two convolutions with sigmoids and a classifier, as in Zhu et al.: easy to invert."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first = nn.Conv2d(3, 12, 5, stride=2, padding=2)
            self.second = nn.Conv2d(12, 12, 5, stride=1, padding=2)
            self.head = nn.Linear(12 * (SIDE // 2) ** 2, classes)
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -0.5, 0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.sigmoid(self.second(torch.sigmoid(self.first(images))))
        logits: torch.Tensor = self.head(hidden.flatten(1))
        return logits

    def get_classifier(self) -> nn.Module:
        return self.head


def one_patient() -> tuple[Recipe, PatientImages]:
    """A hospital of one phantom patient."""
    recipe = load_recipe("dermoscopy").with_changes(model="test_resnet", image_size=SIDE)
    plain = Augmentation(horizontal_flip=False, vertical_flip=False)
    recipe = recipe.model_copy(update={"augmentation": plain})
    random = np.random.default_rng(4)
    scanner = scanner_for_site(0)
    (case,) = phantom_hospital(recipe, scanner, 1, random, size=48, most_images=1)
    pixels = prepare(decode(case.image), recipe.image)[None]
    label = np.array([recipe.classes.index(case.label)])
    return recipe, PatientImages(pixels, np.array([0]), label, (np.array([0]),))


def gradient_of(recipe: Recipe, images: PatientImages, *, epsilon: float) -> list[torch.Tensor]:
    """Return the direction of one private step's update, as the coordinator sees it."""
    training = LocalTraining(optimizer="sgd", learning_rate=1.0, local_steps=1, sampling_rate=1.0)
    budget = Budget(epsilon, epsilon, 1e-5, min_noise_multiplier=0.5)
    sigma = noise_multiplier_for(
        campaign=(), life=(), sampling_rate=1.0, steps=1, rounds_left=1, budget=budget
    )
    model = SmoothNet(len(recipe.classes))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    job = TrainingJob(recipe, training, "all", CPU)
    step = PrivateStep(_noise(sigma), max_grad_norm=1.0, expected_patients=1.0)
    train_private(model, images, job, step=step)
    return [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]


def _noise(sigma: float) -> float:
    return sigma


def invert(recipe: Recipe, images: PatientImages, seen: list[torch.Tensor]) -> torch.Tensor:
    """Return the image, (1, 3, S, S) normalised, whose gradient is most like what was seen."""
    model, label = SmoothNet(len(recipe.classes)), torch.from_numpy(images.labels)
    generator = torch.Generator().manual_seed(0)
    guess = torch.randn(1, 3, SIDE, SIDE, generator=generator).requires_grad_(True)
    optimizer = torch.optim.LBFGS([guess], lr=1.0, max_iter=20, line_search_fn="strong_wolfe")
    target = torch.cat([tensor.flatten() for tensor in seen])
    parameters = list(model.parameters())

    def distance() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(guess), label)
        own = torch.autograd.grad(loss, parameters, create_graph=True)
        flat = torch.cat([tensor.flatten() for tensor in own])
        apart = 1 - functional.cosine_similarity(flat, target, dim=0)
        smooth = guess.diff(dim=2).abs().mean() + guess.diff(dim=3).abs().mean()
        total: torch.Tensor = apart + 1e-5 * smooth
        total.backward()  # type: ignore[no-untyped-call]
        return total

    for _ in range(STEPS):
        optimizer.step(distance)  # type: ignore[arg-type]
    return guess.detach()


def ssim(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the mean structural similarity of two images, over windows of 7 x 7."""

    def mean(image: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(image, 7, stride=1)

    span = float(first.max() - first.min())
    one, two = (0.01 * span) ** 2, (0.03 * span) ** 2
    at, bt = mean(first), mean(second)
    va, vb = mean(first**2) - at**2, mean(second**2) - bt**2
    both = mean(first * second) - at * bt
    top = (2 * at * bt + one) * (2 * both + two)
    return float((top / ((at**2 + bt**2 + one) * (va + vb + two))).mean())


def inversion(_folder: Path) -> Finding:
    recipe, images = one_patient()
    true = to_tensor(images.read(np.array([0])), recipe.image)
    found = invert(recipe, images, gradient_of(recipe, images, epsilon=8.0))
    similar = ssim(true, found.clamp(float(true.min()), float(true.max())))
    grey = ssim(true, torch.full_like(true, float(true.mean())))
    figure = f"SSIM {similar:.2f}, grey square {grey:.2f}"
    return Finding(
        similar > max(LIMIT, grey + 0.15), "one patient, one step, a network easy to invert", figure
    )


def without_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys.modules[__name__], "_noise", lambda _sigma: 0.0)


ATTACKS = (
    Attack(
        "gradient-inversion",
        "curious coordinator",
        "a patient's image rebuilt from an update",
        "DP-SGD's noise at epsilon 8",
        inversion,
        without_noise,
    ),
)
