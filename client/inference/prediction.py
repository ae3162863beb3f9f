"""One image in, one verdict out: prepared as in training, asked of one model version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, ParamSpec, TypeVar

from client.audit_writer import AuditWriter
from client.inference.batching import MicroBatcher
from client.inference.engine import Images, ModelHolder
from common.errors import Busy, ImageRefused
from common.imaging import decode, prepare
from common.recipe import ImageSpec
from common.release import ReleaseManifest

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What one model says of one image.

    Attributes
    ----------
    manifest : ReleaseManifest
        The one release that answered.
    probabilities : tuple of float
        In the order of the recipe's classes; they sum to 1.
    seconds : float
        From the image's bytes to the answer.
    head_digest : str or None
        Of the site's own head, where that answered in the place of the release's classifier.
    """

    manifest: ReleaseManifest
    probabilities: tuple[float, ...]
    seconds: float
    head_digest: str | None = None

    @property
    def positive_probability(self) -> float:
        """Summed probability of the recipe's positive classes, in [0, 1]."""
        positive = self.manifest.recipe.decision.positive_classes
        pairs = zip(self.manifest.classes, self.probabilities, strict=True)
        return min(1.0, sum(p for name, p in pairs if name in positive))

    @property
    def verdict(self) -> Literal["positive", "negative"]:
        """Positive at or above the release's threshold."""
        return "positive" if self.positive_probability >= self.manifest.threshold else "negative"


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

    ``workers`` is for other blocking work.

    Every answer is written down by ``audit`` before it is given.
    """

    def __init__(
        self, holder: ModelHolder, batcher: MicroBatcher, workers: Executor, audit: AuditWriter
    ) -> None:
        self._audit = audit
        self._holder = holder
        self._batcher = batcher
        self._workers = workers

    async def predict(self, image: bytes | Images, *, request_id: str) -> Prediction:
        """Predict one image with the model that is current when the request begins.

        Parameters
        ----------
        image : bytes or ndarray of uint8, (S, S, 3)
            A file as uploaded, or pixels that the caller prepared for this model.
        request_id : str
            As the answer will name it; for the audit log.

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
        engine = self._holder.require()
        prepare = partial(prepare_upload, image, engine.recipe.image)
        row = await asyncio.wrap_future(self._batcher.submit(engine, prepare))
        head = engine.head_digest
        await self._audit.prediction(engine.manifest, request_id, head_digest=head)
        seconds = time.monotonic() - started
        return Prediction(engine.manifest, tuple(float(p) for p in row), seconds, head)

    async def in_worker(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in the bounded pool."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: work(*args, **kwargs))


def prepare_upload(image: bytes | Images, spec: ImageSpec) -> Images:
    """Turn uploaded bytes into the network's pixels, by the very path that training takes.

    Raises
    ------
    ImageRefused
        As `common.imaging.decode`; with code ``pixels-shape``, if what came as pixels is not of
        the model's size.
    """
    if isinstance(image, bytes):
        return prepare(decode(image), spec)
    if image.shape != (spec.size, spec.size, 3):
        raise ImageRefused(
            f"The pixels are not of this model's size, {spec.size} x {spec.size} x 3.",
            action="Prepare them as its recipe says, or send the image file.",
            code="pixels-shape",
        )
    return image
