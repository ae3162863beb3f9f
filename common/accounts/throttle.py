"""Slowing down whoever guesses passwords, by account and by address, in memory.

Whoever signed in from an address before is counted there apart from all others: strangers who
guess at an account, or beside it behind one proxy, must not shut its owner out.

The first tries are free; from then on each one doubles the wait before the next. A try is counted
before it is checked, so that many at once are no way around. A restart forgets the counts; what
stands behind them, Argon2id at two guesses at a time, it does not.

A try that is refused leaves no trace, so names made up by the thousand push nobody's count out of
the memory. Tries that count do fill it, from many addresses; a count that somebody waits for
leaves it last, and Argon2id makes each such try slow.
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
MOST_KEYS = 50_000
"""Some 16 MB of counts at most."""

KNOWN_SECONDS = 30 * 86_400.0
MOST_DOUBLINGS = 10
"""More than the longest wait needs; a power without a bound would be too large for a float."""


@dataclass(slots=True)
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
            wait = max(self._waits_until(key) for key, _ in keys) - now
            if wait > 0:
                raise TooMany(
                    "There were too many tries with a wrong password.",
                    action=f"Wait {math.ceil(wait)} s and try again.",
                    retry_seconds=wait,
                    code="sign-in-throttled",
                )
            mine = {key for key, _ in keys}
            for key, free in keys:
                tries = self._known(key, now, beside=mine)
                tries.count, tries.last = tries.count + 1, now
                if tries.count >= free:
                    wait = 2.0 ** min(tries.count - free, MOST_DOUBLINGS)
                    tries.until = now + min(wait, LONGEST_WAIT_SECONDS)

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

    def _waits_until(self, key: tuple[str, str]) -> float:
        tries = self._tries.get(key)
        return 0.0 if tries is None else tries.until

    def _known(self, key: tuple[str, str], now: float, *, beside: set[tuple[str, str]]) -> _Tries:
        tries = self._tries.get(key)
        if tries is None or now - tries.last > FORGET_SECONDS:
            while key not in self._tries and len(self._tries) >= MOST_KEYS:
                del self._tries[self._most_idle(now, beside)]
            tries = self._tries[key] = _Tries(last=now)
        self._tries.move_to_end(key)
        return tries

    def _most_idle(self, now: float, beside: set[tuple[str, str]]) -> tuple[str, str]:
        """Return the key that was tried longest ago of those that need not wait.

        Where all must wait, it is the one whose wait ends first; it is none of ``beside``.
        """
        others = ((key, tries) for key, tries in self._tries.items() if key not in beside)
        found = next((key for key, tries in others if tries.until <= now), None)
        return found or min(self._tries.keys() - beside, key=self._waits_until)
