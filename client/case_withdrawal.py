"""A patient withdraws: rows lose what they say, images are deleted, and it stays so."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from client.image_store import ImageStore
from client.tables import CaseRow, PatientRow
from common.errors import NotFound


def withdraw(session: Session, patient_key: str) -> int:
    """Mark a patient and all their cases withdrawn; return how many cases were live.

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
    for row in rows:
        row.status = "withdrawn"
        row.label = row.age_band = row.sex = None
    return len(rows)


def remove_withdrawn_images(session: Session, images: ImageStore) -> None:
    """Delete images that only withdrawn cases speak of; also what a crash left undeleted.

    Inside a write transaction, so that no case with the same image comes in meanwhile.
    """
    live = select(CaseRow.digest).where(CaseRow.status != "withdrawn")
    query = select(CaseRow.digest).where(CaseRow.status == "withdrawn", CaseRow.digest.not_in(live))
    for digest in session.scalars(query.distinct()):
        images.remove(digest)
