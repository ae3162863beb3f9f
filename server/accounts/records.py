"""Accounts as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from common.errors import WardroundError

Role: TypeAlias = Literal["viewer", "operator", "approver"]
SessionKind: TypeAlias = Literal["browser", "token"]

ROLES: tuple[Role, ...] = ("viewer", "operator", "approver")
"""Each may do what the ones before it may: look; run campaigns; decide on releases."""


class SignInRefused(WardroundError):
    """A sign-in through an identity provider did not hold; the code says which check."""

    default_code = "provider-refused"


@dataclass(frozen=True)
class Identity:
    """Who somebody is at an identity provider: the pair is unique and never given anew.

    ``name`` is what the provider calls the person (OpenID Connect Core 1.0, 5.7: it may change,
    and must not be used to tell people apart).
    """

    issuer: str
    subject: str
    name: str


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
