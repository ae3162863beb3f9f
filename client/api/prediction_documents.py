"""The JSON document of an answer. Field names are part of the API."""

from __future__ import annotations

from typing import Literal

from client.api.documents import Document
from client.inference.prediction import Prediction


class WarningDocument(Document):
    """Something about the image; ``code`` is stable."""

    code: str
    message: str


class PredictionDocument(Document):
    """An answer of ``POST /predict``; ``docs/inference-service.md`` says what each field means.

    ``probabilities`` are the model's own and sum to 1; ``verdict`` is positive where
    ``positive_probability``, their sum over ``positive_classes``, is at or above ``threshold``.
    ``milliseconds`` is the time from the last byte of the upload to the answer. ``head_digest`` is
    of the site's own head, None where the plain release answered; ``together_with`` are the
    versions of older releases whose mean with this one answered.

    What the site's confirmed holdout taught is in the rest: ``calibrated_probabilities`` (None
    where they could not be calibrated), whose the threshold is, ``uncertainty`` from 0 to 1, the
    classes that cannot be ruled out (``prediction_set``, right in a share ``coverage`` of cases),
    whether a human should decide (``refer``) and why, and warnings about the image.
    ``profile_digest`` is of the site's profile, None without one. ``cached``: the same pixels had
    the same answer before, and the network was not asked again.
    """

    request_id: str
    task: str
    model_version: int
    model_digest: str
    probabilities: dict[str, float]
    positive_classes: tuple[str, ...]
    positive_probability: float
    threshold: float
    verdict: Literal["positive", "negative"]
    milliseconds: float
    head_digest: str | None = None
    together_with: tuple[int, ...] = ()
    calibrated: bool = False
    calibrated_probabilities: dict[str, float] | None = None
    threshold_source: Literal["release", "site"] = "release"
    uncertainty: float | None = None
    prediction_set: tuple[str, ...] | None = None
    coverage: float | None = None
    refer: bool = False
    refer_reasons: tuple[str, ...] = ()
    warnings: tuple[WarningDocument, ...] = ()
    profile_digest: str | None = None
    cached: bool = False

    @classmethod
    def of(cls, prediction: Prediction, *, request_id: str) -> PredictionDocument:
        """Write a prediction down."""
        manifest, reading = prediction.manifest, prediction.reading
        calibrated = dict(zip(manifest.classes, reading.probabilities, strict=True))
        return cls(
            request_id=request_id,
            task=manifest.task,
            model_version=manifest.version,
            model_digest=manifest.model_digest,
            probabilities=dict(zip(manifest.classes, prediction.probabilities, strict=True)),
            positive_classes=manifest.recipe.decision.positive_classes,
            positive_probability=reading.positive_probability,
            threshold=reading.threshold,
            verdict=reading.verdict,
            milliseconds=round(prediction.seconds * 1000, 3),
            head_digest=prediction.head_digest,
            together_with=prediction.together_with,
            calibrated=reading.calibrated,
            calibrated_probabilities=calibrated if reading.calibrated else None,
            threshold_source=reading.threshold_source,
            uncertainty=reading.uncertainty,
            prediction_set=reading.prediction_set,
            coverage=reading.coverage,
            refer=reading.refer,
            refer_reasons=reading.refer_reasons,
            warnings=tuple(
                WarningDocument(code=found.code, message=found.message)
                for found in reading.warnings
            ),
            profile_digest=reading.profile_digest,
            cached=prediction.cached,
        )
