"""What one answer means: how sure it is, whether the model knows its kind, who decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.inference.outputs import Outputs
from client.reading.calibration import calibrated, log_probabilities
from client.reading.conformal import prediction_sets
from client.reading.image_quality import (
    NOT_OF_THIS_KIND,
    ImageFacts,
    Warning,
    image_warnings,
    warnings_of,
)
from client.reading.operating_point import positive_mask, positive_probability
from client.reading.ordinary import distance
from client.reading.profile import SiteProfile
from client.reading.uncertainty import mutual_information, opinions
from common.recipe import Recipe

if TYPE_CHECKING:
    from client.inference.engine import InferenceEngine
    from client.reading.settings import ReadingSettings

__all__ = ["REFER_REASONS", "Reading", "Warning", "read"]

_Flags: TypeAlias = NDArray[np.bool_]
Verdict: TypeAlias = Literal["positive", "negative"]
ThresholdSource: TypeAlias = Literal["release", "site"]

REFER_REASONS = {
    "uncertain": "The uncertainty is above this site's limit.",
    "set-empty": "No class fits as well as the right one did for this site's confirmed cases.",
    "set-spans-verdict": "Neither a positive nor a negative class can be ruled out.",
    "set-against-negative": "The verdict is negative, but no negative class remains.",
    "set-large": "Too many classes cannot be ruled out.",
    "not-of-this-kind": "The image may be of a kind that the model does not know.",
}
"""Why an answer goes to a human, by code."""


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
        Why; codes of `REFER_REASONS`.
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


def read(
    output: Outputs,
    facts: ImageFacts,
    engine: InferenceEngine,
    settings: ReadingSettings,
    *,
    profile: SiteProfile | None,
) -> Reading:
    """Read one answer.

    Parameters
    ----------
    output : Outputs
        Of one image.
    facts : ImageFacts
        Of the same image.
    engine : InferenceEngine
        Which gave the output.
    settings : ReadingSettings
        The site's.
    profile : SiteProfile or None
        ``engine.profile`` as it was when the request began: another one may be set meanwhile.
    """
    recipe, positive = engine.recipe, positive_mask(engine.recipe)
    temperature = profile.temperature if profile else None
    point = profile.operating_point if profile else None
    threshold = point.threshold if point else engine.manifest.threshold
    score = float(positive_probability(output.probabilities, positive)[0])
    members = opinions(engine, output.features, output.members, temperature)
    uncertainty = None if members is None else float(mutual_information(members)[0])
    chosen = _prediction_set(output, profile)
    codes = _warnings(output, facts, recipe, profile, settings)
    verdict: Verdict = "positive" if score >= threshold else "negative"
    reasons = (
        *_doubts(uncertainty, profile),
        *(() if chosen is None else _set_reasons(chosen, positive, verdict, settings)),
        *(("not-of-this-kind",) if NOT_OF_THIS_KIND & set(codes) else ()),
    )
    return Reading(
        probabilities=tuple(_calibrated(output, temperature)),
        calibrated=temperature is not None,
        positive_probability=score,
        threshold=threshold,
        threshold_source="site" if point else "release",
        verdict=verdict,
        uncertainty=uncertainty,
        prediction_set=None if chosen is None else _names(chosen, recipe),
        coverage=profile.conformal.coverage if profile and profile.conformal else None,
        refer=bool(reasons),
        refer_reasons=reasons,
        warnings=warnings_of(codes),
        profile_digest=profile.digest if profile else None,
    )


def _calibrated(output: Outputs, temperature: float | None) -> list[float]:
    if temperature is None:
        return [float(p) for p in output.probabilities[0]]
    logits = log_probabilities(output.probabilities)
    return [float(p) for p in calibrated(logits, temperature)[0]]


def _prediction_set(output: Outputs, profile: SiteProfile | None) -> _Flags | None:
    if profile is None or profile.conformal is None:
        return None
    chosen: _Flags = prediction_sets(output.probabilities, profile.conformal)[0]
    return chosen


def _names(chosen: _Flags, recipe: Recipe) -> tuple[str, ...]:
    return tuple(name for name, inside in zip(recipe.classes, chosen, strict=True) if inside)


def _doubts(uncertainty: float | None, profile: SiteProfile | None) -> tuple[str, ...]:
    limit = profile.uncertainty_limit if profile else None
    if uncertainty is None or limit is None or uncertainty <= limit:
        return ()
    return ("uncertain",)


def _set_reasons(
    chosen: _Flags, positive: _Flags, verdict: Verdict, settings: ReadingSettings
) -> tuple[str, ...]:
    inside, classes = int(chosen.sum()), len(chosen)
    if inside == 0:
        return ("set-empty",)
    if 0 < int(chosen[positive].sum()) < inside:
        return ("set-spans-verdict",)
    if verdict == "negative" and chosen[positive].any():
        # The other way round is no reason: a low threshold brings it about often, and a positive
        # verdict is looked at anyway. This one would send somebody ill home.
        return ("set-against-negative",)
    return ("set-large",) if inside > (settings.largest_set or (classes + 1) // 2) else ()


def _warnings(
    output: Outputs,
    facts: ImageFacts,
    recipe: Recipe,
    profile: SiteProfile | None,
    settings: ReadingSettings,
) -> tuple[str, ...]:
    limits = profile.image_limits if profile else None
    smallest = settings.smallest_side
    codes = image_warnings(facts, recipe.image, limits, smallest_side=smallest)
    ordinary = profile.out_of_distribution if profile else None
    if ordinary is None or "image-blank" in codes:
        return codes
    unlike = bool(distance(output.features, ordinary)[0] > ordinary.limit)
    return (*codes, "out-of-distribution") if unlike else codes
