"""Keeping an opinion, and what it does to its case: inside one write transaction of the store."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from client.cases.tables import CaseRow
from client.review.consensus import standing
from client.review.opinions import IMPORT, GivenOpinion, Opinion
from client.review.settings import ReviewSettings
from client.review.tables import CaseFlagRow, CaseReviewRow, LabelChangeRow, OpinionRow


def opinions(session: Session, case_id: str) -> list[Opinion]:
    """Return a case's opinions, oldest first."""
    query = select(OpinionRow).where(OpinionRow.case_id == case_id).order_by(OpinionRow.number)
    return [Opinion.of(row) for row in session.scalars(query)]


def keep_opinion(
    session: Session,
    case: CaseRow,
    given: GivenOpinion,
    rules: ReviewSettings,
    *,
    warnings: Collection[str] = (),
) -> None:
    """Keep an opinion and let the case follow; the newest one said again changes nothing.

    Parameters
    ----------
    session : Session
        Inside a write transaction that no other writer of cases shares.
    case : CaseRow
        Not withdrawn.
    given : GivenOpinion
        Its label is a class of the task.
    rules : ReviewSettings
    warnings : collection of str
        Codes with which the model's answer on the same pixels came; they are flags, too.
    """
    said = opinions(session, case.id)
    if repeated(said, given):
        return
    now = datetime.now(UTC)
    number = len(said)
    if number == 0 and case.status == "confirmed":
        # The label came with the image: from now on it is one voice among others.
        number += 1
        _add(session, case, number, _imported(case), case.confirmed_at or case.created_at)
    _add(session, case, number + 1, given, now)
    session.flush()
    settle(session, case, rules, warnings=warnings, now=now)


def repeated(said: list[Opinion], given: GivenOpinion) -> bool:
    """Tell whether a reader says again what was said last: they never got the first answer."""
    if not said:
        return False
    return said[-1].voice.reader == given.reader and said[-1].label == given.label


def said_by_import(said: list[Opinion], label: str | None) -> bool:
    """Tell whether an import gives no news of a case: run again, it must not outvote a reader.

    None it gives if it says what the newest import said, or what one had said before a reader
    judged the case.
    """
    imports = [opinion for opinion in said if opinion.origin == IMPORT]
    judged = max((opinion.number for opinion in said if opinion.origin != IMPORT), default=0)
    return any(
        opinion.label == label and (opinion is imports[-1] or opinion.number < judged)
        for opinion in imports
    )


def settle(
    session: Session,
    case: CaseRow,
    rules: ReviewSettings,
    *,
    warnings: Collection[str] = (),
    now: datetime,
) -> None:
    """Bring a case to where its opinions and flags put it; write down a label that changes.

    ``confirmed_at`` stays at the first confirmation, from which on the case may have been trained
    on: a withdrawal must not list fewer rounds because a label was corrected.
    """
    said = opinions(session, case.id)
    blocked = bool(blocking_codes(session, case.id, rules, warnings))
    found = standing(
        [opinion.voice for opinion in said],
        readers=rules.readers,
        established=case.label if case.status == "confirmed" else None,
        blocked=blocked,
    )
    before = case.label if case.status == "confirmed" else None
    case.label = found.label
    case.status = "waiting" if found.label is None else "confirmed"
    if found.label is not None and case.confirmed_at is None:
        case.confirmed_at = now
    if found.label != before:
        note_change(session, case.id, before, found.label, now)
    review = session.get(CaseReviewRow, case.id)
    if review is None:
        review = CaseReviewRow(case_id=case.id, state=found.state, opinions=0, changed_at=now)
        session.add(review)
    review.state, review.opinions, review.changed_at = found.state, len(said), now
    session.flush()


def blocking_codes(
    session: Session, case_id: str, rules: ReviewSettings, warnings: Collection[str]
) -> set[str]:
    """Return the codes of a case's flags that block and that nobody set aside."""
    query = select(CaseFlagRow).where(CaseFlagRow.case_id == case_id)
    rows = list(session.scalars(query))
    raised = {row.code for row in rows} | set(warnings)
    aside = {row.code for row in rows if row.dismissed_by is not None}
    return (raised - aside) & set(rules.blocking)


def _add(
    session: Session, case: CaseRow, number: int, given: GivenOpinion, moment: datetime
) -> None:
    session.add(
        OpinionRow(
            case_id=case.id,
            number=number,
            reader=given.reader,
            origin=given.origin,
            verdict=given.verdict,
            label=given.label,
            given_at=moment,
            blinded=given.blinded,
            answer_request=None if given.saw is None else given.saw.request_id,
            answer_version=None if given.saw is None else given.saw.model_version,
            answer_digest=None if given.saw is None else given.saw.model_digest,
        )
    )


def _imported(case: CaseRow) -> GivenOpinion:
    return GivenOpinion(IMPORT, "correct", case.label, "import")


def note_change(
    session: Session, case_id: str, previous: str | None, label: str | None, moment: datetime
) -> None:
    """Write down that a case has another label from a moment on."""
    count = select(func.count()).select_from(LabelChangeRow)
    number = (session.scalar(count.where(LabelChangeRow.case_id == case_id)) or 0) + 1
    session.add(
        LabelChangeRow(
            case_id=case_id, number=number, previous=previous, label=label, changed_at=moment
        )
    )
