"""How often to ask for work: often while there is some, seldom on a quiet day."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A waiting time that is short for a while after each piece of work.

    Parameters
    ----------
    busy, idle : float
        Seconds to wait between questions, within and after the busy time.
    busy_for : float, default 120
        Seconds after the last piece of work (or the start) that count as busy.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        *,
        busy: float,
        idle: float,
        busy_for: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._busy = busy
        self._idle = idle
        self._busy_for = busy_for
        self._clock = clock
        self._last_work = clock()

    def work_seen(self) -> None:
        """Remember that there is work about."""
        self._last_work = self._clock()

    @property
    def seconds(self) -> float:
        """How long to wait now."""
        busy = self._clock() - self._last_work < self._busy_for
        return self._busy if busy else self._idle
