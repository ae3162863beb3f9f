"""A provider's answer to a sign-in: whose sign-in it is, and who it says somebody is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from common.accounts.identity import Identity, SignInRefused
from common.accounts.pending import Pending, PendingSignIns
from common.accounts.provider import IdentityProvider, same_state
from common.accounts.provider_settings import OpenIdSettings, claim_values

ERROR_NAME = re.compile(r"[a-z_]{1,40}")  # RFC 6749, 4.1.2.1; anything else is not repeated
LONGEST_CODE = 4096
LONGEST_SUBJECT = 255


def answered(pending: PendingSignIns, *, cookie: str, state: str) -> Pending:
    """Return the sign-in that this browser began and that is now answered, for the first time.

    Raises
    ------
    SignInRefused
        With code ``provider-state``.
    """
    found = pending.take(cookie)
    if found is None or not same_state(found, state):
        raise SignInRefused(
            "This answer belongs to no sign-in that this browser began just now.",
            meaning="It was used before, is older than ten minutes, or was begun elsewhere.",
            action="Sign in again.",
            code="provider-state",
        )
    return found


def proven_claims(
    provider: IdentityProvider, pending: Pending, answer: Mapping[str, str]
) -> Mapping[str, object]:
    """Return the claims of the ID token that the answer's code is exchanged for.

    Raises
    ------
    SignInRefused, ProviderUnavailable
        As `IdentityProvider.claims`; with code ``provider-answer`` where there is no code.
    """
    code = answer.get("code", "")
    if "error" in answer or not 0 < len(code) <= LONGEST_CODE:
        said = answer.get("error", "")
        name = said if ERROR_NAME.fullmatch(said) else "no code"
        raise SignInRefused(
            f"The identity provider did not sign you in ({name}).",
            action="Try again, or ask whoever looks after it.",
            code="provider-answer",
        )
    return provider.claims(pending, code=code, issuer=answer.get("iss"))


def identity_of(claims: Mapping[str, object], settings: OpenIdSettings) -> Identity:
    """Return who an ID token is about.

    Raises
    ------
    SignInRefused
        With code ``provider-token``, if it names nobody.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise SignInRefused("The identity provider's token names nobody.", code="provider-token")
    names = sorted(claim_values(claims, settings.name_claim))
    return Identity(settings.issuer, subject, names[0] if names else "")
