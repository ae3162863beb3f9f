"""The service's answer, as reports and FHIR documents use it."""

from __future__ import annotations

from typing import Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field


class Note(BaseModel):
    """A warning about the image; ``code`` is stable."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: str


class AnsweredBy(BaseModel):
    """Who answered: the release, the site's own head on it, and older releases beside it."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    request_id: str
    task: str
    model_version: int
    model_digest: str
    head_digest: str | None = None
    together_with: tuple[int, ...] = ()

    @property
    def company(self) -> str:
        """What beyond the release made the numbers, in words; empty where nothing did."""
        others = ", ".join(str(version) for version in self.together_with)
        parts = (
            "with the site's own head" if self.head_digest else "",
            f"with versions {others}" if others else "",
        )
        return " and ".join(part for part in parts if part)

    @property
    def software(self) -> str:
        """The version, with the beginning of the head's digest and the others' versions."""
        head = f" head {self.head_digest[:12]}" if self.head_digest else ""
        others = " ".join(str(version) for version in self.together_with)
        return f"{self.model_version}{head}{f' with {others}' if others else ''}"

    def _made_by(self) -> tuple[str, ...]:
        others = " ".join(str(version) for version in self.together_with)
        return (str(self.model_version), self.model_digest, self.head_digest or "", others)


class Answer(AnsweredBy):
    """What a report says: the fields of the service's answer to ``POST /predict``."""

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
    calibrated_probabilities: dict[str, float] | None = None
    profile_digest: str | None = None

    @property
    def shown(self) -> dict[str, float]:
        """The probabilities that a reader is told: calibrated at the site where there are such."""
        return self.calibrated_probabilities or self.probabilities

    @property
    def source(self) -> tuple[str, ...]:
        """What the answer follows from, beside the image: of equal ones a PACS keeps one report.

        The numbers themselves are left out: their last digits may differ with the batch.
        """
        return (
            *self._made_by(),
            f"{self.threshold!r} {self.threshold_source} {self.verdict}",
            self.profile_digest or "",
            " ".join(self.refer_reasons),
            " ".join(note.code for note in self.warnings),
        )

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


class ExplainedAnswer(AnsweredBy):
    """What a heat map is filed with: the fields of the service's answer to ``POST /explain``."""

    method: str
    class_name: str = Field(alias="class")
    probability: float
    regions: str
    overlay_png: Base64Bytes = Field(repr=False)

    @property
    def source(self) -> tuple[str, ...]:
        """What the heat map follows from, beside the image; as `Answer.source`."""
        return (*self._made_by(), self.method, self.class_name)
