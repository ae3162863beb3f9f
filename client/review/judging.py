"""What a reader does to a case: an opinion, or a flag set aside, in one write transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from client.answers.answered import Answered
from client.cases import queries
from client.cases.status import refuse_withdrawn
from client.review.detail import Read
from client.review.flagging import dismiss, flags_of, with_warnings
from client.review.opinions import GivenOpinion, SeenAnswer
from client.review.proposal import reads_blind
from client.review.recording import keep_opinion, opinions, repeated, settle
from client.review.settings import ReviewSettings
from client.review.submission import Submission, named_label, refuse_changed
from common.errors import NotFound


def give_opinion(
    session: Session, read: Read, said: Submission, *, reader: str, rules: ReviewSettings
) -> None:
    """Keep a reader's opinion of a case that was read in the same transaction.

    Raises
    ------
    CaseRefused
        As `client.review.room.ReviewRoom.give`.
    """
    refuse_withdrawn(read.row)
    blind = reads_blind(read.opinions, reader, rules)
    given = GivenOpinion(
        reader=reader,
        verdict=said.verdict,
        label=named_label(said, read, blind=blind),
        origin="review",
        saw=None if blind else SeenAnswer.of(read.answer),
        blinded=blind,
    )
    if not repeated(list(read.opinions), given):
        refuse_changed(said, read, blind=blind)
    warnings = () if read.answer is None else read.answer.warnings
    keep_opinion(session, read.row, given, rules, warnings=warnings)


def set_aside(
    session: Session,
    case_id: str,
    code: str,
    *,
    reader: str,
    answer: Answered | None,
    rules: ReviewSettings,
) -> None:
    """Set a case's flag aside, and let the case follow; ``answer`` is the model's newest.

    Raises
    ------
    NotFound, CaseRefused
        As `client.review.room.ReviewRoom.dismiss`.
    """
    row, _ = queries.row(session, case_id)
    refuse_withdrawn(row)
    kept = flags_of(session, [case_id], rules).get(case_id, ())
    flag = next((f for f in with_warnings(kept, answer, rules) if f.code == code), None)
    if flag is None:
        raise NotFound("This case has no such flag.", code="flag-not-found")
    fresh = dismiss(session, case_id, code, reader, raised_at=flag.raised_at)
    if fresh and opinions(session, case_id):
        warnings = () if answer is None else answer.warnings
        settle(session, row, rules, warnings=warnings, now=datetime.now(UTC))
