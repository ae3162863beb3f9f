"""Confirmed cases beside what the model had said of them before: right, missed, or false alarm.

Of each case and model version the last answer before the first confirmation counts: the model
that gave it cannot have trained on the case here. The threshold is the one of that answer, the
label the case's present one. What only the confirmed cases can show is of the confirmed cases:
where the striking ones are confirmed first, so do these figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from client.answers.tables import AnswerRow
from client.cases.tables import CaseRow
from client.reading.parts import Interval
from client.reading.patients import interval

K = TypeVar("K", int, tuple[int, str])
OutcomeKind: TypeAlias = Literal["correct", "missed", "false-alarm"]

MOST = 20_000
"""Answers that are looked at, the newest ones: a bound on time and memory."""
_COLUMNS = (
    *(CaseRow.id, CaseRow.patient, CaseRow.label, CaseRow.confirmed_at),
    *(AnswerRow.model_version, AnswerRow.positive_probability, AnswerRow.threshold),
    *(AnswerRow.verdict, AnswerRow.uncertainty, AnswerRow.referred, AnswerRow.answered_at),
)


@dataclass(frozen=True)
class Outcome:
    """One confirmed case and one version's answer before it was confirmed.

    ``positive`` is whether the label is one of the recipe's positive classes; times are UTC.
    """

    case_id: str
    kind: OutcomeKind
    label: str
    positive: bool
    model_version: int
    positive_probability: float
    threshold: float
    verdict: Literal["positive", "negative"]
    uncertainty: float | None
    referred: bool
    answered_at: datetime
    confirmed_at: datetime


@dataclass(frozen=True)
class OutcomeCounts:
    """Cases by outcome, and what share of their patients were served well.

    Attributes
    ----------
    model_version : int or None
        None over all versions.
    month : str or None
        ``2026-03``, of the answers; None over all time.
    found, cleared : int
        Correct answers on positive and on negative cases.
    missed, false_alarms : int
    sensitivity, specificity, correct : Interval or None
        With Wilson's 95 % intervals, over patients; None without a case of that kind.
    """

    model_version: int | None
    month: str | None
    found: int
    cleared: int
    missed: int
    false_alarms: int
    sensitivity: Interval | None
    specificity: Interval | None
    correct: Interval | None


@dataclass(frozen=True)
class _Judged:
    outcome: Outcome
    patient: str


@dataclass(frozen=True)
class Outcomes:
    """The newest outcomes first, and their counts: over all, by version, by version and month."""

    rows: tuple[Outcome, ...]
    total: OutcomeCounts
    by_version: tuple[OutcomeCounts, ...]
    by_month: tuple[OutcomeCounts, ...]


def outcomes(
    session: Session,
    task: str,
    positive_classes: Sequence[str],
    *,
    version: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Outcomes:
    """Return a task's outcomes.

    Parameters
    ----------
    session : Session
    task : str
    positive_classes : sequence of str
        The recipe's.
    version : int, optional
        Only of this model version.
    since, until : datetime, optional
        UTC; of the answers, ``until`` excluded.
    """
    query = (
        select(*_COLUMNS)
        .join(AnswerRow, AnswerRow.pixels == CaseRow.pixels)
        .where(CaseRow.task == task, AnswerRow.task == task, CaseRow.status == "confirmed")
        .where(AnswerRow.answered_at <= CaseRow.confirmed_at)
        .order_by(AnswerRow.answered_at.desc(), AnswerRow.sequence.desc())
        .limit(MOST)
    )
    if version is not None:
        query = query.where(AnswerRow.model_version == version)
    if since is not None:
        query = query.where(AnswerRow.answered_at >= since)
    if until is not None:
        query = query.where(AnswerRow.answered_at < until)
    last: dict[tuple[str, int], _Judged] = {}
    for row in session.execute(query):
        last.setdefault((row.id, row.model_version), _judged(row, positive_classes))
    judged = list(last.values())
    return Outcomes(
        rows=tuple(one.outcome for one in judged),
        total=_counts(judged, None, None),
        by_version=tuple(
            _counts(part, number, None)
            for number, part in _groups(judged, lambda o: o.model_version)
        ),
        by_month=tuple(
            _counts(part, number, month)
            for (number, month), part in _groups(judged, lambda o: (o.model_version, _month(o)))
        ),
    )


def _judged(row: Row[*tuple[Any, ...]], positive_classes: Sequence[str]) -> _Judged:
    positive = row.label in positive_classes
    called = row.verdict == "positive"
    kind: OutcomeKind = "correct" if positive == called else "missed" if positive else "false-alarm"
    outcome = Outcome(
        case_id=row.id,
        kind=kind,
        label=row.label,
        positive=positive,
        model_version=row.model_version,
        positive_probability=row.positive_probability,
        threshold=row.threshold,
        verdict="positive" if called else "negative",
        uncertainty=row.uncertainty,
        referred=row.referred,
        answered_at=row.answered_at,
        confirmed_at=row.confirmed_at,
    )
    return _Judged(outcome, row.patient)


def _counts(judged: Sequence[_Judged], version: int | None, month: str | None) -> OutcomeCounts:
    correct = [one.outcome.kind == "correct" for one in judged]
    positive = [one.outcome.positive for one in judged]
    found = sum(c and p for c, p in zip(correct, positive, strict=True))
    return OutcomeCounts(
        model_version=version,
        month=month,
        found=found,
        cleared=sum(correct) - found,
        missed=sum(positive) - found,
        false_alarms=len(judged) - sum(positive) - (sum(correct) - found),
        sensitivity=_share([one for one in judged if one.outcome.positive]),
        specificity=_share([one for one in judged if not one.outcome.positive]),
        correct=_share(judged),
    )


def _share(judged: Sequence[_Judged]) -> Interval | None:
    """Return the share of correct answers over patients, who may have several cases each."""
    if not judged:
        return None
    hits = np.array([one.outcome.kind == "correct" for one in judged])
    _, patients = np.unique([one.patient for one in judged], return_inverse=True)
    return interval(hits, patients.astype(np.int64))


def _groups(
    judged: Iterable[_Judged], key: Callable[[Outcome], K]
) -> list[tuple[K, list[_Judged]]]:
    found: dict[K, list[_Judged]] = {}
    for one in judged:
        found.setdefault(key(one.outcome), []).append(one)
    return sorted(found.items(), reverse=True)


def _month(outcome: Outcome) -> str:
    return outcome.answered_at.strftime("%Y-%m")
