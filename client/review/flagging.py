"""Flags are raised when a case is stored, kept with it, and set aside by a reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from client.answers.answered import Answered
from client.cases.case import NewCase
from client.cases.tables import CaseRow
from client.review.flags import (
    FROM_ANSWER,
    MESSAGES,
    NEAR_DUPLICATE_OTHER_PATIENT,
    NEAR_DUPLICATE_SAME_PATIENT,
    Flag,
)
from client.review.near_duplicates import Compared, NearDuplicate, NearDuplicates
from client.review.settings import ReviewSettings
from client.review.tables import CaseFlagRow


class Flagging:
    """Looks at new cases.

    Parameters
    ----------
    near : NearDuplicates
    """

    def __init__(self, near: NearDuplicates) -> None:
        self._near = near

    def compare(
        self, session: Session, cases: Sequence[NewCase], before: Compared | None = None
    ) -> Compared:
        """Compare new images with the stored ones; see `NearDuplicates.compare`."""
        return self._near.compare(session, [(c.task, c.image.likeness) for c in cases], before)

    def look(
        self,
        session: Session,
        cases: Sequence[tuple[CaseRow, Sequence[str]]],
        compared: Compared,
    ) -> dict[str, set[str]]:
        """Raise the flags of new cases: those given with each, and its look-alikes.

        Of look-alikes the nearest of each kind is kept.

        Parameters
        ----------
        session : Session
            That has written the cases.
        cases : sequence of (CaseRow, sequence of str)
        compared : Compared
            Their images', from before they were written.

        Returns
        -------
        dict of str to set of str
            The codes that were raised, by case.
        """
        raised: dict[str, set[str]] = {}
        near = self._near.among(session, [case for case, _ in cases], compared)
        for (case, codes), others in zip(cases, near, strict=True):
            found: dict[str, NearDuplicate | None] = dict.fromkeys(codes)
            for other in others:
                same = other.patient == case.patient
                kind = NEAR_DUPLICATE_SAME_PATIENT if same else NEAR_DUPLICATE_OTHER_PATIENT
                found.setdefault(kind, other)
            session.add_all(_row(case.id, code, other) for code, other in found.items())
            raised[case.id] = set(found)
        session.flush()
        return raised


def flags_of(
    session: Session, case_ids: Sequence[str], rules: ReviewSettings
) -> Mapping[str, tuple[Flag, ...]]:
    """Return the flags that cases were stored with, by case; those that block first."""
    query = select(CaseFlagRow).where(CaseFlagRow.case_id.in_(case_ids))
    found: dict[str, list[Flag]] = {}
    for row in session.scalars(query):
        found.setdefault(row.case_id, []).append(_flag(row, rules))
    return {case: _ordered(flags) for case, flags in found.items()}


def with_warnings(
    flags: Sequence[Flag], answer: Answered | None, rules: ReviewSettings
) -> tuple[Flag, ...]:
    """Return a case's flags together with the warnings of the newest answer on its pixels."""
    if answer is None:
        return _ordered(flags)
    known = {flag.code for flag in flags}
    raised = [
        Flag(
            code=code,
            message=MESSAGES.get(code, FROM_ANSWER),
            blocks=code in rules.blocking,
            other_case=None,
            distance=None,
            raised_at=answer.answered_at,
        )
        for code in dict.fromkeys(answer.warnings)
        if code not in known
    ]
    return _ordered([*flags, *raised])


def dismiss(session: Session, case_id: str, code: str, reader: str, *, raised_at: datetime) -> bool:
    """Set a flag aside; tell whether that is new. A warning's flag is kept from here on."""
    row = session.get(CaseFlagRow, (case_id, code))
    if row is None:
        row = _row(case_id, code, None)
        row.raised_at = raised_at
        session.add(row)
    if row.dismissed_by is not None:
        return False
    row.dismissed_by, row.dismissed_at = reader, datetime.now(UTC)
    session.flush()
    return True


def _row(case_id: str, code: str, other: NearDuplicate | None) -> CaseFlagRow:
    return CaseFlagRow(
        case_id=case_id,
        code=code,
        other_case=None if other is None else other.case_id,
        distance=None if other is None else other.distance,
        raised_at=datetime.now(UTC),
        dismissed_by=None,
        dismissed_at=None,
    )


def _flag(row: CaseFlagRow, rules: ReviewSettings) -> Flag:
    return Flag(
        code=row.code,
        message=MESSAGES.get(row.code, FROM_ANSWER),
        blocks=row.code in rules.blocking,
        other_case=row.other_case,
        distance=row.distance,
        raised_at=row.raised_at,
        dismissed_by=row.dismissed_by,
        dismissed_at=row.dismissed_at,
    )


def _ordered(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    return tuple(sorted(flags, key=lambda flag: (not flag.open, not flag.blocks, flag.code)))
