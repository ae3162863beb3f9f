"""What a reader is asked to agree with or not told yet, and a token of what they were shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from client.answers.answered import Answered
from client.cases.tables import CaseRow
from client.review.opinions import Opinion
from client.review.settings import ReviewSettings
from client.review.tables import CaseReviewRow
from common.errors import CaseRefused
from common.recipe import Recipe


@dataclass(frozen=True)
class Proposal:
    """A label that a reader may agree with, and who proposes it."""

    label: str
    by: Literal["reader", "model"]


def proposal(
    case: CaseRow, opinions: Sequence[Opinion], answer: Answered | None, recipe: Recipe
) -> Proposal | None:
    """Return what stands to be agreed with: the case's label, the last one named, the model's."""
    if case.label is not None:
        return Proposal(case.label, "reader")
    named = [opinion.label for opinion in opinions if opinion.label is not None]
    if named:
        return Proposal(named[-1], "reader")
    label = None
    if answer is not None:
        label = answer.label(recipe.classes, recipe.decision.positive_classes)
    return None if label is None else Proposal(label, "model")


def reads_blind(opinions: Sequence[Opinion], reader: str, rules: ReviewSettings) -> bool:
    """Tell whether a reader is to judge a case before they see what others, or the model, say."""
    return rules.blinded and not any(opinion.voice.reader == reader for opinion in opinions)


def refuse_blind(
    session: Session,
    case: CaseRow,
    opinions: Sequence[Opinion],
    reader: str,
    rules: ReviewSettings,
) -> None:
    """Refuse a reader who is to judge a case that is in the queue before they hear of it.

    Raises
    ------
    CaseRefused
        With code ``reads-blind``.
    """
    if not reads_blind(opinions, reader, rules):
        return
    review = session.get(CaseReviewRow, case.id)
    disputed = review is not None and review.state == "disputed"
    if case.status == "waiting" or (case.status == "confirmed" and disputed):
        raise CaseRefused(
            "You have not judged this case yet.",
            meaning="You would be told what the model, or others, think of it.",
            action="Give your own opinion first.",
            code="reads-blind",
        )


def seen_token(
    case: CaseRow, opinions: Sequence[Opinion], answer: Answered | None, proposed: Proposal | None
) -> str:
    """Return a token that changes when a case no longer is as it was shown.

    The same answer of the same model again is no change.
    """
    answered = None
    if answer is not None:
        answered = (answer.model_digest, answer.head_digest, answer.verdict)
    label = None if proposed is None else proposed.label
    shown = json.dumps([case.id, case.status, case.label, len(opinions), answered, label])
    return hashlib.sha256(shown.encode()).hexdigest()[:16]
