"""What a withdrawal has still to do, written down in the transaction that withdraws.

The rows of a case are blanked at once. What knows it outside the database, and the line in the
audit log, come after; where the process dies in between, these rows say what is left to be done
(`client.unfinished_withdrawals` does it). They name no case and no patient.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from client.cases.tables import CaseRow, UnfinishedRow


def leave_unfinished(session: Session, gone: Sequence[CaseRow], by: str | None) -> None:
    """Write down what follows from a withdrawal.

    Only a case that was confirmed once was ever learnt from: where none was, nothing is forgotten.

    Parameters
    ----------
    session : Session
        The transaction that withdraws.
    gone : sequence of CaseRow
        The cases that it took out.
    by : str or None
        For the audit log.
    """
    for task in sorted({row.task for row in gone if row.confirmed_at is not None}):
        session.add(UnfinishedRow(id=uuid.uuid4().hex, step="forget", task=task))
    session.add(UnfinishedRow(id=uuid.uuid4().hex, step="tell", cases=len(gone), by=by))


def unfinished(session: Session) -> list[UnfinishedRow]:
    """Return what is left to be done, in the order in which to do it: forget first, then tell."""
    return list(session.scalars(select(UnfinishedRow).order_by(UnfinishedRow.step)))


def strike(session: Session, row: UnfinishedRow) -> bool:
    """Take out what is done, where no other writer may; False if another process had done it."""
    found = session.get(UnfinishedRow, row.id)
    if found is None:
        return False
    session.delete(found)
    return True
