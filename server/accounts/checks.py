"""What keeps an account from being made, admitted or signed in; each raises what is told."""

from __future__ import annotations

import re

from common.accounts.identity import SignInRefused
from common.errors import InputRefused
from common.moments import in_utc
from server.accounts.records import ROLES, Account, Role
from server.registry.tables import AccountRow

NAME = re.compile(r"[a-z][a-z0-9._-]{1,62}")
RESERVED = frozenset({"policy", "gate", "console", "provider"})


def check_admitted(row: AccountRow | None, role: Role | None) -> None:
    """Refuse somebody without a role, or whose account is disabled."""
    if role is None:
        raise SignInRefused(
            "The identity provider gives you no role here.",
            action="Ask whoever looks after it to put you into one of the groups for this page.",
            code="provider-role",
        )
    if row is not None and row.disabled_at is not None:
        raise SignInRefused(
            "Your account is disabled here.",
            action="Ask the coordinator's administrator.",
            code="account-disabled",
        )


def check_unchanged(row: AccountRow, known: Account) -> None:
    """Refuse an account that was changed, or disabled, since it was looked up."""
    if row.disabled_at is not None or in_utc(row.changed_at) != known.changed_at:
        raise SignInRefused(
            "Your account was changed while you signed in.",
            action="Sign in again.",
            code="account-changed",
        )


def check_name(name: str) -> None:
    """Refuse what cannot be an account's name."""
    if not NAME.fullmatch(name) or name in RESERVED or name.startswith("console-"):
        raise InputRefused(
            f"{name!r} cannot be an account's name.",
            action="Use 2 to 63 of a-z, 0-9, dot, dash and underscore, beginning with a letter.",
            code="account-name",
        )


def check_role(role: str) -> None:
    """Refuse what is no role."""
    if role not in ROLES:
        raise InputRefused(
            f"The roles are {', '.join(ROLES)}.", action="Name one of them.", code="account-role"
        )
