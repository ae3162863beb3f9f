"""How often a caller may ask, and how much at once: nobody's script shuts a clinician out.

Token buckets (RFC 2697 without colours) in memory, for one event loop; a restart fills them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import TooMany

MOST_CALLERS = 10_000


@dataclass
class _Use:
    tokens: float
    at: float
    open: int = 0


class Limits:
    """What each caller uses of its share.

    Parameters
    ----------
    per_minute : int
        Requests that a caller may make on average.
    burst : int
        Requests that it may make at once after a pause.
    at_once : int
        Requests that it may hold open.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        *,
        per_minute: int,
        burst: int,
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = per_minute / 60
        self._burst = float(burst)
        self._at_once = at_once
        self._clock = clock
        self._uses: OrderedDict[str, _Use] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one request.

        Raises
        ------
        TooMany
            If the caller's bucket is empty.
        """
        use = self._use(caller)
        if use.tokens < 1:
            wait = (1 - use.tokens) / self._rate
            raise _too_many("You ask too often.", max(1.0, wait))
        use.tokens -= 1

    def begin(self, caller: str) -> None:
        """Hold one of the caller's places, until `end`.

        Raises
        ------
        TooMany
            If all of them are held.
        """
        use = self._use(caller)
        if use.open >= self._at_once:
            raise _too_many("You have too many requests open.", 1.0)
        use.open += 1

    def end(self, caller: str) -> None:
        """Give one of the caller's places back."""
        use = self._uses.get(caller)
        if use is not None:
            use.open = max(0, use.open - 1)

    def _use(self, caller: str) -> _Use:
        now = self._clock()
        use = self._uses.get(caller)
        if use is None:
            use = self._uses[caller] = _Use(self._burst, now)
            self._forget()
        use.tokens = min(self._burst, use.tokens + (now - use.at) * self._rate)
        use.at = now
        self._uses.move_to_end(caller)
        return use

    def _forget(self) -> None:
        """Drop the oldest idle callers: an attacker must not fill the memory with addresses."""
        while len(self._uses) > MOST_CALLERS:
            name, use = next(iter(self._uses.items()))
            if use.open:
                self._uses.move_to_end(name)
                return
            del self._uses[name]


def _too_many(what: str, seconds: float) -> TooMany:
    action = f"Wait {seconds:.0f} s, or ask hospital IT for more."
    return TooMany(what, retry_seconds=seconds, action=action)
