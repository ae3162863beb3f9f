"""One case, as one reader sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from client.answers.answered import Answered
from client.cases import queries
from client.cases.case import Case, as_case
from client.cases.tables import CaseRow
from client.review.consensus import State
from client.review.flagging import flags_of, with_warnings
from client.review.flags import Flag
from client.review.near_duplicates import NearDuplicate
from client.review.opinions import Opinion
from client.review.proposal import Proposal, proposal, reads_blind, seen_token
from client.review.recording import opinions
from client.review.settings import ReviewSettings
from client.review.tables import CaseReviewRow
from common.recipe import Recipe

MOST_ANSWERS = 20
MOST_LOOK_ALIKES = 10


@dataclass(frozen=True)
class LookAlike:
    """A stored case whose picture looks all but the same. ``distance``: differing bits of 256."""

    case_id: str
    status: str
    same_patient: bool
    distance: int


@dataclass(frozen=True)
class CaseDetail:
    """A case with all that was said of it.

    Attributes
    ----------
    case : Case
    source : str
        How it came.
    state : str
        Of the review; ``withdrawn`` where the case is.
    seen : str
        To be sent back with an opinion: it says what the reader was shown.
    readers : int
        How many must agree.
    blinded : bool
        The reader sees no opinion and no answer before they have given an opinion of their own.
    proposed : Proposal or None
        What ``agree`` agrees with.
    opinions : tuple of Opinion
        Oldest first; a blinded reader gets none.
    answers : tuple of Answered
        Of the model on these pixels, oldest first, the newest few, each reading once; a blinded
        reader gets none.
    flags : tuple of Flag
    look_alikes : tuple of LookAlike
        Nearest first.
    """

    case: Case
    source: str
    state: State | str
    seen: str
    readers: int
    blinded: bool
    proposed: Proposal | None
    opinions: tuple[Opinion, ...]
    answers: tuple[Answered, ...]
    flags: tuple[Flag, ...]
    look_alikes: tuple[LookAlike, ...]


@dataclass(frozen=True)
class Read:
    """A case's row with its opinions and its newest answer: what a decision is made from."""

    row: CaseRow
    split: str
    opinions: tuple[Opinion, ...]
    answer: Answered | None
    proposed: Proposal | None
    seen: str

    @classmethod
    def of(cls, session: Session, case_id: str, answer: Answered | None, recipe: Recipe) -> Read:
        """Read a case; `NotFound` if there is none with this id."""
        row, split = queries.row(session, case_id)
        said = tuple(opinions(session, case_id))
        proposed = proposal(row, said, answer, recipe)
        return cls(row, split, said, answer, proposed, seen_token(row, said, answer, proposed))


def detail(
    session: Session,
    read: Read,
    answers: Sequence[Answered],
    near: Sequence[NearDuplicate],
    *,
    reader: str,
    rules: ReviewSettings,
) -> CaseDetail:
    """Return a case as a reader may see it."""
    row = read.row
    blind = reads_blind(read.opinions, reader, rules)
    flags = flags_of(session, [row.id], rules).get(row.id, ())
    return CaseDetail(
        case=as_case(row, read.split),
        source=row.source,
        state=_state(session, row),
        seen=read.seen,
        readers=rules.readers,
        blinded=blind,
        proposed=None if blind else read.proposed,
        opinions=() if blind else read.opinions,
        answers=() if blind else told_once(answers)[-MOST_ANSWERS:],
        flags=with_warnings(flags, read.answer, rules),
        look_alikes=_look_alikes(session, row, near[:MOST_LOOK_ALIKES]),
    )


def told_once(answers: Sequence[Answered]) -> tuple[Answered, ...]:
    """Return of answers that read alike, by the same model, the newest; oldest first."""
    newest = {
        replace(answer, request_id="", statistics=(), answered_at=datetime.min): answer
        for answer in sorted(answers, key=lambda answer: answer.answered_at)
    }
    return tuple(sorted(newest.values(), key=lambda answer: answer.answered_at))


def _state(session: Session, row: CaseRow) -> str:
    if row.status == "withdrawn":
        return "withdrawn"
    review = session.get(CaseReviewRow, row.id)
    return row.status if review is None else review.state


def _look_alikes(
    session: Session, row: CaseRow, near: Sequence[NearDuplicate]
) -> tuple[LookAlike, ...]:
    query = select(CaseRow.id, CaseRow.status).where(CaseRow.id.in_([n.case_id for n in near]))
    status = {case: str(found) for case, found in session.execute(query)}
    return tuple(
        LookAlike(n.case_id, status[n.case_id], n.patient == row.patient, n.distance)
        for n in near
        if n.case_id in status
    )
