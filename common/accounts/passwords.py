"""Passwords: what is accepted, and how it is kept.

Hashes are Argon2id with the parameters of RFC 9106's second recommendation (64 MiB, 3 passes,
4 lanes), argon2-cffi's own default. Rules follow NIST SP 800-63B, 5.1.1.2: length counts, and
nothing is asked about kinds of characters.
"""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from common.errors import InputRefused

SHORTEST = 12
LONGEST = 256
FEWEST_DIFFERENT = 5
HASHES_AT_ONCE = 2

_hasher = PasswordHasher()
_turn = threading.BoundedSemaphore(HASHES_AT_ONCE)  # 64 MiB each: guesses must not fill the memory


def hashed(password: str, *, name: str) -> str:
    """Return the Argon2id hash of a new password.

    Raises
    ------
    InputRefused
        With code ``password-weak``, naming the rule that it breaks.
    """
    text = _normal(password)
    if not SHORTEST <= len(text) <= LONGEST:
        raise _weak(f"It must have {SHORTEST} to {LONGEST} characters.")
    if len(set(text.casefold())) < FEWEST_DIFFERENT:
        raise _weak(f"It must have at least {FEWEST_DIFFERENT} different characters.")
    if name.casefold() in text.casefold() or name.casefold()[::-1] in text.casefold():
        raise _weak("It must not contain the account's name.")
    with _turn:
        return _hasher.hash(text)


def matches(known: str | None, password: str) -> bool:
    """Tell whether a password is the one that was hashed; without a hash, no, as slowly."""
    with _turn:
        try:
            return _hasher.verify(known or _nobody(), _normal(password)) and known is not None
        except (Argon2Error, InvalidHashError):
            return False


_made: list[str] = []


def _nobody() -> str:
    """Return the hash of a password that nobody has, so that unknown names take as long."""
    if not _made:
        _made.append(_hasher.hash("a password that nobody has, of no account"))
    return _made[0]


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)[: 4 * LONGEST]


def _weak(rule: str) -> InputRefused:
    return InputRefused(
        f"This password is not accepted. {rule}",
        action="Choose another one, such as four unrelated words.",
        code="password-weak",
    )
