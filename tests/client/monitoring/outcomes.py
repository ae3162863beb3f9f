"""Outcomes for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from client.monitoring.outcomes import Outcome

BEGUN = datetime(2026, 3, 1, tzinfo=UTC)


def outcome(
    *,
    harmful: bool,
    called: bool,
    score: float | None = None,
    version: int = 1,
    age: str | None = None,
    sex: str | None = None,
    at: datetime = BEGUN,
) -> Outcome:
    probability = (0.8 if called else 0.2) if score is None else score
    return Outcome(
        label=int(harmful), probabilities=(1 - probability, probability), positive=called,
        harmful=harmful, version=version, model_digest=f"{version:064x}", head_digest=None,
        age_band=age, sex=sex, answered_at=at,
    )  # fmt: skip


def drawn(
    count: int, sensitivity: float, specificity: float, *, seed: int = 0, **fields: object
) -> list[Outcome]:
    """So many outcomes, half of them harmful, with these rates."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        harmful = number % 2 == 0
        right = generator.random() < (sensitivity if harmful else specificity)
        called = harmful == right
        score = float(np.clip(generator.normal(0.65 if called else 0.35, 0.08), 0.01, 0.99))
        moment = BEGUN + timedelta(hours=number)
        found.append(
            outcome(harmful=harmful, called=called, score=score, at=moment, **fields)  # type: ignore[arg-type]
        )
    return found
