"""Accounts of people who sign in at an identity provider: found by issuer and subject alone.

The name is for reading. It never leads to an account that is there already, so that nobody who
can choose a name at the provider becomes somebody else here.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.accounts.identity import Identity, readable_name
from server.accounts.records import Role
from server.registry.tables import AccountRow


def find(session: Session, identity: Identity) -> AccountRow | None:
    """Return the row of whoever signed in before."""
    query = select(AccountRow).where(
        AccountRow.issuer == identity.issuer, AccountRow.subject == identity.subject
    )
    return session.scalars(query).one_or_none()


def make(session: Session, identity: Identity, role: Role, *, now: datetime) -> AccountRow:
    """Add the row of somebody who signs in for the first time."""
    row = AccountRow(
        name=readable_name(identity),
        role=role,
        created_at=now,
        changed_at=now,
        issuer=identity.issuer,
        subject=identity.subject,
    )
    session.add(row)
    return row
