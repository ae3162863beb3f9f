"""A bounded micro-batcher: single images in, one network call for those that wait together.

One thread runs the network, so the event loop never does and the device is never asked twice at
once. Batches form while the thread is busy; `maximum_wait` adds a little on top.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from client.inference.engine import Images, InferenceEngine, Probabilities
from common.errors import Busy, ModelError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Job:
    engine: InferenceEngine
    image: Images
    answer: Future[Probabilities] = field(default_factory=Future)


class MicroBatcher:
    """Collects single images for at most `maximum_wait` and runs them as one batch.

    Parameters
    ----------
    maximum_batch : int, default 8
        Most images in one network call.
    maximum_wait : float, default 0.002
        Seconds that an image may wait for company.
    maximum_queue : int, default 64
        Images waiting; one more is refused.
    on_batch : callable, optional
        Told the size of each batch, for metrics.
    """

    def __init__(
        self,
        *,
        maximum_batch: int = 8,
        maximum_wait: float = 0.002,
        maximum_queue: int = 64,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._maximum_batch = maximum_batch
        self._maximum_wait = maximum_wait
        self._on_batch = on_batch
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._jobs: queue.Queue[_Job | None] = queue.Queue(maximum_queue)
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, engine: InferenceEngine, image: Images) -> Future[Probabilities]:
        """Ask for one image's probabilities.

        Parameters
        ----------
        engine : InferenceEngine
            The model that shall answer, whatever is swapped meanwhile.
        image : ndarray of uint8, (S, S, 3)
            Prepared for that model.

        Returns
        -------
        Future of ndarray of float64, (K,)

        Raises
        ------
        Busy
            If the queue is full, or the service is closing.
        """
        job = _Job(engine, image)
        with self._lock:
            if self._closed.is_set():
                raise Busy("The service is closing.", code="closing")
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                raise Busy(
                    "Too many images wait for an answer.", action="Try again in a moment."
                ) from None
        return job.answer

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._jobs.qsize()

    def close(self) -> None:
        """Answer what waits, then stop the thread."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        # Nothing here may outlive one turn: a job kept in a local variable while waiting for the
        # next would keep a swapped-out network in memory.
        while self._turn():
            pass

    def _turn(self) -> bool:
        jobs, more = self._collect()
        for engine in dict.fromkeys(job.engine for job in jobs):
            self._answer(engine, [job for job in jobs if job.engine is engine])
        return more

    def _collect(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        deadline: float | None = None
        while len(jobs) < self._maximum_batch:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                job = self._jobs.get(timeout=left) if left != 0.0 else self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            if job.answer.set_running_or_notify_cancel():
                jobs.append(job)
            if deadline is None:
                deadline = time.monotonic() + self._maximum_wait
        return jobs, True

    def _answer(self, engine: InferenceEngine, jobs: list[_Job]) -> None:
        try:
            rows = engine.probabilities(np.stack([job.image for job in jobs]))
        except ModelError as error:
            self._answer_one_by_one(engine, jobs, error)
            return
        except Exception as error:  # the thread must live on; each request is told
            log.error("event=inference-failed type=%s batch=%d", type(error).__name__, len(jobs))
            for job in jobs:
                job.answer.set_exception(ModelError(f"Inference failed ({type(error).__name__})."))
            return
        if self._on_batch is not None:
            self._on_batch(len(jobs))
        for job, row in zip(jobs, rows, strict=True):
            job.answer.set_result(row)

    def _answer_one_by_one(
        self, engine: InferenceEngine, jobs: list[_Job], error: ModelError
    ) -> None:
        # One image that breaks the network must not take its neighbours' answers along.
        if len(jobs) == 1:
            jobs[0].answer.set_exception(error)
            return
        for job in jobs:
            self._answer(engine, [job])
