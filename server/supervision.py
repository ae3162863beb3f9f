"""Background work that never dies silently: repeated, retried with backoff, and visible."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from common.errors import WardroundError

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0


@dataclass(frozen=True)
class TaskHealth:
    """How a task is doing; ``failing_since`` and ``code`` are None while all is well."""

    name: str
    alive: bool
    succeeded_at: datetime | None = None
    failing_since: datetime | None = None
    code: str | None = None

    @property
    def well(self) -> bool:
        """Whether it runs, and its last attempt succeeded."""
        return self.alive and self.code is None


class SupervisedTask:
    """Repeats ``action`` in a thread of its own until `stop`.

    Parameters
    ----------
    name : str
        For logs and health.
    action : callable
        One piece of work; may raise. It returns when it is done, or there was nothing to do.
    every_seconds : float
        Pause after a success; after a failure it is 1 s, doubling up to 60 s.
    """

    def __init__(self, name: str, action: Callable[[], None], *, every_seconds: float) -> None:
        self._name = name
        self._action = action
        self._every = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._health = TaskHealth(name, alive=False)

    def start(self) -> None:
        """Start the thread; once only."""
        self._thread.start()

    def stop(self, *, timeout: float = 30.0) -> None:
        """Let the work in progress end, and the thread with it; harmless if not started."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                logger.error("task-still-running name=%s", self._name)

    @property
    def health(self) -> TaskHealth:
        """How the task is doing now."""
        health = self._health
        return TaskHealth(
            health.name,
            self._thread.is_alive(),
            health.succeeded_at,
            health.failing_since,
            health.code,
        )

    def _run(self) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while not self._stopping.is_set():
            pause = self._every if self._attempt() else backoff
            backoff = (
                FIRST_BACKOFF_SECONDS
                if self._health.code is None
                else min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            )
            self._stopping.wait(pause)

    def _attempt(self) -> bool:
        now = datetime.now(UTC)
        before = self._health
        try:
            self._action()
        except Exception as error:  # whatever it is: the task must go on, and be seen to fail
            code = error.code if isinstance(error, WardroundError) else "unexpected"
            if code != before.code:
                logger.error("task-failed name=%s code=%s", self._name, code, exc_info=error)
            since = before.failing_since or now
            self._health = TaskHealth(self._name, True, before.succeeded_at, since, code)
            return False
        if before.code is not None:
            logger.info("task-recovered name=%s after=%s", self._name, before.code)
        self._health = TaskHealth(self._name, True, now)
        return True
