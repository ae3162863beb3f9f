"""One image in, one verdict out: prepared as in training, asked of one model version."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, ParamSpec, Protocol, TypeVar

from client.answers.answered import Answered
from client.audit_writer import AuditWriter
from client.inference.asking import Asking, Made, answered
from client.inference.batching import MicroBatcher
from client.inference.engine import Images, InferenceEngine, ModelHolder
from client.inference.result_cache import DEFAULT_SIZE, ResultCache
from client.reading.reading import Reading
from client.reading.settings import ReadingSettings
from common.errors import Busy
from common.release import ReleaseManifest

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What one model says of one image, and what that means at this site.

    Attributes
    ----------
    manifest : ReleaseManifest
        The one release that answered.
    probabilities : tuple of float
        The model's own, uncalibrated; in the order of the recipe's classes, they sum to 1.
    seconds : float
        From the image's bytes to the answer.
    reading : Reading
        Verdict, calibrated probabilities, uncertainty, warnings, and who should decide.
    head_digest : str or None
        Of the site's own head, where that answered in the place of the release's classifier.
    together_with : tuple of int
        Versions of older releases that answered together with that one.
    cached : bool
        The same pixels were asked about before, of all that answers now.
    """

    manifest: ReleaseManifest
    probabilities: tuple[float, ...]
    seconds: float
    reading: Reading
    head_digest: str | None = None
    together_with: tuple[int, ...] = ()
    cached: bool = False

    @property
    def positive_probability(self) -> float:
        """Summed probability of the recipe's positive classes, in [0, 1]."""
        return self.reading.positive_probability

    @property
    def verdict(self) -> Literal["positive", "negative"]:
        """Positive at or above the threshold, the release's or the site's."""
        return self.reading.verdict


class Answers(Protocol):
    """Where answers are kept: `client.answers.log.AnswerLog`."""

    def record(self, answer: Answered) -> None:
        """Keep an answer; never waits and never raises."""


class Admission:
    """Counts the uploads being handled, from their first byte to the answer.

    It bounds memory: at most ``capacity`` uploads of the largest size are held at once. For one
    event loop only; it takes no lock.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.admitted = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold one place.

        Raises
        ------
        Busy
            If all places are taken.
        """
        if self.admitted >= self.capacity:
            raise Busy(
                "This site handles as many images as it can.", action="Try again in a moment."
            )
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1


class Predictor:
    """Predicts off the event loop: an image is decoded and asked about in a lane of the batcher.

    Every answer is written down by ``audit`` before it is given, and kept by ``answers``.

    Parameters
    ----------
    holder : ModelHolder
        Whose model answers.
    batcher : MicroBatcher
        Whose lanes compute.
    workers : Executor
        For other blocking work.
    audit : AuditWriter
        The site's.
    answers : Answers
        The site's.
    settings : ReadingSettings, optional
        How answers are read here.
    kept_answers : int
        Kept for images that come again.
    """

    def __init__(
        self,
        holder: ModelHolder,
        batcher: MicroBatcher,
        workers: Executor,
        audit: AuditWriter,
        answers: Answers,
        settings: ReadingSettings | None = None,
        *,
        kept_answers: int = DEFAULT_SIZE,
    ) -> None:
        self._audit = audit
        self._answers = answers
        self._holder = holder
        self._batcher = batcher
        self._workers = workers
        self._settings = settings or ReadingSettings()
        self.cache: ResultCache[Made] = ResultCache(kept_answers)
        self._cached_of: Callable[[], InferenceEngine | None] = lambda: None

    async def predict(
        self, image: bytes | Images, *, request_id: str, by: str | None = None
    ) -> Prediction:
        """Predict one image with the model that is current when the request begins.

        Parameters
        ----------
        image : bytes or ndarray of uint8, (S, S, 3)
            A file as uploaded, or pixels that the caller prepared for this model.
        request_id : str
            As the answer will name it; for the audit log.
        by : str, optional
            The account or the key that asks; for the audit log alone.

        Raises
        ------
        ReleaseError
            If no model is loaded.
        ImageRefused
            If the bytes are no image that we accept.
        Busy
            If too many images wait, or this one did for too long.
        ModelError
            If the network fails on this image.
        """
        started = time.monotonic()
        engine = self._engine()
        work = Asking(image, engine, self._settings, self.cache)
        made = await asyncio.wrap_future(self._batcher.submit(engine, work))
        head = engine.head_digest
        await self._audit.prediction(
            engine.manifest,
            request_id,
            head_digest=head,
            profile_digest=made.reading.profile_digest,
            by=by,
        )
        self._answers.record(answered(made, engine, request_id=request_id))
        return Prediction(
            manifest=engine.manifest,
            probabilities=made.probabilities,
            seconds=time.monotonic() - started,
            reading=made.reading,
            head_digest=head,
            together_with=tuple(member.version for member in engine.members),
            cached=made.cached,
        )

    def _engine(self) -> InferenceEngine:
        """Return the engine that answers now; answers kept of another one are forgotten."""
        engine = self._holder.require()
        if self._cached_of() is not engine:
            self.cache.clear()
            self._cached_of = weakref.ref(engine)
        return engine

    async def in_worker(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in the bounded pool."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: work(*args, **kwargs))
