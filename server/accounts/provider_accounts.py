"""Accounts of people who sign in at an identity provider: found by issuer and subject alone.

The name is for reading. It never leads to an account that is there already, so that nobody who
can choose a name at the provider becomes somebody else here.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.accounts.records import Identity, Role
from server.registry.tables import AccountRow

LONGEST_NAME = 48


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


def readable_name(identity: Identity) -> str:
    """Return an account's name: what the provider calls the person, and a part of a digest.

    The digest of issuer and subject keeps names apart, those of the page's own accounts too.
    """
    plain = re.sub(r"[^a-z0-9._-]+", "-", identity.name.lower()).strip("-._")
    first = plain if plain[:1].isalpha() else f"u-{plain}".rstrip("-")
    mark = hashlib.sha256(f"{identity.issuer}\n{identity.subject}".encode()).hexdigest()[:8]
    return f"{first[:LONGEST_NAME]}.{mark}"
