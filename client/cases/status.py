"""How a case changes after it was stored: it is judged, or its patient withdraws."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from client.access.withdrawn_answers import forget_answers
from client.answers.tables import AnswerRow
from client.cases.case import Case, PatientHistory, as_case
from client.cases.image_store import ImageStore
from client.cases.queries import row
from client.cases.splits import Split
from client.cases.tables import CaseRow, PatientRow
from client.review.opinions import GivenOpinion
from client.review.recording import keep_opinion, note_change
from client.review.settings import ReviewSettings
from client.review.tables import LabelChangeRow, OpinionRow
from common.errors import CaseRefused, NotFound


def check_label(label: str, classes: Sequence[str]) -> None:
    """Refuse a label that is no class: ``label-unknown``."""
    if label not in classes:
        raise CaseRefused(
            "The label is no class of this task.",
            action=f"Use one of {', '.join(classes)}.",
            code="label-unknown",
        )


def confirm(
    session: Session,
    case_id: str,
    given: GivenOpinion,
    rules: ReviewSettings,
    *,
    warnings: Collection[str] = (),
) -> Case:
    """Keep the opinion of one who confirms a case; see `CaseStore.confirm`."""
    stored, split = row(session, case_id)
    refuse_withdrawn(stored)
    if stored.status == "confirmed" and stored.label != given.label:
        raise CaseRefused(
            f"This case is confirmed as {stored.label} already.",
            action="Correct it in the review queue, or withdraw it, if that is wrong.",
            code="case-already-confirmed",
        )
    keep_opinion(session, stored, given, rules, warnings=warnings)
    return as_case(stored, split)


def refuse_withdrawn(stored: CaseRow) -> None:
    """Refuse to go on with a case that was withdrawn: ``case-withdrawn``."""
    if stored.status == "withdrawn":
        raise CaseRefused("This case was withdrawn.", code="case-withdrawn")


def withdraw(session: Session, patient_key: str) -> list[CaseRow]:
    """Mark a patient and all their cases withdrawn; return the rows of those that were live.

    The rows lose label, age and sex, and stay, so that a later import brings nothing back. Answers
    that are kept for who asks again go, where they name a case.

    Raises
    ------
    NotFound
        If the patient is unknown here.
    """
    patient = session.get(PatientRow, patient_key)
    if patient is None:
        raise NotFound("This patient has no case here.", code="patient-not-found")
    patient.withdrawn_at = patient.withdrawn_at or datetime.now(UTC)
    rows = session.scalars(
        select(CaseRow).where(CaseRow.patient == patient_key, CaseRow.status != "withdrawn")
    ).all()
    for live in rows:
        _blank(session, live)
    forget_answers(session, [gone.id for gone in rows])
    return list(rows)


def withdraw_case(session: Session, case_id: str) -> list[CaseRow]:
    """Mark one case withdrawn, its patient staying; return its row if it was live. `NotFound`."""
    stored, _ = row(session, case_id)
    if stored.status == "withdrawn":
        return []
    _blank(session, stored)
    forget_answers(session, [stored.id])
    return [stored]


def case_history(session: Session, case_id: str) -> PatientHistory:
    """Return since when one case was confirmed, and when it was withdrawn. `NotFound`."""
    stored, split = row(session, case_id)
    since = {stored.task: stored.confirmed_at} if stored.confirmed_at else {}
    return PatientHistory(cast("Split", split), since, withdrawn_at(session, stored))


def withdrawn_at(session: Session, stored: CaseRow) -> datetime | None:
    """Return when a case was withdrawn; None if it was not, or before that was written down."""
    if stored.status != "withdrawn":
        return None
    query = select(func.max(LabelChangeRow.changed_at))
    return session.scalar(query.where(LabelChangeRow.case_id == stored.id))


def _blank(session: Session, stored: CaseRow) -> None:
    """Leave of a case that it was there, and who judged it when, but not how.

    The last change of its label is its withdrawal, so that it is known when that was.
    """
    stored.status = "withdrawn"
    stored.label = stored.age_band = stored.sex = None
    session.execute(update(OpinionRow).where(OpinionRow.case_id == stored.id).values(label=None))
    changes = update(LabelChangeRow).where(LabelChangeRow.case_id == stored.id)
    session.execute(changes.values(label=None, previous=None))
    note_change(session, stored.id, None, None, datetime.now(UTC))
    live = select(CaseRow.id).where(CaseRow.pixels == stored.pixels, CaseRow.status != "withdrawn")
    session.flush()
    if session.scalars(live).first() is None:
        session.execute(delete(AnswerRow).where(AnswerRow.pixels == stored.pixels))


def remove_withdrawn_images(session: Session, images: ImageStore) -> None:
    """Delete images that only withdrawn cases speak of; also what a crash left undeleted.

    Inside a write transaction, so that no case with the same image comes in meanwhile. One that
    cannot be deleted holds up no other; `StoreError` comes at the end.
    """
    live = select(CaseRow.digest).where(CaseRow.status != "withdrawn")
    query = select(CaseRow.digest).where(CaseRow.status == "withdrawn", CaseRow.digest.not_in(live))
    images.remove_many(session.scalars(query.distinct()))
