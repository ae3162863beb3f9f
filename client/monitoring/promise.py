"""What a model is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from client.inference.engine import InferenceEngine

FigureName: TypeAlias = Literal["sensitivity", "specificity", "auroc", "calibration-error"]


@dataclass(frozen=True)
class Promise:
    """What the release is held to; None where it promised nothing."""

    sensitivity: float | None = None
    specificity: float | None = None
    auroc: float | None = None
    calibration_error: float | None = None

    def of(self, name: FigureName) -> float | None:
        """Return the figure promised."""
        promised: float | None = getattr(self, name.replace("-", "_"))
        return promised


def promise_of(engine: InferenceEngine) -> Promise:
    """Return what a model is held to: its release's figures, the site's where it has its own.

    A site's own operating point takes the place of the release's: the sensitivity that the site
    wants, and the least specificity that its holdout leaves open. A head of the site's own is not
    what the release promised anything of.
    """
    metrics, profile = engine.manifest.metrics, engine.profile
    own_head = engine.head_digest is not None
    area = None if own_head else metrics.candidate.macro_auroc
    error = None if own_head else metrics.calibration_error
    point = None if profile is None else profile.operating_point
    if point is not None:
        low = None if point.specificity is None else point.specificity.low
        return Promise(point.wanted_sensitivity, low, area, error)
    operating = metrics.operating
    if operating is None or own_head:
        return Promise(auroc=area, calibration_error=error)
    return Promise(operating.sensitivity, operating.specificity, area, error)
