"""Who somebody is at an identity provider."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from common.errors import WardroundError

LONGEST_NAME = 48


class SignInRefused(WardroundError):
    """A sign-in did not hold; the code says which check."""

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


def readable_name(identity: Identity) -> str:
    """Return an account's name: what the provider calls the person, and a part of a digest.

    The digest of issuer and subject keeps names apart, those of the page's own accounts too.
    """
    plain = re.sub(r"[^a-z0-9._-]+", "-", identity.name.lower()).strip("-._")
    first = plain if plain[:1].isalpha() else f"u-{plain}".rstrip("-")
    mark = hashlib.sha256(f"{identity.issuer}\n{identity.subject}".encode()).hexdigest()[:8]
    return f"{first[:LONGEST_NAME]}.{mark}"
