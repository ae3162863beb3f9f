"""One thread that explains, with a short queue: predictions go first.

The thread's niceness is raised where the system lets a thread have its own (Linux), so that an
explanation takes the processor time that predictions leave.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from client.explanation.budget import Budget
from client.explanation.settings import ExplanationSettings
from common.errors import Busy, ModelError, WardroundError

log = logging.getLogger(__name__)

T = TypeVar("T")
_NICENESS = 10
_CLOSE_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class _Job(Generic[T]):
    work: Callable[[Budget], T]
    given_up_at: float
    answer: Future[T] = field(default_factory=Future)


class ExplanationPool:
    """Runs explanations one after another, in a thread that starts with the first.

    Parameters
    ----------
    settings : ExplanationSettings
    """

    def __init__(self, settings: ExplanationSettings) -> None:
        self._settings = settings
        self._closing = threading.Event()
        self._lock = threading.Lock()
        # One place more than may wait: for the word to stop.
        self._jobs: queue.Queue[_Job[Any] | None] = queue.Queue(settings.queue + 1)
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[Budget], T]) -> Future[T]:
        """Have something explained.

        Parameters
        ----------
        work : callable
            Looks at its budget as it goes.

        Returns
        -------
        Future
            Fails with what ``work`` raised, or Busy (``queue-deadline``); one that is cancelled
            before its turn is not computed.

        Raises
        ------
        Busy
            If as many wait as may, or the service is closing.
        """
        job = _Job(work, time.monotonic() + self._settings.queue_seconds)
        with self._lock:
            if self._closing.is_set():
                raise Busy("The service is closing.", code="closing")
            if self._jobs.qsize() >= self._settings.queue:
                raise Busy("Too many explanations wait.", action="Try again in a moment.")
            self._jobs.put_nowait(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="explanations", daemon=True)
                self._thread.start()
        return job.answer

    def close(self) -> None:
        """Break off what is computed, and end."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            self._jobs.put_nowait(None)
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        step_back()
        # Nothing of a job may be kept while waiting for the next: it holds a network.
        while self._turn():
            pass

    def _turn(self) -> bool:
        job = self._jobs.get()
        if job is None:
            return False
        if not job.answer.set_running_or_notify_cancel():
            return True
        try:
            job.answer.set_result(self._answer(job))
        except WardroundError as error:
            job.answer.set_exception(error)
        except Exception as error:  # the thread must live on; the text may be anything
            log.error("event=explanation-failed type=%s", type(error).__name__)
            job.answer.set_exception(
                ModelError(f"The explanation failed ({type(error).__name__}).")
            )
        return True

    def _answer(self, job: _Job[T]) -> T:
        if time.monotonic() > job.given_up_at:
            raise Busy(
                "The explanation waited too long for its turn.",
                action="Try again in a moment.",
                code="queue-deadline",
            )
        budget = Budget(self._settings.seconds, self._closing)
        budget.check()
        return job.work(budget)


def step_back() -> None:
    """Let the calling thread have the processor after others, where threads have a niceness."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
