"""Accounts as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["viewer", "operator", "approver"]
SessionKind: TypeAlias = Literal["browser", "token"]

ROLES: tuple[Role, ...] = ("viewer", "operator", "approver")
"""Each may do what the ones before it may: look; run campaigns; decide on releases."""


@dataclass(frozen=True)
class Account:
    """A person, or a script, that may sign in; not while ``disabled_at`` is set.

    ``issuer`` is the identity provider at which it signs in, None for an account of this page.
    """

    name: str
    role: Role
    created_at: datetime
    changed_at: datetime
    disabled_at: datetime | None
    has_password: bool
    issuer: str | None = None

    def may(self, role: Role) -> bool:
        """Tell whether the account may do what a role may."""
        return self.disabled_at is None and ROLES.index(self.role) >= ROLES.index(role)
