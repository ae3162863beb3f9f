"""Answers to rows and back."""

from __future__ import annotations

import json
from typing import Literal, cast

from client.answers.answered import Answered
from client.answers.tables import AnswerRow


def as_row(answer: Answered) -> AnswerRow:
    """Return the row of an answer."""
    return AnswerRow(
        request_id=answer.request_id,
        task=answer.task,
        pixels=answer.pixels,
        model_version=answer.model_version,
        model_digest=answer.model_digest,
        head_digest=answer.head_digest,
        probabilities=_text(answer.probabilities),
        positive_probability=answer.positive_probability,
        threshold=answer.threshold,
        verdict=answer.verdict,
        uncertainty=answer.uncertainty,
        referred=answer.referred,
        warnings=_text(answer.warnings),
        statistics=_text(answer.statistics),
        answered_at=answer.answered_at,
    )


def as_answer(row: AnswerRow) -> Answered:
    """Return the answer of a row."""
    return Answered(
        request_id=row.request_id,
        task=row.task,
        pixels=row.pixels,
        model_version=row.model_version,
        model_digest=row.model_digest,
        head_digest=row.head_digest,
        probabilities=tuple(float(p) for p in json.loads(row.probabilities)),
        positive_probability=row.positive_probability,
        threshold=row.threshold,
        verdict=cast("Literal['positive', 'negative']", row.verdict),
        uncertainty=row.uncertainty,
        referred=row.referred,
        warnings=tuple(str(code) for code in json.loads(row.warnings)),
        statistics=tuple(float(value) for value in json.loads(row.statistics)),
        answered_at=row.answered_at,
    )


def _text(values: tuple[float, ...] | tuple[str, ...]) -> str:
    return json.dumps(values, separators=(",", ":"))
