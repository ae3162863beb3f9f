"""What one answer means: how sure it is, whether the model knows its kind, who decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["positive", "negative"]
ThresholdSource: TypeAlias = Literal["release", "site"]


@dataclass(frozen=True)
class Warning:
    """Something about the image; ``code`` is stable, ``message`` is for people."""

    code: str
    message: str


@dataclass(frozen=True)
class Reading:
    """One answer, read with the site's profile of the model; without one, as the release has it.

    Attributes
    ----------
    probabilities : tuple of float
        Calibrated at this site where ``calibrated``, else the release's; in the recipe's order.
    calibrated : bool
    positive_probability : float
        What the verdict is made from: the positive classes' sum of the model's own, uncalibrated
        probabilities, since those are what thresholds were chosen on.
    threshold : float
    threshold_source : {"release", "site"}
        Whose.
    verdict : {"positive", "negative"}
        Positive at or above the threshold.
    uncertainty : float or None
        In [0, 1]: mutual information between answer and model, in units of log K.
    prediction_set : tuple of str or None
        Classes that cannot be ruled out; None without a conformal rule.
    coverage : float or None
        How often such sets hold the right class.
    refer : bool
        A human should decide.
    refer_reasons : tuple of str
        Why; stable codes.
    warnings : tuple of Warning
    profile_digest : str or None
        Of the profile it was read with.
    """

    probabilities: tuple[float, ...]
    calibrated: bool
    positive_probability: float
    threshold: float
    threshold_source: ThresholdSource
    verdict: Verdict
    uncertainty: float | None = None
    prediction_set: tuple[str, ...] | None = None
    coverage: float | None = None
    refer: bool = False
    refer_reasons: tuple[str, ...] = ()
    warnings: tuple[Warning, ...] = ()
    profile_digest: str | None = None
