"""Membership inference: was this patient among those that the released model was trained on?

The attacker has the model, and the image and diagnosis of each candidate: patients whose data was
used, and as many of the same hospitals whose data was not. Two attacks: the loss itself (Yeom et
al. 2018, arXiv:1709.01604), and likelihood ratios from shadow models trained in the same way on
random halves of all candidates (LiRA, Carlini et al. 2022, arXiv:2112.03570). AUROC 0.5 is
guessing.

``python -m tests.attacks.membership`` measures on the real dermoscopy that ``WARDROUND_TEST_DATA``
names, or on phantoms where it names none.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from client.privacy.accounting import Budget, noise_multiplier_for
from client.training import PrivateStep, TrainingJob, train_plain, train_private
from client.training.dataset import PatientImages
from client.training.device import Device
from client.training.evaluation import predict
from client.training.features import compute_features, split_head
from common.imaging import decode, prepare
from common.model import build_model
from common.recipe import Augmentation, LocalTraining, Recipe, load_recipe
from simulations.phantoms import phantom_hospital, scanner_for_site
from tests.attacks.attack import Attack, Finding

EPSILON, DELTA = 8.0, 1e-5
LIMIT = 0.55
CPU = Device(torch.device("cpu"), autocast=False)
SHADOWS = 16
Indices = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """An image of each of 2 N patients; the first N are the members."""

    recipe: Recipe
    images: PatientImages
    rounds: int
    passes: int

    @property
    def members(self) -> Indices:
        return np.arange(len(self.images) // 2)

    def some(self, chosen: Indices, images: PatientImages | None = None) -> PatientImages:
        whole = images or self.images
        own = tuple(np.array([n]) for n in range(len(chosen)))
        return replace(whole, rows=whole.rows[chosen], labels=whole.labels[chosen], patients=own)


def real_candidates(folder: Path, count: int = 1000) -> Candidates:
    """One lesion each of ``count`` patients, drawn at random from all four hospitals."""
    with (folder / "labels.csv").open(newline="") as stream:
        rows = {row["patient_id"]: row for row in csv.DictReader(stream)}
    chosen = np.random.default_rng(0).permutation(sorted(rows))[:count]
    recipe = load_recipe("dermoscopy").with_changes(model="resnet18", image_size=64)
    pixels = [
        prepare(decode((folder / rows[p]["file"]).read_bytes()), recipe.image) for p in chosen
    ]
    labels = [recipe.classes.index(rows[p]["label"]) for p in chosen]
    return Candidates(recipe, _images(pixels, labels), rounds=20, passes=35)


def phantom_candidates(count: int = 240, *, passes: int = 60) -> Candidates:
    """Phantoms with diagnoses drawn by lot: nothing but memory can tell them."""
    recipe = load_recipe("dermoscopy").with_changes(model="test_resnet", image_size=32)
    random = np.random.default_rng(0)
    drawn = phantom_hospital(recipe, scanner_for_site(0), count, random, size=48, most_images=1)
    pixels = [prepare(decode(case.image), recipe.image) for case in drawn]
    labels = random.integers(0, len(recipe.classes), len(pixels)).tolist()
    return Candidates(recipe, _images(pixels, labels), rounds=10, passes=passes)


def _images(pixels: Sequence[NDArray[np.uint8]], labels: Sequence[int]) -> PatientImages:
    own = tuple(np.array([n]) for n in range(len(labels)))
    rows = np.arange(len(labels), dtype=np.int64)
    return PatientImages(np.stack(pixels), rows, np.array(labels, dtype=np.int64), own)


def private_model(candidates: Candidates, chosen: Indices, images: PatientImages) -> nn.Module:
    """Train as the recipe does with privacy: the head alone, within the epsilon of a campaign."""
    spec, patients = candidates.recipe.privacy, len(chosen)
    job = _job(candidates.recipe, spec.training, "head")
    sigma = noise_multiplier_for(
        campaign=(),
        life=(),
        sampling_rate=spec.training.sampling_rate,
        steps=spec.training.local_steps,
        rounds_left=candidates.rounds,
        budget=Budget(EPSILON, 2 * EPSILON, DELTA, min_noise_multiplier=0.5),
    )
    step = PrivateStep(sigma, spec.max_grad_norm, spec.training.sampling_rate * patients)
    model = build_model(candidates.recipe, pretrained=False)
    for _ in range(candidates.rounds):
        train_private(model, candidates.some(chosen, images), job, step=step)
    return model


def plain_model(candidates: Candidates, chosen: Indices) -> nn.Module:
    """Train everything, without privacy, for many passes.

    Without augmentation, too: the private model has none either, on its backbone's kept features.
    """
    rate = 32 / len(chosen)
    steps = round(candidates.passes / rate)
    training = LocalTraining(
        optimizer="adamw", learning_rate=1e-3, local_steps=steps, sampling_rate=rate
    )
    bare = Augmentation(horizontal_flip=False, vertical_flip=False)
    recipe = candidates.recipe.model_copy(update={"augmentation": bare})
    model = build_model(recipe, pretrained=False)
    job = _job(recipe, training, "all")
    train_plain(model, candidates.some(chosen), job, campaign="membership", steps_before=0)
    return model


def _job(recipe: Recipe, training: LocalTraining, scope: str) -> TrainingJob:
    return TrainingJob(recipe, training, scope, CPU)  # type: ignore[arg-type]


def with_features(candidates: Candidates) -> PatientImages:
    """Give the images their frozen backbone's features, as a site does."""
    model = build_model(candidates.recipe, pretrained=False)
    split = split_head(model, candidates.recipe.image.size)
    assert split is not None
    compute = compute_features(split, model, candidates.recipe, device=CPU, memory_megabytes=2048)
    return replace(candidates.images, features=compute(candidates.images.pixels))


def confidences(candidates: Candidates, model: nn.Module, images: PatientImages) -> Scores:
    """Return the log odds of the true diagnosis, for each candidate."""
    spec = candidates.recipe.image
    found = predict(model, images, spec, device=CPU, memory_megabytes=2048).astype(np.float64)
    true = np.clip(found[np.arange(len(images)), images.labels], 1e-12, 1 - 1e-12)
    scores: Scores = np.log(true) - np.log1p(-true)
    return scores


def auroc(scores: Scores) -> float:
    """Return how well scores tell the first half, the members, from the rest."""
    members = np.arange(len(scores)) < len(scores) // 2
    return float(roc_auc_score(members, scores))


def likelihood_ratios(target: Scores, shadows: Sequence[Scores], held: Sequence[Indices]) -> Scores:
    """Return LiRA's score: Gaussians with and without each candidate, one variance for all."""
    values = np.stack(shadows)
    inside = np.zeros(values.shape, dtype=bool)
    for row, chosen in zip(inside, held, strict=True):
        row[chosen] = True
    with_, without = np.ma.array(values, mask=~inside), np.ma.array(values, mask=inside)
    mean_with, mean_without = with_.mean(axis=0), without.mean(axis=0)
    spread = float(np.ma.concatenate([with_ - mean_with, without - mean_without]).var()) + 1e-12
    ratios = ((target - mean_without) ** 2 - (target - mean_with) ** 2) / (2 * spread)
    return np.asarray(ratios.filled(0.0), dtype=np.float64)


@dataclass(frozen=True)
class Measured:
    """AUROC of each attack; ``error`` is about one standard error at the AUROC of a guess."""

    loss: float
    shadows: float | None
    error: float

    @property
    def worst(self) -> float:
        return max(self.loss, self.shadows or 0.0)


def attack_released(candidates: Candidates, shadows: int) -> Measured:
    """Attack the model that is released with privacy."""
    images = with_features(candidates)
    target = confidences(candidates, private_model(candidates, candidates.members, images), images)
    random, total = np.random.default_rng(1), len(candidates.images)
    held = [np.sort(random.permutation(total)[: total // 2]) for _ in range(shadows)]
    others = [
        confidences(candidates, private_model(candidates, chosen, images), images)
        for chosen in held
    ]
    ratios = auroc(likelihood_ratios(target, others, held)) if shadows else None
    return Measured(auroc(target), ratios, _error(total))


def attack_plain(candidates: Candidates) -> Measured:
    """Attack a model of the same patients that was trained without privacy."""
    model = plain_model(candidates, candidates.members)
    scores = confidences(candidates, model, candidates.images)
    return Measured(auroc(scores), None, _error(len(scores)))


def _error(total: int) -> float:
    """Return the standard deviation of an AUROC under no difference (Mann and Whitney 1947)."""
    half = total // 2
    return float(np.sqrt((2 * half + 1) / (12 * half * half)))


def short(_folder: Path) -> Finding:
    """A few phantoms; at so few patients an AUROC's error is large, and so is the margin."""
    found = attack_released(phantom_candidates(), shadows=0)
    limit = LIMIT + 3 * found.error
    return Finding(found.loss > limit, "loss attack on 240 phantoms", _said(found))


def full(_folder: Path) -> Finding:
    """The must-show: with privacy at most 0.55, and visibly more without, in one run."""
    candidates, what = _best_candidates()
    released, plain = attack_released(candidates, SHADOWS), attack_plain(candidates)
    visible = plain.loss >= max(0.60, released.worst + 3 * released.error)
    won = released.worst > LIMIT or not visible
    said = f"{_said(released)} at epsilon {EPSILON:g}; without privacy {_said(plain)}"
    return Finding(won, f"{len(candidates.images)} candidates, {what}", said)


def _best_candidates() -> tuple[Candidates, str]:
    root = os.environ.get("WARDROUND_TEST_DATA")
    folder = Path(root) / "ham10000_128" if root else None
    if folder is not None and (folder / "labels.csv").is_file():
        return real_candidates(folder), "real dermoscopy"
    return phantom_candidates(1000), "phantoms (WARDROUND_TEST_DATA names no dermoscopy)"


def _said(found: Measured) -> str:
    shadows = "" if found.shadows is None else f", {found.shadows:.3f} (shadow models)"
    return f"AUROC {found.loss:.3f} (loss){shadows} +- {found.error:.3f}"


def train_without_privacy(patch: pytest.MonkeyPatch) -> None:
    def plain(candidates: Candidates, chosen: Indices, _images: PatientImages) -> nn.Module:
        return plain_model(candidates, chosen)

    patch.setattr(sys.modules[__name__], "private_model", plain)
    patch.setattr(sys.modules[__name__], "with_features", lambda candidates: candidates.images)


ATTACKS = (
    Attack(
        "membership-inference",
        "curious coordinator",
        "who was in the training data, from the released model",
        "patient-level DP-SGD at epsilon 8",
        short,
        train_without_privacy,
        full,
    ),
)


def main() -> int:
    """Measure once and say so; returns the exit status."""
    found = full(Path())
    sys.stdout.write(f"{found.happened}: {found.figure}\n")
    return int(found.won)


if __name__ == "__main__":
    sys.exit(main())
