"""Slowing down whoever guesses passwords, by account and by address, in memory.

Whoever signed in from an address before is counted there apart from all others: strangers who
guess at an account, or beside it behind one proxy, must not shut its owner out.

The first tries are free; from then on each one doubles the wait before the next. A try is counted
before it is checked, so that many at once are no way around. A restart forgets the counts; what
stands behind them, Argon2id at two guesses at a time, it does not.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import TooMany

FREE_BY_ACCOUNT = 5
FREE_BY_ADDRESS = 20
LONGEST_WAIT_SECONDS = 900.0
FORGET_SECONDS = 3600.0
MOST_KEYS = 10_000
KNOWN_SECONDS = 30 * 86_400.0


@dataclass
class _Tries:
    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Throttle:
    """Counts failed tries by key; ``clock`` returns seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[tuple[str, str], _Tries] = OrderedDict()
        self._succeeded: OrderedDict[tuple[str, str], float] = OrderedDict()

    def attempt(self, account: str, address: str) -> None:
        """Count a try that is about to be made.

        Raises
        ------
        TooMany
            With code ``sign-in-throttled``, if account or address must wait; it is not counted.
        """
        now = self._clock()
        with self._lock:
            keys = self._counted_as(account, address, now)
            known = [(self._known(key, now), free) for key, free in keys]
            wait = max(tries.until for tries, _ in known) - now
            if wait > 0:
                raise TooMany(
                    "There were too many tries with a wrong password.",
                    action=f"Wait {math.ceil(wait)} s and try again.",
                    retry_seconds=wait,
                    code="sign-in-throttled",
                )
            for tries, free in known:
                tries.count, tries.last = tries.count + 1, now
                if tries.count >= free:
                    tries.until = now + min(2.0 ** (tries.count - free), LONGEST_WAIT_SECONDS)

    def succeeded(self, account: str, address: str) -> None:
        """Forget an account's failures, and this one try of the address."""
        with self._lock:
            self._succeeded[account, address] = self._clock()
            self._succeeded.move_to_end((account, address))
            while len(self._succeeded) > MOST_KEYS:
                self._succeeded.popitem(last=False)
            if self._tries.pop((f"account at {address}", account), None) is not None:
                return  # its own count; those of strangers stay
            self._tries.pop(("account", account), None)
            tries = self._tries.get(("address", address))
            if tries is not None:
                tries.count, tries.until = max(0, tries.count - 1), 0.0

    def _counted_as(
        self, account: str, address: str, now: float
    ) -> tuple[tuple[tuple[str, str], int], ...]:
        """Return what a try counts against, and how many are free."""
        if now - self._succeeded.get((account, address), -KNOWN_SECONDS) < KNOWN_SECONDS:
            return (((f"account at {address}", account), FREE_BY_ACCOUNT),)
        return ((("account", account), FREE_BY_ACCOUNT), (("address", address), FREE_BY_ADDRESS))

    def _known(self, key: tuple[str, str], now: float) -> _Tries:
        tries = self._tries.get(key)
        if tries is None or now - tries.last > FORGET_SECONDS:
            tries = self._tries[key] = _Tries(last=now)
        self._tries.move_to_end(key)
        while len(self._tries) > MOST_KEYS:
            self._tries.popitem(last=False)
        return tries
