"""How a case changes after it was stored: it is confirmed, or its patient withdraws."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from client.cases.case import Case, as_case
from client.cases.image_store import ImageStore
from client.cases.queries import row
from client.cases.tables import CaseRow, PatientRow
from common.errors import CaseRefused, NotFound


def confirm(session: Session, case_id: str, label: str, *, classes: Sequence[str]) -> Case:
    """Give a waiting case its label; see `CaseStore.confirm`."""
    if label not in classes:
        raise CaseRefused(
            "The label is no class of this task.",
            action=f"Use one of {', '.join(classes)}.",
            code="label-unknown",
        )
    stored, split = row(session, case_id)
    if stored.status == "withdrawn":
        raise CaseRefused("This case was withdrawn.", code="case-withdrawn")
    if stored.status == "confirmed" and stored.label != label:
        raise CaseRefused(
            f"This case is confirmed as {stored.label} already.",
            action="Withdraw it if that is wrong.",
            code="case-already-confirmed",
        )
    if stored.status == "waiting":
        stored.label, stored.status, stored.confirmed_at = label, "confirmed", datetime.now(UTC)
    return as_case(stored, split)


def withdraw(session: Session, patient_key: str) -> int:
    """Mark a patient and all their cases withdrawn; return how many cases were live.

    The rows lose label, age and sex, and stay, so that a later import brings nothing back.

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
        _blank(live)
    return len(rows)


def withdraw_case(session: Session, case_id: str) -> Case:
    """Mark one case withdrawn; its patient stays. `NotFound` if there is no such case."""
    stored, split = row(session, case_id)
    _blank(stored)
    return as_case(stored, split)


def _blank(stored: CaseRow) -> None:
    stored.status = "withdrawn"
    stored.label = stored.age_band = stored.sex = None


def remove_withdrawn_images(session: Session, images: ImageStore) -> None:
    """Delete images that only withdrawn cases speak of; also what a crash left undeleted.

    Inside a write transaction, so that no case with the same image comes in meanwhile.
    """
    live = select(CaseRow.digest).where(CaseRow.status != "withdrawn")
    query = select(CaseRow.digest).where(CaseRow.status == "withdrawn", CaseRow.digest.not_in(live))
    for digest in session.scalars(query.distinct()):
        images.remove(digest)
