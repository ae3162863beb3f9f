"""Holdout evaluation as counts that can be summed over sites, small cells suppressed.

A site reports, for each class, where its cases' one-vs-rest scores fall on a fixed grid of
log-odds, and a confusion matrix. Where its policy lists them, also: where the summed probability
of the positive classes falls (for the operating threshold), where the highest probability falls
for right and for wrong answers (for calibration), and the score histograms of age bands and sexes.
All of it adds up exactly over sites, so that pooled metrics need no score and no case to travel.

Suppression, with ``m = minimum_cell`` (a count of 1 to m - 1 never leaves, nor follows from the
totals that do):

- Cases of a class with fewer than m cases are left out of the whole report, other classes'
  negatives included.
- Histograms are microaggregated (Domingo-Ferrer and Mateo-Sanz 2002, doi:10.1109/69.979982):
  runs of neighbouring bins are joined until each holds m cases. What is told of a run is its
  number of cases, and the mean and standard deviation of their scores (as the range over which
  evenly spread cases have these; all at the mean would flatter the AUROC). No case's own score
  is told, but where all cases of a run share it.
- Small off-diagonal cells of a confusion row are pooled into ``unresolved`` errors. When fewer
  than m, they are raised to m at the expense of correct answers: with suppression, accuracy and
  sensitivity are lower bounds. Calibration counts tell those as wrong, too (the ones of lowest
  confidence).
- Histograms that tell the same cases by the same score, or by its mirror image (of two classes,
  what is not one is the other), are made of the same runs: joined twice in two ways, the sums of
  both would differ by the scores of fewer than m cases (`common.evaluation_counting`).
- A class is left out of a subgroup that holds fewer than m cases of it, and of further subgroups
  until those outside all that are told are none or m. Subgroups tell no right and wrong answers
  (all are ``unresolved``), which could be held against the whole's; their histograms have at most
  `common.evaluation_counting.SUBGROUP_RANGES` ranges, or are the whole's where they hold all of
  its cases.

A case whose answer is no number counts as one that answers all classes alike (1/K): a refusal
would tell that such a case is there, and one image could stop a site.

All of this guards against who reads a report, not against who makes the model that is scored: a
model may be made to answer one picture alone unlike all others, and so to say by a count whether a
site holds it. Exact counts cannot prevent that.

These counts are not noised, so they lie outside the differential privacy guarantee. A case is
what the caller says it is: `client.training.evaluation` gives one for each patient and label.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from common.errors import InputRefused, ModelError
from common.evaluation_counting import CaseCounting, CaseGroups, Scores
from common.evaluation_counts import Counts, SiteEvaluation, Statistic, Subgroup, merge
from common.evaluation_suppression import IntArray
from common.score_histogram import area_under_curve

__all__ = [
    "CaseGroups",
    "Counts",
    "Metrics",
    "SiteEvaluation",
    "evaluate_predictions",
    "finite_rows",
    "merge",
    "metrics",
]

logger = logging.getLogger(__name__)


class Metrics(BaseModel):
    """What a (merged) evaluation says; None where it is undefined for want of cases.

    ``macro_auroc`` is the mean of the defined one-vs-rest AUROCs, ``balanced_accuracy`` of the
    defined sensitivities. ``majority_baseline`` is the accuracy of always answering the most
    frequent class. Accuracy and sensitivities are lower bounds where cells were suppressed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...]
    count: int
    macro_auroc: float | None
    auroc: tuple[float | None, ...]
    accuracy: float | None
    balanced_accuracy: float | None
    majority_baseline: float | None
    sensitivity: tuple[float | None, ...]


def evaluate_predictions(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: Sequence[str],
    *,
    minimum_cell: int,
    positive_classes: Collection[str] = (),
    statistics: Collection[Statistic] = (),
    groups: CaseGroups | None = None,
) -> SiteEvaluation:
    """Count a site's holdout predictions.

    Parameters
    ----------
    probabilities : ndarray (N, K)
        In [0, 1]; a row that is not finite counts as 1/K throughout. N may be 0.
    labels : ndarray of int (N,)
        Indices into ``classes``.
    classes : sequence of str
        K names.
    minimum_cell : int
        The smallest count that may leave; 0 and 1 suppress nothing.
    positive_classes : collection of str
        Those whose summed probability is the decision's score.
    statistics : collection of str
        What is counted beside the classes; nothing by default.
    groups : CaseGroups, optional
        Needed for ``subgroups``.

    Raises
    ------
    ModelError
        Code ``evaluation-not-finite``, when a finite number is no probability.
    InputRefused
        Code ``evaluation-shape``, when shapes or labels do not fit.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    _check_shapes(scores, truth, len(classes))
    scores = finite_rows(scores)
    _check_probabilities(scores)
    minimum = max(1, minimum_cell)
    kept = told_cases(truth, len(classes), minimum)
    counting = CaseCounting(tuple(classes), frozenset(positive_classes), frozenset(statistics))
    whole = counting.count(scores[kept], truth[kept], minimum)
    subgroups: tuple[Subgroup, ...] = ()
    if groups is not None and "subgroups" in statistics:
        inside = CaseGroups(age=groups.age[kept], sex=groups.sex[kept])
        subgroups = counting.count_subgroups(scores[kept], truth[kept], inside, whole)
    return SiteEvaluation(**dict(whole), subgroups=subgroups)


def told_cases(labels: NDArray[np.integer], size: int, minimum_cell: int) -> NDArray[np.bool_]:
    """Tell of each case whether its class has enough cases for anything of them to be told.

    Parameters
    ----------
    labels : ndarray of int (N,)
        Indices of classes, below ``size``.
    size : int
        The number of classes.
    minimum_cell : int
        The smallest count that may leave.
    """
    found: NDArray[np.bool_] = (np.bincount(labels, minlength=size) >= max(1, minimum_cell))[labels]
    return found


def finite_rows(probabilities: Scores) -> Scores:
    """Return probabilities (N, K) with 1/K throughout each row that is not finite."""
    lost = ~np.isfinite(probabilities).all(axis=1)
    if not lost.any():
        return probabilities
    logger.warning("predictions-not-finite")  # not how many: a log is no place for small counts
    found = probabilities.copy()
    found[lost] = 1 / probabilities.shape[1]
    return found


def _check_shapes(scores: Scores, truth: IntArray, size: int) -> None:
    if scores.ndim != 2 or scores.shape[1] != size or truth.shape != scores.shape[:1]:
        raise InputRefused("Predictions and labels differ in shape.", code="evaluation-shape")
    if truth.size and (truth.min() < 0 or truth.max() >= size):
        raise InputRefused("A label is outside the recipe's classes.", code="evaluation-shape")


def _check_probabilities(scores: Scores) -> None:
    if (scores < 0).any() or (scores > 1 + 1e-6).any():
        raise ModelError(
            "The network's answers are no probabilities.",
            code="evaluation-not-finite",
        )


def metrics(evaluation: Counts) -> Metrics:
    """Compute the metrics of an evaluation.

    The AUROC is the Mann-Whitney statistic over bins, ties counting one half.
    """
    totals = [histogram.total for histogram in evaluation.positives]
    correct = [row[index] for index, row in enumerate(evaluation.confusion)]
    auroc = tuple(
        area_under_curve(positive, negative)
        for positive, negative in zip(evaluation.positives, evaluation.negatives, strict=True)
    )
    sensitivity = tuple(c / n if n else None for c, n in zip(correct, totals, strict=True))
    cases = sum(totals)
    return Metrics(
        classes=evaluation.classes,
        count=cases,
        macro_auroc=_mean(auroc),
        auroc=auroc,
        accuracy=sum(correct) / cases if cases else None,
        balanced_accuracy=_mean(sensitivity),
        majority_baseline=max(totals) / cases if cases else None,
        sensitivity=sensitivity,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
