"""Time as the round loop sees it, so that a test can turn the hands."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The system's clock, or a test's."""

    def now(self) -> float:
        """Return UTC seconds since 1970."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return UTC seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Backoff:
    """Polling intervals from 0.05 s up to 1 s, half as long again each time; reset by news."""

    FIRST = 0.05
    LAST = 1.0

    def __init__(self) -> None:
        self._next = self.FIRST

    def reset(self) -> None:
        """Poll quickly again."""
        self._next = self.FIRST

    def interval(self, remaining: float) -> float:
        """Return how long to wait now, at most ``remaining`` seconds."""
        interval = min(self._next, max(remaining, 0.0))
        self._next = min(self.LAST, self._next * 1.5)
        return interval
