"""A site with one image on its way to a report, and what answers it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

import numpy as np
from pydicom import Dataset, dcmread

from client.cases.store import CaseStore
from client.dicom.answer import Answer, ExplainedAnswer
from client.dicom.delivery import Archive, Delivery
from client.dicom.outbox import ReportOutbox
from client.explanation.drawing import png
from client.settings import SiteSettings
from common.errors import ProcessError

PICTURE = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
MODEL = {"request_id": "r", "task": "dermoscopy", "model_version": 3, "model_digest": "a" * 64}
ANSWER = Answer.model_validate(
    MODEL
    | {
        "probabilities": {"mel": 0.8, "nv": 0.2},
        "positive_classes": ["mel"],
        "positive_probability": 0.8,
        "threshold": 0.3,
        "verdict": "positive",
    }
)
EXPLAINED = ExplainedAnswer.model_validate(
    MODEL
    | {
        "method": "grad-cam",
        "class": "mel",
        "probability": 0.8,
        "regions": "What speaks for mel lies: centre 90%.",
        "overlay_png": base64.b64encode(png(PICTURE)),
    }
)


@dataclass
class Asked:
    """Answers what it is told to, in turn; the last for ever."""

    answers: list[object]
    calls: int = 0

    def __call__(self, _image: bytes) -> object:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Pacs:
    kept: list[Dataset] = field(default_factory=list)
    away: set[int] = field(default_factory=set)
    calls: int = 0

    def __call__(self, report: bytes) -> None:
        self.calls += 1
        if self.calls in self.away:
            raise ProcessError("", code="dicom-pacs-away")
        self.kept.append(dcmread(io.BytesIO(report)))


@dataclass(frozen=True)
class Site:
    settings: SiteSettings
    store: CaseStore
    outbox: ReportOutbox
    case_id: str

    def delivery(
        self, explain: Asked | None, pacs: Archive, predict: Asked | None = None
    ) -> Delivery:
        made = Delivery(
            self.outbox,
            self.store,
            predict or Asked([ANSWER]),  # type: ignore[arg-type]
            pacs,
            explain=explain,  # type: ignore[arg-type]
            site="st-elsewhere",
            keep_days=14,
        )
        made._waits = _Never()  # nothing waits in a test
        return made


class _Never(dict[str, tuple[float, float]]):
    def __setitem__(self, _key: str, _value: tuple[float, float]) -> None:
        pass


def kinds(pacs: Pacs) -> list[str]:
    return [kept.Modality for kept in pacs.kept]
