"""Answers for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from client.answers.answered import Answered

PIXELS = "a" * 64
ANSWER = Answered(
    request_id="request-1",
    task="dermoscopy",
    pixels=PIXELS,
    model_version=1,
    model_digest="d" * 64,
    head_digest=None,
    probabilities=(0.1, 0.6, 0.3),
    positive_probability=0.4,
    threshold=0.3,
    verdict="positive",
    uncertainty=0.25,
    referred=False,
    warnings=("blurred",),
    statistics=(0.5, 1.0 / 3.0),
    answered_at=datetime(2026, 3, 1, 12, 0, 0, 123456, UTC),
)


def answer(**changes: Any) -> Answered:
    """Return an answer that differs from `ANSWER` as said."""
    return replace(ANSWER, **changes)
