"""What the model said of cases that a clinician confirmed afterwards.

An answer counts only if it was given before the case's label was confirmed: later ones may be of a
model that had trained on the case. Of each patient, label and release the first answer counts, so
that the outcomes are independent of each other and nobody weighs more for having many images.
What only the confirmed cases can show is of the confirmed cases: where clinicians confirm the
striking ones first, so do these figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from client.answers.tables import AnswerRow
from client.cases.tables import CaseRow
from common.errors import StoreError

MOST = 20_000
"""Answers that are looked at, the newest ones: a bound on time and memory."""


@dataclass(frozen=True)
class Outcome:
    """One confirmed case and the answer that was given before.

    Attributes
    ----------
    label : int
        Position in the recipe's classes.
    probabilities : tuple of float
    positive : bool
        The verdict.
    harmful : bool
        Whether the confirmed label is one of the recipe's positive classes.
    version : int
    model_digest, head_digest
        Of the model that answered.
    age_band, sex : str or None
    answered_at : datetime
        UTC.
    """

    label: int
    probabilities: tuple[float, ...]
    positive: bool
    harmful: bool
    version: int
    model_digest: str
    head_digest: str | None
    age_band: str | None
    sex: str | None
    answered_at: datetime


def confirmed_outcomes(
    engine: Engine,
    task: str,
    classes: Sequence[str],
    positive_classes: Sequence[str],
    *,
    since: datetime,
) -> tuple[Outcome, ...]:
    """Return the outcomes of a task's answers given since a moment (UTC), the oldest first.

    Parameters
    ----------
    engine : Engine
        The site's database.
    task : str
        The recipe's name.
    classes, positive_classes : sequence of str
        The recipe's; cases of other labels and answers of other lengths are left out.

    Raises
    ------
    StoreError
        If the database cannot be read.
    """
    query = (
        select(
            *(CaseRow.patient, CaseRow.label, CaseRow.age_band, CaseRow.sex),
            *(AnswerRow.model_version, AnswerRow.model_digest, AnswerRow.head_digest),
            *(AnswerRow.probabilities, AnswerRow.verdict, AnswerRow.answered_at),
        )
        .join(AnswerRow, AnswerRow.pixels == CaseRow.pixels)
        .where(CaseRow.task == task, AnswerRow.task == task, CaseRow.status == "confirmed")
        .where(AnswerRow.answered_at >= since, AnswerRow.answered_at <= CaseRow.confirmed_at)
        .order_by(AnswerRow.answered_at.desc(), AnswerRow.sequence.desc())
        .limit(MOST)
    )
    try:
        with Session(engine) as session:
            rows = session.execute(query).all()
    except Exception as error:
        raise StoreError("The confirmed cases cannot be read.") from error
    first: dict[tuple[str, str, str, str | None], Outcome] = {}
    for row in reversed(rows):
        key = (row.patient, row.label, row.model_digest, row.head_digest)
        if row.label in classes and key not in first:
            found = _outcome(row, classes, positive_classes)
            if len(found.probabilities) == len(classes):
                first[key] = found
    return tuple(first.values())


def _outcome(row: Any, classes: Sequence[str], positive: Sequence[str]) -> Outcome:
    return Outcome(
        label=list(classes).index(row.label),
        probabilities=tuple(float(p) for p in json.loads(row.probabilities)),
        positive=row.verdict == "positive",
        harmful=row.label in positive,
        version=row.model_version,
        model_digest=row.model_digest,
        head_digest=row.head_digest,
        age_band=row.age_band,
        sex=row.sex,
        answered_at=row.answered_at,
    )
