"""Names of people's accounts and of programs' keys: one name, one caller."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from sqlalchemy.orm import Session

from client.access.roles import Role
from client.access.tables import SiteAccountRow, SiteKeyRow
from common.errors import InputRefused

NAME = re.compile(r"[a-z][a-z0-9._-]{1,62}")
WRITE_LOCK = 0x4E414D45
"""For users and keys alike, so that two writers at once cannot both find a name free."""
RESERVED = frozenset({"local", "metrics", "provider", "anonymous"})


def check_name(name: str) -> None:
    """Refuse what cannot be a name.

    Raises
    ------
    InputRefused
        With code ``account-name``.
    """
    if not NAME.fullmatch(name) or name in RESERVED or name.startswith("console-"):
        raise InputRefused(
            f"{name!r} cannot be a name.",
            action="Use 2 to 63 of a-z, 0-9, dot, dash and underscore, beginning with a letter.",
            code="account-name",
        )


def check_new(session: Session, name: str) -> None:
    """Refuse what cannot be a name, or is one already.

    Raises
    ------
    InputRefused
        With code ``account-name`` or ``account-exists``.
    """
    check_name(name)
    if session.get(SiteAccountRow, name) is not None or session.get(SiteKeyRow, name) is not None:
        raise InputRefused(
            f"The name {name} is taken by a user or a key.",
            meaning="What is done under a name must be one person's, or one program's.",
            action="Choose another name.",
            code="account-exists",
        )


def written(roles: Iterable[Role]) -> str:
    """Return roles as a column holds them.

    Raises
    ------
    InputRefused
        With code ``account-role``, if there is none.
    """
    text = ",".join(sorted(set(roles)))
    if not text:
        raise InputRefused(
            "Somebody without a role could do nothing.",
            action=f"Name one or more of {', '.join(Role)}.",
            code="account-role",
        )
    return text


def roles_of(text: str) -> frozenset[Role]:
    """Return the roles of a column."""
    return frozenset(Role(name) for name in text.split(",") if name)


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a secret, hex; 256 random bits need no slower hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
