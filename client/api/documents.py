"""The JSON documents of the inference service. Field names are part of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from client.api.profile_documents import ProfileDocument
from client.cases.store import Case, CaseCounts
from client.inference.engine import InferenceEngine
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
