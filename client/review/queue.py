"""The cases that somebody should look at, oldest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, cast

from sqlalchemy import ColumnElement, Select, and_, func, literal_column, or_, select
from sqlalchemy.orm import Session

from client.answers.answered import Answered
from client.cases import queries
from client.cases.tables import CaseRow
from client.review.flagging import flags_of, with_warnings
from client.review.flags import Flag
from client.review.settings import ReviewSettings
from client.review.tables import CaseReviewRow, OpinionRow

QueueState: TypeAlias = Literal["waiting", "unsure", "conflict", "held", "disputed"]

# Written out: as a parameter, PostgreSQL would not know it again in GROUP BY.
_STATE = func.coalesce(CaseReviewRow.state, literal_column("'waiting'"))
_OPEN = or_(CaseRow.status == "waiting", and_(CaseRow.status == "confirmed", _STATE == "disputed"))


@dataclass(frozen=True)
class ModelSays:
    """The newest answer on a case's picture, in short."""

    model_version: int
    verdict: Literal["positive", "negative"]
    positive_probability: float
    threshold: float
    uncertainty: float | None
    referred: bool
    answered_at: datetime

    @classmethod
    def of(cls, answer: Answered | None) -> ModelSays | None:
        """Shorten an answer."""
        if answer is None:
            return None
        return cls(
            model_version=answer.model_version,
            verdict=answer.verdict,
            positive_probability=answer.positive_probability,
            threshold=answer.threshold,
            uncertainty=answer.uncertainty,
            referred=answer.referred,
            answered_at=answer.answered_at,
        )


@dataclass(frozen=True)
class QueuedCase:
    """A case in the queue, as one reader sees it.

    ``answer`` is None where the model was not asked, and where this reader reads blind first;
    ``judged_by_me`` says that the reader has given an opinion.
    """

    case_id: str
    state: QueueState
    created_at: datetime
    source: str
    age_band: str | None
    sex: str | None
    opinions: int
    judged_by_me: bool
    answer: ModelSays | None
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class QueuePage:
    """Part of the queue. ``next_after`` is where to go on, None at the end; ``counts`` by state."""

    cases: tuple[QueuedCase, ...]
    next_after: str | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class QueueRow:
    """A case of the queue before the model's answers are looked up."""

    case: CaseRow
    state: QueueState
    opinions: int


def queue_rows(
    session: Session, task: str, *, state: QueueState | None, after: str | None, limit: int
) -> list[QueueRow]:
    """Return part of the queue, the newest last.

    Parameters
    ----------
    session : Session
    task : str
    state : str or None
        Only cases in it.
    after : str or None
        Go on behind this case.
    limit : int

    Raises
    ------
    NotFound
        If there is no case ``after``.
    """
    query: Select[CaseRow, str, int] = (
        select(CaseRow, _STATE, func.coalesce(CaseReviewRow.opinions, 0))
        .outerjoin(CaseReviewRow, CaseReviewRow.case_id == CaseRow.id)
        .where(CaseRow.task == task, _in_state(state))
        .order_by(CaseRow.created_at, CaseRow.id)
        .limit(limit)
    )
    if after is not None:
        last, _ = queries.row(session, after)
        same_moment = and_(CaseRow.created_at == last.created_at, CaseRow.id > last.id)
        query = query.where(or_(CaseRow.created_at > last.created_at, same_moment))
    return [
        QueueRow(case, cast("QueueState", found), count)
        for case, found, count in session.execute(query)
    ]


def queue_counts(session: Session, task: str) -> dict[str, int]:
    """Count the cases of the queue by state."""
    query = (
        select(_STATE, func.count())
        .select_from(CaseRow)
        .outerjoin(CaseReviewRow, CaseReviewRow.case_id == CaseRow.id)
        .where(CaseRow.task == task, _OPEN)
        .group_by(_STATE)
    )
    return {str(state): int(count) for state, count in session.execute(query)}


def seen_by(
    session: Session,
    rows: Sequence[QueueRow],
    answers: Mapping[str, Answered],
    *,
    reader: str,
    rules: ReviewSettings,
) -> tuple[QueuedCase, ...]:
    """Return rows as a reader sees them; ``answers`` are the newest, by the digest of pixels."""
    ids = [row.case.id for row in rows]
    flags = flags_of(session, ids, rules)
    mine = select(OpinionRow.case_id).where(
        OpinionRow.case_id.in_(ids), OpinionRow.reader == reader, OpinionRow.origin != "import"
    )
    judged = set(session.scalars(mine))
    return tuple(
        _seen(row, answers.get(row.case.pixels), flags, row.case.id in judged, rules)
        for row in rows
    )


def _seen(
    row: QueueRow,
    answer: Answered | None,
    flags: Mapping[str, tuple[Flag, ...]],
    judged: bool,
    rules: ReviewSettings,
) -> QueuedCase:
    case = row.case
    blind = rules.blinded and not judged
    return QueuedCase(
        case_id=case.id,
        state=row.state,
        created_at=case.created_at,
        source=case.source,
        age_band=case.age_band,
        sex=case.sex,
        opinions=row.opinions,
        judged_by_me=judged,
        answer=None if blind else ModelSays.of(answer),
        flags=with_warnings(flags.get(case.id, ()), answer, rules),
    )


def _in_state(state: QueueState | None) -> ColumnElement[bool]:
    return _OPEN if state is None else and_(_OPEN, _STATE.in_([state]))
