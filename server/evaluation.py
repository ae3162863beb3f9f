"""Evaluations of many sites as one: sums, metrics, and how sure an AUROC is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from common.evaluation import Metrics, SiteEvaluation, evaluate_predictions, merge, metrics

BySite = Mapping[str, SiteEvaluation]
NORMAL_95 = 1.6449
"""One-sided 95 % point of the normal distribution."""


def merged(evaluations: BySite) -> SiteEvaluation | None:
    """Return the sum over sites; None when no site reported a case."""
    told = [evaluation for evaluation in evaluations.values() if evaluation.cases]
    return merge(told) if told else None


def pooled_metrics(evaluations: BySite, classes: tuple[str, ...]) -> Metrics:
    """Return the metrics of the sum; all None and a count of 0 when there is none."""
    total = merged(evaluations)
    if total is None:
        nobody = np.zeros((0, len(classes)))
        total = evaluate_predictions(nobody, np.zeros(0, dtype=np.int64), classes, minimum_cell=1)
    return metrics(total)


def on_common_sites(first: BySite, second: BySite) -> tuple[BySite, BySite]:
    """Restrict two evaluations to the sites that reported cases in both.

    Only then do they speak of the same holdout patients.
    """
    common = {
        site for site in first.keys() & second.keys() if first[site].cases and second[site].cases
    }
    return {s: first[s] for s in sorted(common)}, {s: second[s] for s in sorted(common)}


def macro_auroc_lower_bound(evaluation: SiteEvaluation) -> float | None:
    """Return the one-sided 95 % lower confidence bound of the macro AUROC.

    Each class's standard error is that of Hanley and McNeil 1982
    (doi:10.1148/radiology.143.1.7063747). The classes share their cases, so their AUROCs depend
    on each other in a way that the counts do not tell: the mean of the standard errors is the
    largest that the standard error of the mean can be.
    """
    found = metrics(evaluation)
    if found.macro_auroc is None:
        return None
    errors = [
        _standard_error(area, positive.total, negative.total)
        for area, positive, negative in zip(
            found.auroc, evaluation.positives, evaluation.negatives, strict=True
        )
        if area is not None
    ]
    return found.macro_auroc - NORMAL_95 * sum(errors) / len(errors)


def balanced_accuracy_upper_bound(evaluation: SiteEvaluation) -> float | None:
    """Return the most that the balanced accuracy can be, whatever suppressed cells hide.

    ``unresolved`` answers may be right: with few holdout patients a site most are unresolved,
    and a lower bound would refuse every model. None without a case.
    """
    found = [
        (row[index] + unresolved) / positive.total
        for index, (row, unresolved, positive) in enumerate(
            zip(evaluation.confusion, evaluation.unresolved, evaluation.positives, strict=True)
        )
        if positive.total
    ]
    return sum(found) / len(found) if found else None


def _standard_error(area: float, positives: int, negatives: int) -> float:
    # A perfect ranking of very few cases is no certainty: half a pair is taken as wrong.
    area = min(area, 1 - 0.5 / (positives * negatives))
    first = area / (2 - area)
    second = 2 * area**2 / (1 + area)
    spread = (
        area * (1 - area)
        + (positives - 1) * (first - area**2)
        + (negatives - 1) * (second - area**2)
    )
    return math.sqrt(max(spread, 0.0) / (positives * negatives))
