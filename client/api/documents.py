"""The JSON documents of the inference service. Field names are part of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from client.api.profile_documents import ProfileDocument
from client.cases.store import Case, CaseCounts
from client.inference.engine import InferenceEngine
from client.inference.prediction import Prediction
from client.releases.watcher import Alarm


class Document(BaseModel):
    """A base for frozen documents that refuse unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Problem(Document):
    """An error, ``application/problem+json`` (RFC 9457, with Wardround's own members)."""

    status: int
    code: str
    what: str
    meaning: str = ""
    action: str = ""
    request_id: str


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


class CaseForm(Document):
    """The text fields beside the image in ``POST /cases``; an empty one counts as absent."""

    patient_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    label: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    age: Annotated[float, Field(ge=0, le=130)] | None = None
    sex: Annotated[str, Field(max_length=16)] | None = None


class LabelConfirmation(Document):
    """The body of ``POST /cases/{id}/confirm``."""

    label: Annotated[str, Field(min_length=1, max_length=64)]


class CaseDocument(Document):
    """A stored case, without anything that names a patient.

    ``flags`` is what a reviewer should look at; of a DICOM file ``burned-in-unknown`` where its
    header does not rule out burned-in text.
    """

    request_id: str
    case_id: str
    task: str
    status: str
    label: str | None
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, case: Case, *, request_id: str, flags: tuple[str, ...] = ()) -> CaseDocument:
        """Write a case down."""
        return cls(
            request_id=request_id,
            case_id=case.id,
            task=case.task,
            status=case.status,
            label=case.label,
            flags=flags,
        )


class CountsDocument(Document):
    """How many cases of the site's task are stored. For inside the site only."""

    task: str
    counts: CaseCounts


class ModelDocument(Document):
    """The model that answers now; ``personalised`` with the site's own head on the release.

    ``macro_auroc`` and ``threshold`` are the release's, over all sites; ``profile`` is what this
    site's own holdout taught, None until it was fitted. ``together_with`` are the versions of
    older releases that answer together with it.
    """

    task: str
    title: str
    version: int
    digest: str
    architecture: str
    image_size: int
    classes: tuple[str, ...]
    positive_classes: tuple[str, ...]
    threshold: float
    campaign: str
    macro_auroc: float | None
    created_at: datetime
    personalised: bool = False
    head_digest: str | None = None
    together_with: tuple[int, ...] = ()
    profile: ProfileDocument | None = None

    @classmethod
    def of(cls, engine: InferenceEngine) -> ModelDocument:
        """Write an engine's release down, in short."""
        manifest, profile, head_digest = engine.manifest, engine.profile, engine.head_digest
        recipe = manifest.recipe
        return cls(
            task=manifest.task,
            title=recipe.title,
            version=manifest.version,
            digest=manifest.model_digest,
            architecture=recipe.model.architecture,
            image_size=recipe.image.size,
            classes=manifest.classes,
            positive_classes=recipe.decision.positive_classes,
            threshold=manifest.threshold,
            campaign=manifest.lineage.campaign,
            macro_auroc=manifest.metrics.candidate.macro_auroc,
            created_at=manifest.created_at,
            personalised=head_digest is not None,
            head_digest=head_digest,
            together_with=tuple(member.version for member in engine.members),
            profile=None if profile is None else ProfileDocument.of(profile),
        )


class AlarmDocument(Document):
    """Something that hospital IT should look at."""

    code: str
    message: str
    since: datetime

    @classmethod
    def of(cls, alarm: Alarm) -> AlarmDocument:
        """Write an alarm down."""
        return cls(code=alarm.code, message=alarm.message, since=alarm.since)


class LiveDocument(Document):
    """The process answers."""

    status: Literal["live"] = "live"


class ReadyDocument(Document):
    """Whether the site can answer, with which model, computed by what, and what is wrong."""

    status: Literal["ready", "no-model", "model-stale"]
    task: str
    model_version: int | None
    model_digest: str | None
    personalised: bool = False
    runtime: Literal["torch", "onnxruntime"] | None
    release_verified_at: datetime | None
    alarms: tuple[AlarmDocument, ...]
