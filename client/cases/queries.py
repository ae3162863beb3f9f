"""What is asked of the stored cases, in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from client.cases.case import Case, CaseCounts, ClassCount, PatientHistory, as_case
from client.cases.splits import Split
from client.cases.tables import CaseRow, PatientRow
from common.errors import NotFound

AT_ONCE = 1000
"""Ids a query: no database takes any number of them."""


def row(session: Session, case_id: str) -> tuple[CaseRow, str]:
    """Return a case's row and its patient's side.

    Raises
    ------
    NotFound
        If there is none with this id.
    """
    found = session.execute(_cases().where(CaseRow.id == case_id)).first()
    if found is None:
        raise NotFound(
            "There is no such case.",
            action="Check its id on the site's page; a case that was withdrawn is gone.",
            code="case-not-found",
        )
    return found[0], found[1]


def gone(session: Session, case_ids: Iterable[str]) -> set[str]:
    """Return which of these cases were withdrawn, or never were."""
    asked = sorted(set(case_ids))
    live: set[str] = set()
    for start in range(0, len(asked), AT_ONCE):
        some = CaseRow.id.in_(asked[start : start + AT_ONCE])
        live.update(session.scalars(select(CaseRow.id).where(some, CaseRow.status != "withdrawn")))
    return set(asked) - live


def confirmed(session: Session, task: str, split: Split) -> list[Case]:
    """Return a side's confirmed cases, in the order of their digests."""
    query = _cases().where(CaseRow.task == task, CaseRow.status == "confirmed")
    query = query.where(PatientRow.split == split).order_by(CaseRow.digest)
    return [as_case(found, side) for found, side in session.execute(query)]


def waiting(session: Session, task: str, limit: int) -> list[Case]:
    """Return the cases that wait for a label, oldest first."""
    query = _cases().where(CaseRow.task == task, CaseRow.status == "waiting")
    query = query.order_by(CaseRow.created_at, CaseRow.id).limit(limit)
    return [as_case(found, side) for found, side in session.execute(query)]


def likenesses(session: Session, task: str, split: Split) -> list[str]:
    """Return the perceptual hashes of a side's confirmed cases."""
    query = (
        select(CaseRow.likeness)
        .join(PatientRow, PatientRow.key == CaseRow.patient)
        .where(CaseRow.task == task, CaseRow.status == "confirmed", PatientRow.split == split)
    )
    return list(session.scalars(query))


def history(session: Session, patient_key: str) -> PatientHistory:
    """Return a patient's side, and since when each task has a confirmed case; `NotFound`."""
    patient = session.get(PatientRow, patient_key)
    if patient is None:
        raise NotFound("This patient has no case here.", code="patient-not-found")
    query = (
        select(CaseRow.task, func.min(CaseRow.confirmed_at))
        .where(CaseRow.patient == patient_key, CaseRow.confirmed_at.is_not(None))
        .group_by(CaseRow.task)
    )
    since = {task: moment for task, moment in session.execute(query) if moment is not None}
    return PatientHistory(cast("Split", patient.split), since, patient.withdrawn_at)


def counts(session: Session, task: str) -> CaseCounts:
    """Count a task's cases by status, and its confirmed ones by label and side."""
    by_status: dict[str, int] = {}
    statuses = (
        select(CaseRow.status, func.count()).where(CaseRow.task == task).group_by(CaseRow.status)
    )
    for status, count in session.execute(statuses):
        by_status[status] = count
    by_label = (
        select(
            CaseRow.label,
            PatientRow.split,
            func.count(),
        )
        .join(PatientRow, PatientRow.key == CaseRow.patient)
        .where(CaseRow.task == task, CaseRow.status == "confirmed")
    )
    table = {
        (label, split): count
        for label, split, count in session.execute(
            by_label.group_by(CaseRow.label, PatientRow.split)
        )
    }
    return CaseCounts(
        waiting=by_status.get("waiting", 0),
        confirmed=by_status.get("confirmed", 0),
        withdrawn=by_status.get("withdrawn", 0),
        train_patients=_patients(session, task, "train"),
        holdout_patients=_patients(session, task, "holdout"),
        classes=tuple(
            ClassCount(label, table.get((label, "train"), 0), table.get((label, "holdout"), 0))
            for label in sorted({label for label, _ in table if label is not None})
        ),
    )


def _cases() -> Select[CaseRow, str]:
    return select(CaseRow, PatientRow.split).join(PatientRow, PatientRow.key == CaseRow.patient)


def _patients(session: Session, task: str, split: str) -> int:
    query = (
        select(func.count(CaseRow.patient.distinct()))
        .join(PatientRow, PatientRow.key == CaseRow.patient)
        .where(CaseRow.task == task, CaseRow.status == "confirmed", PatientRow.split == split)
    )
    return session.scalar(query) or 0
