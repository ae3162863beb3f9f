"""One image on its way through a lane: to pixels and facts, and from an output to a reading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from client.answers.answered import Answered
from client.inference.batching import Known
from client.inference.engine import Images, InferenceEngine
from client.inference.outputs import Outputs
from client.inference.result_cache import ResultCache, ResultKey
from client.monitoring.answer_statistics import network_statistics
from client.reading.image_quality import ImageFacts, facts_of
from client.reading.reading import Reading, read
from client.reading.settings import ReadingSettings
from common.errors import ImageRefused
from common.imaging import Pixels, decode, prepare
from common.recipe import ImageSpec


@dataclass(frozen=True)
class Made:
    """An answer, and what is kept of it.

    Attributes
    ----------
    probabilities : tuple of float
        The model's own, uncalibrated.
    reading : Reading
    pixels : str
        Digest of the decoded pixels.
    statistics : tuple of float
        As `client.monitoring.answer_statistics.answer_statistics`.
    cached : bool
        It was made before, for equal pixels.
    """

    probabilities: tuple[float, ...]
    reading: Reading
    pixels: str
    statistics: tuple[float, ...]
    cached: bool = False


class Asking:
    """The work of one request, with the model and the profile that it began with.

    Parameters
    ----------
    image : bytes or ndarray of uint8, (S, S, 3)
        A file as uploaded, or pixels that the caller prepared for this model.
    engine : InferenceEngine
        Who answers.
    settings : ReadingSettings
        How answers are read here.
    cache : ResultCache
        Looked into before the network is asked, and added to.
    """

    def __init__(
        self,
        image: bytes | Images,
        engine: InferenceEngine,
        settings: ReadingSettings,
        cache: ResultCache[Made],
    ) -> None:
        self._image = image
        self._prepared = not isinstance(image, bytes)
        self._engine = engine
        self._profile = engine.profile
        self._settings = settings
        self._cache = cache
        self._facts: ImageFacts | None = None

    def prepare(self) -> Images | Known[Made]:
        """Return the network's pixels, or the answer where these pixels had one.

        Raises
        ------
        ImageRefused
            As `prepare_upload`.
        """
        spec = self._engine.recipe.image
        decoded, prepared = prepare_upload(self._image, spec)
        self._image = b""  # up to the largest upload; the queue need not hold it any longer
        self._facts = facts_of(decoded, prepared)
        known = self._cache.get(self._key(self._facts))
        return prepared if known is None else Known(replace(known, cached=True))

    def finish(self, output: Outputs) -> Made:
        """Read the network's output, and keep the answer for equal pixels."""
        facts = self._facts
        assert facts is not None  # a lane prepares before it finishes
        reading = read(output, facts, self._engine, self._settings, profile=self._profile)
        network = network_statistics(output.logits, output.features)[0]
        made = Made(
            probabilities=tuple(float(p) for p in output.probabilities[0]),
            reading=reading,
            pixels=facts.digest,
            statistics=(*facts.statistics, *network.tolist()),
        )
        self._cache.keep(self._key(facts), made)
        return made

    def _key(self, facts: ImageFacts) -> ResultKey:
        engine, profile = self._engine, self._profile
        point = profile.operating_point if profile else None
        return ResultKey(
            pixels=facts.digest,
            models=(engine.digest, *engine.member_digests),
            head=engine.head_digest,
            profile=profile.digest if profile else None,
            threshold=point.threshold if point else engine.manifest.threshold,
            prepared=self._prepared,
        )


def answered(made: Made, engine: InferenceEngine, *, request_id: str) -> Answered:
    """Return an answer as the site keeps it, given now."""
    reading = made.reading
    return Answered(
        request_id=request_id,
        task=engine.manifest.task,
        pixels=made.pixels,
        model_version=engine.version,
        model_digest=engine.digest,
        head_digest=engine.head_digest,
        probabilities=made.probabilities,
        positive_probability=reading.positive_probability,
        threshold=reading.threshold,
        verdict=reading.verdict,
        uncertainty=reading.uncertainty,
        referred=reading.refer,
        warnings=tuple(warning.code for warning in reading.warnings),
        statistics=made.statistics,
        answered_at=datetime.now(UTC),
    )


def prepare_upload(image: bytes | Images, spec: ImageSpec) -> tuple[Pixels, Images]:
    """Return the decoded picture, and the network's pixels by the very path that training takes.

    Pixels that came prepared are both.

    Raises
    ------
    ImageRefused
        As `common.imaging.decode`; with code ``pixels-shape``, if what came as pixels is not of
        the model's size.
    """
    if isinstance(image, bytes):
        decoded = decode(image)
        return decoded, prepare(decoded, spec)
    if image.shape != (spec.size, spec.size, 3):
        raise ImageRefused(
            f"The pixels are not of this model's size, {spec.size} x {spec.size} x 3.",
            action="Prepare them as its recipe says, or send the image file.",
            code="pixels-shape",
        )
    return image, image
