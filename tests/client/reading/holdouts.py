"""Holdouts made of numbers: scores of a network that never was, and an engine that gave them."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from client.cases.case import Case
from client.inference.engine import InferenceEngine
from client.inference.holdout_scores import HoldoutScores, holdout_digest
from client.inference.outputs import Classifier
from client.monitoring.input_statistics import IMAGE_STATISTICS
from client.reading.profile import SiteProfile
from client.reading.uncertainty import DropoutHeads
from common.release import ReleaseManifest
from tests.client.serving import RECIPE

K = len(RECIPE.classes)
D = 24
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return result


def case(number: int, patient: int, label: str) -> Case:
    return Case(
        id=f"{number:032x}",
        task=RECIPE.name,
        patient=f"{patient:064x}",
        digest=f"{number:064x}",
        label=label,
        status="confirmed",
        split="holdout",
        age_band=None,
        sex=None,
        created_at=NOW,
        confirmed_at=NOW,
    )


def holdout(
    patients: int,
    *,
    images: int = 2,
    heat: float = 1.0,
    seed: int = 0,
    classifier: Classifier | None = None,
) -> HoldoutScores:
    """Make scores of a network whose logits are right at temperature ``heat``."""
    dice = np.random.default_rng(seed)
    count = patients * images
    network = classifier or linear()
    features = dice.normal(size=(count, D)).astype(np.float32)
    logits = (features @ network.weights.T + network.bias).astype(np.float64)
    true = softmax(logits / heat)
    labels = np.array([dice.choice(K, p=row) for row in true], np.int64)
    owners = np.repeat(np.arange(patients), images)
    cases = tuple(
        case(n, int(owner), RECIPE.classes[label])
        for n, (owner, label) in enumerate(zip(owners, labels, strict=True))
    )
    return HoldoutScores(
        cases=cases,
        logits=logits,
        features=features,
        labels=labels,
        statistics=dice.uniform(0.2, 0.8, (count, len(IMAGE_STATISTICS))),
        digest=holdout_digest(cases),
    )


def linear(seed: int = 7) -> Classifier:
    dice = np.random.default_rng(seed)
    return Classifier(
        dice.normal(scale=0.8, size=(K, D)).astype(np.float32), np.zeros(K, np.float32)
    )


def fake_engine(
    manifest: ReleaseManifest,
    *,
    profile: SiteProfile | None = None,
    classifier: Classifier | None = None,
    threshold: float | None = None,
    **fields: Any,
) -> InferenceEngine:
    """Return what `read` and `fit_profile` use of an engine."""
    if threshold is not None:
        manifest = manifest.model_copy(update={"threshold": threshold})
    engine = SimpleNamespace(
        manifest=manifest,
        recipe=manifest.recipe,
        version=manifest.version,
        digest=manifest.model_digest,
        head_digest=None,
        members=(),
        member_digests=(),
        profile=profile,
        classifier=classifier or linear(),
        dropout=DropoutHeads(classifier or linear()),
    )
    engine.__dict__.update(fields)
    return cast(InferenceEngine, engine)
