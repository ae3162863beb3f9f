"""References and answers of one toy model, drawn alike or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from client.answers.answered import Answered
from client.cases.case import Case
from client.monitoring.answer_statistics import INPUTS, PROJECTIONS, network_statistics
from client.monitoring.drift import Model
from client.monitoring.input_statistics import IMAGE_STATISTICS
from client.monitoring.reference import DriftReference, make_reference

CLASSES = ("benign", "malignant")
MODEL = Model("a" * 64, None, CLASSES)
BEGUN = datetime(2026, 3, 1, tzinfo=UTC)
WIDTH = INPUTS + PROJECTIONS + len(CLASSES)


@dataclass(frozen=True)
class Scores:
    """As `client.inference.holdout_scores.HoldoutScores`."""

    cases: tuple[Case, ...]
    logits: NDArray[np.float64]
    features: NDArray[np.float32]
    statistics: NDArray[np.float64]


def scores(count: int, *, seed: int = 0, images: int = 1) -> Scores:
    """So many patients with so many images each; 64 features."""
    generator = np.random.default_rng(seed)
    rows = count * images
    cases = tuple(
        Case(
            id=f"{row:032x}", task="toy", patient=f"{row // images:064x}", digest=f"{row:064x}",
            label=CLASSES[row % 2], status="confirmed", split="holdout", age_band=None, sex=None,
            created_at=BEGUN, confirmed_at=BEGUN + timedelta(hours=row),
        )
        for row in range(rows)
    )  # fmt: skip
    return Scores(
        cases, generator.normal(size=(rows, 2)), generator.normal(size=(rows, 64)).astype("f4"),
        generator.normal(0.5, 0.1, size=(rows, INPUTS)),
    )  # fmt: skip


def reference(count: int = 200, *, seed: int = 0) -> DriftReference:
    found = make_reference(scores(count, seed=seed))
    assert found is not None
    return found


def answers(
    count: int,
    *,
    seed: int = 1,
    sharpness: float = 0.0,
    features: float = 0.0,
    logit: float = 0.0,
    model: Model = MODEL,
    begun: datetime = BEGUN,
) -> list[Answered]:
    """So many answers, drawn as `scores` are, moved by so much."""
    drawn = scores(count, seed=seed)
    statistics = drawn.statistics.copy()
    statistics[:, IMAGE_STATISTICS.index("sharpness")] += sharpness
    network = network_statistics(drawn.logits + np.array([0.0, logit]), drawn.features + features)
    rows = np.hstack([np.round(statistics, 6), network]).tolist()
    return [
        replace(answer(f"{seed}-{number}", tuple(row), begun + timedelta(minutes=number)),
                model_digest=model.digest, head_digest=model.head_digest)
        for number, row in enumerate(rows)
    ]  # fmt: skip


def answer(name: str, statistics: tuple[float, ...], moment: datetime) -> Answered:
    positive = statistics[-1] if statistics else 0.5
    return Answered(
        request_id=name, task="toy", pixels=name.rjust(64, "0"), model_version=1,
        model_digest=MODEL.digest, head_digest=None, probabilities=(1 - positive, positive),
        positive_probability=positive, threshold=0.5,
        verdict="positive" if positive >= 0.5 else "negative",
        uncertainty=None, referred=False, warnings=(), statistics=statistics, answered_at=moment,
    )  # fmt: skip
