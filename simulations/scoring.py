"""Exact scores of a model on the hospitals' test patients, from the predictions themselves.

A deployment merges counts instead (`common.evaluation`); a simulation may look at every case, so
its figures are scikit-learn's, without bins and without suppressed cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_auc_score
from torch import nn

from client.cases.store import CaseStore
from client.local_layers import LocalLayerStore
from client.settings import SiteSettings
from client.training.dataset import PatientImages, patient_images
from client.training.device import choose_device
from client.training.evaluation import predict
from client.training.pixel_cache import PixelCache
from common.model import build_model, load_tensors
from common.recipe import Recipe
from common.update import Tensors


@dataclass(frozen=True)
class HospitalImages:
    """One hospital's prepared images, by side of the split."""

    name: str
    training: PatientImages
    holdout: PatientImages


@dataclass(frozen=True)
class Predictions:
    """Class probabilities (N, K) and labels (N,) for each hospital, in the hospitals' order."""

    probabilities: tuple[NDArray[np.floating], ...]
    labels: tuple[NDArray[np.int64], ...]


class Scores(BaseModel):
    """Scores on a set of test images; None where undefined for want of cases.

    ``macro_auroc`` is the mean of the defined one-vs-rest AUROCs, ``balanced_accuracy`` the mean
    sensitivity of the classes that occur, ``majority_baseline`` the accuracy of always answering
    the class that is most frequent here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    macro_auroc: float | None
    balanced_accuracy: float | None
    accuracy: float | None
    majority_baseline: float | None
    auroc: tuple[float | None, ...]
    sensitivity: tuple[float | None, ...]


def load_hospitals(sites: Sequence[SiteSettings], recipe: Recipe) -> tuple[HospitalImages, ...]:
    """Read every site's prepared images."""
    return tuple(_load(site, recipe) for site in sites)


def own_layers(sites: Sequence[SiteSettings], campaign: str) -> Mapping[str, Tensors]:
    """Return the layers that each site kept of a campaign; none for one that has none."""
    kept = {site.name: LocalLayerStore(site).find(campaign) for site in sites}
    return {name: layers.tensors if layers is not None else {} for name, layers in kept.items()}


def predictions_of(
    model: nn.Module | Tensors,
    hospitals: Sequence[HospitalImages],
    recipe: Recipe,
    *,
    own: Mapping[str, Tensors] | None = None,
) -> Predictions:
    """Predict every hospital's holdout with a network, or with a recipe's tensors.

    With ``own``, those tensors with each hospital's own layers in them.
    """
    device = choose_device()

    def predicted(hospital: HospitalImages) -> NDArray[np.floating]:
        if not len(hospital.holdout):
            return np.zeros((0, len(recipe.classes)), np.float32)
        network = model
        if not isinstance(network, nn.Module):
            tensors = {**network, **(own or {}).get(hospital.name, {})}
            network = build_model(recipe, pretrained=False)
            load_tensors(network, tensors)
        return predict(
            network, hospital.holdout, recipe.image, device=device, memory_megabytes=1024
        )

    probabilities = [predicted(hospital) for hospital in hospitals]
    return Predictions(tuple(probabilities), tuple(h.holdout.labels for h in hospitals))


def score(probabilities: NDArray[np.floating], labels: NDArray[np.integer], classes: int) -> Scores:
    """Score predictions.

    Parameters
    ----------
    probabilities : ndarray (N, classes)
        N may be 0.
    labels : ndarray of int (N,)
    classes : int
        Number of classes, those that do not occur included.
    """
    if len(labels) == 0:
        nothing = (None,) * classes
        return Scores(
            count=0,
            macro_auroc=None,
            balanced_accuracy=None,
            accuracy=None,
            majority_baseline=None,
            auroc=nothing,
            sensitivity=nothing,
        )
    chosen = probabilities.argmax(1)
    auroc = tuple(_auroc(labels == k, probabilities[:, k]) for k in range(classes))
    sensitivity = tuple(
        float((chosen[labels == k] == k).mean()) if (labels == k).any() else None
        for k in range(classes)
    )
    return Scores(
        count=len(labels),
        macro_auroc=_mean(auroc),
        balanced_accuracy=_mean(sensitivity),
        accuracy=float((chosen == labels).mean()),
        majority_baseline=float(np.bincount(labels).max() / len(labels)),
        auroc=auroc,
        sensitivity=sensitivity,
    )


def pooled_score(predictions: Predictions, classes: int) -> Scores:
    """Score the predictions of all hospitals together."""
    return score(
        np.concatenate(predictions.probabilities), np.concatenate(predictions.labels), classes
    )


def scores_by_hospital(
    predictions: Predictions, hospitals: Sequence[HospitalImages], classes: int
) -> Mapping[str, Scores]:
    """Score each hospital's predictions."""
    pairs = zip(predictions.probabilities, predictions.labels, strict=True)
    return {h.name: score(*pair, classes) for h, pair in zip(hospitals, pairs, strict=True)}


def _load(site: SiteSettings, recipe: Recipe) -> HospitalImages:
    store = CaseStore.open(site)
    try:
        training, holdout = store.training_cases(recipe.name), store.holdout_cases(recipe.name)
        cache = PixelCache(site.cache, recipe.name, recipe.image)
        cached = cache.load([*training, *holdout], store.image_bytes)
    finally:
        store.close()
    return HospitalImages(
        site.name,
        patient_images(training, cached, recipe.classes),
        patient_images(holdout, cached, recipe.classes),
    )


def _auroc(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> float | None:
    if positive.all() or not positive.any():
        return None
    return float(roc_auc_score(positive, scores))


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
