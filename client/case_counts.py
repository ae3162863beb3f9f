"""Counting cases in SQL."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from client.case import CaseCounts, ClassCount
from client.tables import CaseRow, PatientRow


def count_cases(session: Session, task: str) -> CaseCounts:
    """Count a task's cases by status, and its confirmed ones by label and side."""
    by_status: dict[str, int] = {}
    statuses = (
        select(CaseRow.status, func.count()).where(CaseRow.task == task).group_by(CaseRow.status)
    )
    for status, count in session.execute(statuses):
        by_status[status] = count
    confirmed = (
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
            confirmed.group_by(CaseRow.label, PatientRow.split)
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


def _patients(session: Session, task: str, split: str) -> int:
    query = (
        select(func.count(CaseRow.patient.distinct()))
        .join(PatientRow, PatientRow.key == CaseRow.patient)
        .where(CaseRow.task == task, CaseRow.status == "confirmed", PatientRow.split == split)
    )
    return session.scalar(query) or 0
