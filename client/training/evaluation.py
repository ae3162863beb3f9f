"""Predictions of a model over holdout images, and what a site counts of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.policy import SitePolicy
from client.training.dataset import PatientImages
from client.training.device import Device, physical_rows
from common.evaluation import CaseGroups, SiteEvaluation, evaluate_predictions, finite_rows
from common.evaluation_counts import GROUPS
from common.imaging import to_tensor
from common.recipe import ImageSpec, Recipe


def predict(
    model: nn.Module,
    images: PatientImages,
    spec: ImageSpec,
    *,
    device: Device,
    memory_megabytes: int,
) -> NDArray[np.float32]:
    """Return the class probabilities of every image, float32 (N, K), in order.

    No augmentation; float32 throughout, as at inference. Where the images hold the features of
    the model's own backbone, its classifier alone is asked.
    """
    model.to(device.torch).eval()
    if images.features is not None:
        return _predict_from_features(model, images, device)
    rows = physical_rows(model, spec.size, megabytes=memory_megabytes, per_sample_gradients=False)
    parts: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(images), rows):
            indices = np.arange(start, min(start + rows, len(images)))
            inputs = to_tensor(images.read(indices), spec).to(device.torch)
            parts.append(torch.softmax(model(inputs).float(), dim=1).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def count_holdout(
    probabilities: NDArray[np.float32], images: PatientImages, recipe: Recipe, policy: SitePolicy
) -> SiteEvaluation:
    """Count what the policy releases of a holdout's predictions.

    A case is a patient with one label: the probabilities of his or her images of that label are
    averaged. So a patient of many views weighs no more than one of a single view, and no cell of
    ``minimum_cell`` cases is made of a few patients. An image for which the network overflows
    counts as one that it answers with every class alike.

    The smallest cell guards a patient against who reads the report. It does not guard against who
    makes the model, and can make one that answers a single picture unlike all others.

    Parameters
    ----------
    probabilities : ndarray of float32 (N, K)
        One row an image, as `predict` returns them.
    images : PatientImages
        The holdout.
    recipe : Recipe
        Its classes, and which of them are positive.
    policy : SitePolicy
        What may leave.
    """
    cases = _cases(images)
    finite = finite_rows(probabilities.astype(np.float64))
    scores = np.stack([finite[case].mean(axis=0) for case in cases])
    return evaluate_predictions(
        np.minimum(scores, 1.0),
        _labels(images, cases),
        recipe.classes,
        minimum_cell=policy.minimum_cell,
        positive_classes=recipe.decision.positive_classes,
        statistics=policy.release_statistics,
        groups=_groups(images, cases) if images.age_bands and images.sexes else None,
    )


def case_labels(images: PatientImages) -> NDArray[np.int64]:
    """Return the label (N,) of each case that `count_holdout` counts."""
    return _labels(images, _cases(images))


def age_group(band: str | None) -> str | None:
    """Return the subgroup of a ten-year band (`client.cases.case.age_band`); None if unknown."""
    if band is None:
        return None
    years = int(band.rstrip("+").partition("-")[0])
    return "<40" if years < 40 else "40-59" if years < 60 else "60-79" if years < 80 else "80+"


def _cases(images: PatientImages) -> list[NDArray[np.int64]]:
    """Return the images of each patient and label, in order."""
    found = []
    for patient in images.patients:
        labels = images.labels[patient]
        found += [patient[labels == label] for label in np.unique(labels)]
    return found


def _labels(images: PatientImages, cases: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.array([images.labels[case[0]] for case in cases], dtype=np.int64)


def _groups(images: PatientImages, cases: list[NDArray[np.int64]]) -> CaseGroups:
    ages, sexes = [], []
    for case in cases:
        # Where images tell of different ages, the first counts: a patient is in one subgroup.
        known = [band for band in (images.age_bands[i] for i in case) if band is not None]
        age = age_group(known[0]) if known else None
        ages.append(GROUPS["age"].index(age) if age is not None else -1)
        told = [sex for sex in (images.sexes[i] for i in case) if sex is not None]
        sexes.append(GROUPS["sex"].index(told[0]) if told else -1)
    return CaseGroups(age=np.array(ages, dtype=np.int64), sex=np.array(sexes, dtype=np.int64))


def _predict_from_features(
    model: nn.Module, images: PatientImages, device: Device
) -> NDArray[np.float32]:
    whole: Any = model
    classifier: nn.Module = whole.get_classifier()
    with torch.inference_mode():
        features = torch.from_numpy(images.read_features(np.arange(len(images))))
        probabilities = torch.softmax(classifier(features.to(device.torch)).float(), dim=1)
    found: NDArray[np.float32] = probabilities.cpu().numpy()
    return found
