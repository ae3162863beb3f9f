"""Checks on one site's holdout counts, before they may enter a sum.

That each document agrees with itself is seen to as it is read (`common.evaluation_counts`). Here
it is held against the recipe, and against what one hospital can have: a sum of honest counts and
one invented report would be no evidence.
"""

from __future__ import annotations

from common.errors import UpdateRefused
from common.evaluation_counts import Counts, SiteEvaluation
from common.recipe import Recipe

MAXIMUM_CASES = 1_000_000
"""Of one site's holdout: more is a mistake, or a lie that is easily seen.

It does not bound what one site decides. Invented cases that are fewer than this, but more than all
others have, still choose the operating threshold; what that does to the other sites is the business
of `server.gate.site_sensitivity`.
"""

MAXIMUM_RANGES = 200_000
"""Of all of a report's histograms together; 14 histograms of 10,000 cases need 140,000."""

MAXIMUM_HISTOGRAM_RANGES = 100_000
"""Of one histogram of a report; a sum over sites may have more."""


def check_evaluation(evaluation: SiteEvaluation, recipe: Recipe) -> None:
    """Refuse a report that no honest site makes.

    Raises
    ------
    UpdateRefused
        With code ``reply-evaluation``.
    """
    _hold(evaluation.classes == recipe.classes, "has other classes")
    _hold(evaluation.cases <= MAXIMUM_CASES, "has more cases than a hospital")
    parts = [part.counts for part in evaluation.subgroups]
    ranges = [length for part in (evaluation, *parts) for length in _ranges(part)]
    _hold(sum(ranges) <= MAXIMUM_RANGES, "is too large")
    _hold(max(ranges) <= MAXIMUM_HISTOGRAM_RANGES, "has a histogram that is too large")
    calibration = evaluation.calibration
    if calibration is not None:
        # Of a sum the calibration may cover some sites; of one site it is all or nothing.
        told = (calibration.right.total, calibration.cases)
        _hold(told == (evaluation.correct, evaluation.cases), "contradicts its confusion matrix")
    for part in (evaluation, *parts):
        _hold(_decision_fits(part, recipe), "contradicts its positive cases")
    _hold(all(part.calibration is None for part in parts), "calibrates a subgroup")


def _decision_fits(counts: Counts, recipe: Recipe) -> bool:
    if counts.decision is None:
        return True
    positive = recipe.decision.positive_classes
    held = zip(counts.classes, counts.totals(), strict=True)
    positives = sum(cases for name, cases in held if name in positive)
    told = (counts.decision.positives.total, counts.decision.negatives.total)
    return told == (positives, counts.cases - positives)


def _ranges(counts: Counts) -> list[int]:
    histograms = [*counts.positives, *counts.negatives]
    if counts.decision is not None:
        histograms += [counts.decision.positives, counts.decision.negatives]
    if counts.calibration is not None:
        histograms += [counts.calibration.right, counts.calibration.wrong]
    return [len(histogram.counts) for histogram in histograms]


def _hold(kept: bool, what: str) -> None:
    if not kept:
        raise UpdateRefused(f"An evaluation {what}.", code="reply-evaluation")
