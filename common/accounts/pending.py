"""Sign-ins that were begun at an identity provider and are not yet answered, in memory.

Each belongs to one browser, by a secret in its cookie; it is taken out when it is looked up, so
that an answer counts once. A restart forgets them all: people begin again.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LIFE_SECONDS = 600.0
MOST = 1000
MOST_EACH = 50
"""Of one address: whoever begins sign-ins by the thousand drops their own, not those of others."""


@dataclass(frozen=True)
class Pending:
    """What must come back: ``state`` in the answer, ``nonce`` in the token; ``verifier`` goes out.

    ``target`` is the page to go on to, checked before it was kept.
    """

    state: str
    nonce: str
    verifier: str
    target: str
    until: float


class PendingSignIns:
    """At most `MOST` of them; the oldest makes room. ``clock`` returns seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Pending] = OrderedDict()
        self._owners: dict[str, str] = {}

    def begin(self, target: str, *, address: str = "") -> tuple[str, Pending]:
        """Return the secret for the browser's cookie, and what was kept under it."""
        secret = secrets.token_urlsafe(32)
        # RFC 7636, 4.1: 43 to 128 characters.
        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        made = Pending(state, nonce, verifier, target, self._clock() + LIFE_SECONDS)
        with self._lock:
            mine = [held for held in self._held if self._owners[held] == address]
            if address and len(mine) >= MOST_EACH:
                self._drop(mine[0])
            while len(self._held) >= MOST:
                self._drop(next(iter(self._held)))
            self._held[_digest(secret)], self._owners[_digest(secret)] = made, address
        return secret, made

    def take(self, secret: str) -> Pending | None:
        """Return a sign-in that was begun, once; None where there is none, or it is too old."""
        with self._lock:
            found = self._drop(_digest(secret))
        return found if found is not None and self._clock() < found.until else None

    def _drop(self, held: str) -> Pending | None:
        self._owners.pop(held, None)
        return self._held.pop(held, None)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
