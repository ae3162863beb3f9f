"""A bounded micro-batcher: images in, one network call for those that wait together.

A few threads, the lanes, take what waits: each turns its jobs' bytes into pixels and runs the
network on them at once, so the event loop never does, and an image changes threads only twice.
Batches form while all lanes are busy; `maximum_wait` adds a little on top.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from client.inference.engine import Images, InferenceEngine
from client.inference.limits import BatchLimits
from client.inference.outputs import Outputs
from common.errors import Busy, ModelError, WardroundError

log = logging.getLogger(__name__)

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


@dataclass(frozen=True)
class Known(Generic[A_co]):
    """An answer for which no network need be asked."""

    answer: A_co


class Work(Protocol[A_co]):
    """One image on its way through a lane; what it raises is its own request's answer."""

    def prepare(self) -> Images | Known[A_co]:
        """Return the image's pixels, uint8 (S, S, 3), or its answer."""

    def finish(self, output: Outputs) -> A_co:
        """Make the answer of the network's output for this one image."""


@dataclass(frozen=True, eq=False)
class _Job:
    engine: InferenceEngine
    work: Work[Any]
    given_up_at: float
    answer: Future[Any] = field(default_factory=Future)


class MicroBatcher:
    """Collects images for at most ``limits.wait`` and runs them as one batch.

    Parameters
    ----------
    limits : BatchLimits
        How much, and how long.
    on_batch : callable, optional
        Told the size of each batch, for metrics.
    """

    def __init__(
        self,
        limits: BatchLimits | None = None,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self.limits = limits or BatchLimits()
        self._on_batch = on_batch
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._jobs: queue.Queue[_Job | None] = queue.Queue(self.limits.queue)
        self._threads = [
            threading.Thread(target=self._run, name=f"inference-{n}", daemon=True)
            for n in range(self.limits.lanes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, engine: InferenceEngine, work: Work[A]) -> Future[A]:
        """Ask about one image.

        Parameters
        ----------
        engine : InferenceEngine
            The model that shall answer, whatever is swapped meanwhile.
        work : Work
            Makes the image's pixels for that model, and its answer; runs in a lane.

        Returns
        -------
        Future
            Of the work's answer. Fails with what it raised, ModelError, or Busy
            (``queue-deadline``).

        Raises
        ------
        Busy
            If the queue is full, or the service is closing.
        """
        job = _Job(engine, work, time.monotonic() + self.limits.queue_seconds)
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
        """Answer what waits, then stop the lanes."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        # Nothing here may outlive one turn: a job kept in a local variable while waiting for the
        # next would keep a swapped-out network in memory.
        while self._turn():
            pass
        self._jobs.put(None)  # for the lane beside

    def _turn(self) -> bool:
        jobs, more = self._collect()
        for engine in dict.fromkeys(job.engine for job in jobs):
            self._answer(engine, [job for job in jobs if job.engine is engine])
        return more

    def _collect(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        deadline: float | None = None
        while len(jobs) < self.limits.batch:
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
                deadline = time.monotonic() + self.limits.wait
        return jobs, True

    def _answer(self, engine: InferenceEngine, jobs: Sequence[_Job]) -> None:
        prepared = [(job, pixels) for job in jobs if (pixels := _prepared(job)) is not None]
        if prepared:
            self._compute(engine, prepared)

    def _compute(self, engine: InferenceEngine, prepared: Sequence[tuple[_Job, Images]]) -> None:
        try:
            outputs = engine.answers(np.stack([pixels for _, pixels in prepared]))
        except Exception as error:  # the lane must live on; each request is told
            if isinstance(error, ModelError) and len(prepared) > 1:
                # One image that breaks the network must not take its neighbours' answers along.
                for alone in prepared:
                    self._compute(engine, [alone])
                return
            _fail([job for job, _ in prepared], error)
            return
        if self._on_batch is not None:
            self._on_batch(len(prepared))
        for index, (job, _) in enumerate(prepared):
            try:
                job.answer.set_result(job.work.finish(outputs.row(index)))
            except Exception as error:
                _fail([job], error)


def _prepared(job: _Job) -> Images | None:
    """Return a job's pixels; None where it has got its answer, or an error, already."""
    if time.monotonic() > job.given_up_at:
        late = Busy(
            "The image waited too long for its turn.",
            action="Try again in a moment.",
            code="queue-deadline",
        )
        job.answer.set_exception(late)
        return None
    try:
        prepared = job.work.prepare()
    except Exception as error:
        _fail([job], error)
        return None
    if isinstance(prepared, Known):
        job.answer.set_result(prepared.answer)
        return None
    return prepared


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    if not isinstance(error, WardroundError):
        log.error("event=inference-failed type=%s batch=%d", type(error).__name__, len(jobs))
        error = ModelError(f"Inference failed ({type(error).__name__}).")
    for job in jobs:
        job.answer.set_exception(error)
