"""Holdout evaluation as counts that can be summed over sites, small cells suppressed.

A site reports, for each class, where its cases' one-vs-rest scores fall on a fixed grid of
log-odds, and a confusion matrix. Both add up exactly over sites, so that pooled metrics need no
score and no case to travel.

Suppression, with ``m = minimum_cell`` (a count of 1 to m - 1 never leaves, nor follows from the
totals that do):

- Cases of a class with fewer than m cases are left out of the whole report, other classes'
  negatives included.
- Histograms are microaggregated (Domingo-Ferrer and Mateo-Sanz 2002, doi:10.1109/69.979982):
  runs of neighbouring bins are joined until each holds m cases, which are then taken to lie
  evenly in the run. (Putting them at its middle would flatter the AUROC.)
- Small off-diagonal cells of a confusion row are pooled into ``unresolved`` errors. When fewer
  than m, they are raised to m at the expense of correct answers: with suppression, accuracy and
  sensitivity are lower bounds.

These counts are not noised, so they lie outside the differential privacy guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.errors import InputRefused, ModelError
from common.score_histogram import ScoreHistogram, area_under_curve, bin_scores

Count = Annotated[int, Field(ge=0, le=10**9)]
Counts = NDArray[np.int64]


class SiteEvaluation(BaseModel):
    """One site's counts, or the sum over several sites. See the module for suppression.

    Attributes
    ----------
    classes : tuple of str
        In the recipe's order; everything below is in that order.
    minimum_cell : int
        No count between 0 and this one occurs. 1 means that nothing was suppressed.
    positives, negatives : tuple of ScoreHistogram
        Scores of the class among cases that are and are not of it.
    confusion : tuple of tuple of int
        Rows are true classes, columns the class with the highest probability.
    unresolved : tuple of int
        Errors of each row whose cells are too small to be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
        Field(min_length=2, max_length=1000),
    ]
    minimum_cell: Annotated[int, Field(ge=1, le=10**6)]
    positives: Annotated[tuple[ScoreHistogram, ...], Field(max_length=1000)]
    negatives: Annotated[tuple[ScoreHistogram, ...], Field(max_length=1000)]
    confusion: Annotated[
        tuple[Annotated[tuple[Count, ...], Field(max_length=1000)], ...], Field(max_length=1000)
    ]
    unresolved: Annotated[tuple[Count, ...], Field(max_length=1000)]

    @model_validator(mode="after")
    def _consistent(self) -> SiteEvaluation:
        size = len(self.classes)
        columns = (self.positives, self.negatives, self.confusion, self.unresolved)
        if any(len(column) != size for column in columns):
            raise ValueError("one entry a class is needed")
        if any(len(row) != size for row in self.confusion):
            raise ValueError("the confusion matrix is not square")
        if len(set(self.classes)) != size:
            raise ValueError("a class is named twice")
        self._check_totals()
        self._check_cells()
        return self

    def _check_totals(self) -> None:
        cases = self.cases
        for index, positive in enumerate(self.positives):
            if positive.total != sum(self.confusion[index]) + self.unresolved[index]:
                raise ValueError("a confusion row and its histogram differ in total")
            if self.negatives[index].total != cases - positive.total:
                raise ValueError("positives and negatives do not add up to the cases")

    def _check_cells(self) -> None:
        cells = [count for row in self.confusion for count in row]
        cells += self.unresolved
        for histogram in (*self.positives, *self.negatives):
            cells += histogram.counts
        if any(0 < count < self.minimum_cell for count in cells):
            raise ValueError("a count is below the minimum cell")

    @property
    def cases(self) -> int:
        """Number of cases reported."""
        return sum(histogram.total for histogram in self.positives)


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
) -> SiteEvaluation:
    """Count a site's holdout predictions.

    Parameters
    ----------
    probabilities : ndarray (N, K)
        In [0, 1]; N may be 0.
    labels : ndarray of int (N,)
        Indices into ``classes``.
    classes : sequence of str
        K names.
    minimum_cell : int
        The smallest count that may leave; 0 and 1 suppress nothing.

    Raises
    ------
    ModelError
        Code ``evaluation-not-finite``, when a probability is none.
    InputRefused
        Code ``evaluation-shape``, when shapes or labels do not fit.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    size = len(classes)
    if scores.ndim != 2 or scores.shape[1] != size or truth.shape != scores.shape[:1]:
        raise InputRefused("Predictions and labels differ in shape.", code="evaluation-shape")
    if truth.size and (truth.min() < 0 or truth.max() >= size):
        raise InputRefused("A label is outside the recipe's classes.", code="evaluation-shape")
    if not np.isfinite(scores).all() or (scores < 0).any() or (scores > 1 + 1e-6).any():
        raise ModelError(
            "The network's answers are no probabilities.",
            meaning="Training has diverged.",
            code="evaluation-not-finite",
        )
    minimum = max(1, minimum_cell)
    frequent = np.bincount(truth, minlength=size) >= minimum
    kept = frequent[truth]
    return _count(scores[kept], truth[kept], tuple(classes), minimum)


def merge(evaluations: Sequence[SiteEvaluation]) -> SiteEvaluation:
    """Sum evaluations of the same classes, exactly.

    Raises
    ------
    InputRefused
        If there is none, or the classes differ.
    """
    if not evaluations or any(e.classes != evaluations[0].classes for e in evaluations):
        raise InputRefused("There are no evaluations of the same classes.", code="evaluation-merge")
    confusion = np.sum([np.array(e.confusion, dtype=np.int64) for e in evaluations], axis=0)
    unresolved = np.sum([np.array(e.unresolved, dtype=np.int64) for e in evaluations], axis=0)
    return SiteEvaluation(
        classes=evaluations[0].classes,
        minimum_cell=min(e.minimum_cell for e in evaluations),
        positives=_sum([e.positives for e in evaluations]),
        negatives=_sum([e.negatives for e in evaluations]),
        confusion=_rows(confusion),
        unresolved=tuple(unresolved.tolist()),
    )


def metrics(evaluation: SiteEvaluation) -> Metrics:
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


def _count(
    scores: NDArray[np.float64], truth: Counts, classes: tuple[str, ...], minimum: int
) -> SiteEvaluation:
    size = len(classes)
    confusion = np.zeros((size, size), dtype=np.int64)
    np.add.at(confusion, (truth, scores.argmax(axis=1)), 1)
    suppressed = [_suppress_row(row, index, minimum) for index, row in enumerate(confusion)]
    bins = bin_scores(scores)
    return SiteEvaluation(
        classes=classes,
        minimum_cell=minimum,
        positives=tuple(ScoreHistogram.count(bins[truth == k, k], minimum) for k in range(size)),
        negatives=tuple(ScoreHistogram.count(bins[truth != k, k], minimum) for k in range(size)),
        confusion=tuple(tuple(row.tolist()) for row, _ in suppressed),
        unresolved=tuple(rest for _, rest in suppressed),
    )


def _suppress_row(row: Counts, truth: int, minimum: int) -> tuple[Counts, int]:
    """Return the row without small cells, and its pooled errors; their sum is the row's."""
    result = row.copy()
    small = (row > 0) & (row < minimum)
    result[small] = 0
    rest = int(row[small].sum())
    while 0 < rest < minimum:
        # Too few even together: take from the correct answers, else from the largest cell.
        donor = truth if result[truth] > 0 else int(result.argmax())
        taken = minimum - rest
        if result[donor] - taken < minimum:
            taken = int(result[donor])
        result[donor] -= taken
        rest += taken
    return result, rest


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _rows(matrix: Counts) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def _sum(columns: Sequence[tuple[ScoreHistogram, ...]]) -> tuple[ScoreHistogram, ...]:
    return tuple(ScoreHistogram.merge(column) for column in zip(*columns, strict=True))
