"""The service's answer, as reports and FHIR documents use it."""

from __future__ import annotations

from typing import Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field


class Note(BaseModel):
    """A warning about the image; ``code`` is stable."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: str


class Answer(BaseModel):
    """What a report says: the fields of the service's answer to ``POST /predict``."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    request_id: str
    task: str
    model_version: int
    model_digest: str
    probabilities: dict[str, float]
    positive_classes: tuple[str, ...]
    positive_probability: float
    threshold: float
    verdict: Literal["positive", "negative"]
    threshold_source: Literal["release", "site"] = "release"
    uncertainty: float | None = None
    refer: bool = False
    refer_reasons: tuple[str, ...] = ()
    warnings: tuple[Note, ...] = ()

    @property
    def advice(self) -> str:
        """What a reader is told beside the verdict; empty where there is nothing to tell."""
        referred = ", ".join(self.refer_reasons)
        noted = ", ".join(note.code for note in self.warnings)
        parts = (
            f"A person should decide: {referred}." if self.refer else "",
            f"Warnings about the image: {noted}." if noted else "",
        )
        return " ".join(part for part in parts if part)


class ExplainedAnswer(BaseModel):
    """What a heat map is filed with: the fields of the service's answer to ``POST /explain``."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    request_id: str
    task: str
    method: str
    class_name: str = Field(alias="class")
    probability: float
    model_version: int
    model_digest: str
    regions: str
    overlay_png: Base64Bytes = Field(repr=False)
