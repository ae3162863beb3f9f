"""An opinion on a case, before it is given and as it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, cast

from client.answers.answered import Answered
from client.review.consensus import Voice
from client.review.tables import OpinionRow

Verdict: TypeAlias = Literal["agree", "correct", "unsure"]
Origin: TypeAlias = Literal["review", "confirm", "upload", "import"]

IMPORT = "import"
"""Stands for the reader where a label came with an import; see `Opinion.voice`."""


@dataclass(frozen=True)
class SeenAnswer:
    """The model's answer that a reader had before them."""

    request_id: str
    model_version: int
    model_digest: str

    @classmethod
    def of(cls, answer: Answered | None) -> SeenAnswer | None:
        """Name an answer."""
        if answer is None:
            return None
        return cls(answer.request_id, answer.model_version, answer.model_digest)


@dataclass(frozen=True)
class GivenOpinion:
    """An opinion about to be kept: who says what, and what they had before them.

    ``label`` is None where they are unsure, and only there.
    """

    reader: str
    verdict: Verdict
    label: str | None
    origin: Origin
    saw: SeenAnswer | None = None
    blinded: bool = False


@dataclass(frozen=True)
class Opinion:
    """A kept opinion. ``number`` counts from 1 in each case; times are UTC."""

    number: int
    reader: str
    verdict: Verdict
    label: str | None
    origin: Origin
    given_at: datetime
    saw: SeenAnswer | None
    blinded: bool

    @classmethod
    def of(cls, row: OpinionRow) -> Opinion:
        """Return the opinion of a row."""
        saw = None
        if row.answer_request is not None:
            saw = SeenAnswer(row.answer_request, row.answer_version or 0, row.answer_digest or "")
        return cls(
            number=row.number,
            reader=row.reader,
            verdict=cast("Verdict", row.verdict),
            label=row.label,
            origin=cast("Origin", row.origin),
            given_at=row.given_at,
            saw=saw,
            blinded=row.blinded,
        )

    @property
    def voice(self) -> Voice:
        """What counts of it. An account that is called ``import`` is not the import."""
        who = self.reader if self.origin != "import" else "\0import"
        return Voice(who, self.label)
