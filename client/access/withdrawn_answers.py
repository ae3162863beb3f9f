"""Kept answers and the cases that they name: with a case that is withdrawn they go."""

from __future__ import annotations

import re
from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from client.access.tables import KeptAnswerRow
from client.cases.tables import CaseRow
from client.cases.transactions import CASES_LOCK, join_writers

AT_ONCE = 100
"""Answers in memory: one can be of many images."""

_ID = re.compile(rb"\b[0-9a-f]{32}\b")


def forget_answers(session: Session, case_ids: Collection[str]) -> None:
    """Delete kept answers that name one of these cases.

    Parameters
    ----------
    session : Session
        The transaction that withdraws them, which has marked them.
    case_ids : collection of str
    """
    if not case_ids:
        return
    wanted = [case_id.encode() for case_id in case_ids]
    kept = select(KeptAnswerRow.key, KeptAnswerRow.body).where(KeptAnswerRow.body.is_not(None))
    found = [
        key
        for key, body in session.execute(kept.execution_options(yield_per=AT_ONCE))
        if any(case_id in (body or b"") for case_id in wanted)
    ]
    for key in found:
        session.execute(delete(KeptAnswerRow).where(KeptAnswerRow.key == key))


def names_withdrawn(session: Session, body: bytes) -> bool:
    """Tell whether an answer that is about to be kept names a case that was withdrawn.

    Where it names any case, no withdrawal is let in between this look and the end of the
    transaction: it comes before, and is seen here, or after, and deletes what was kept.
    """
    named = {found.decode() for found in _ID.findall(body)}
    cases = select(CaseRow.status).where(CaseRow.id.in_(named))
    if session.scalars(cases).first() is None:
        return False
    join_writers(session.connection(), CASES_LOCK)
    return "withdrawn" in session.scalars(cases)
