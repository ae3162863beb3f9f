"""Figures out of score histograms: precision-recall, calibration, and rates at a threshold.

All follow from where cases lie on the grid of `common.score_histogram`; cases of a joined range
are taken to lie evenly in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.evaluation_counts import CalibrationCounts, DecisionCounts
from common.score_histogram import BINS, LOG_ODDS_LIMIT, ScoreHistogram

CALIBRATION_BINS = 15
"""Of equal width over [0, 1], as in Guo et al. 2017 (arXiv:1706.04599)."""


@dataclass(frozen=True)
class CalibrationBin:
    """Answers of like confidence: their mean confidence, the share that is right, how many."""

    confidence: float
    accuracy: float
    cases: float


@dataclass(frozen=True)
class Rates:
    """What calling scores from ``threshold`` on positive would do; None where undefined."""

    threshold: float
    sensitivity: float | None
    specificity: float | None


def bin_probability(index: float | NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probability at a place on the grid, in bins from its lower end."""
    log_odds = np.asarray(index) * (2 * LOG_ODDS_LIMIT / BINS) - LOG_ODDS_LIMIT
    return np.asarray(1 / (1 + np.exp(-log_odds)), dtype=np.float64)


def average_precision(positive: ScoreHistogram, negative: ScoreHistogram) -> float | None:
    """Return the average precision, sum of precision times the gain in recall; None if undefined.

    As scikit-learn's ``average_precision_score``: steps, no interpolation (Davis and Goadrich
    2006, doi:10.1145/1143844.1143874). Within a bin the cases are taken to come evenly.
    """
    if not positive.total or not negative.total:
        return None
    right, wrong = positive.density()[::-1], negative.density()[::-1]
    true, called = np.cumsum(right), np.cumsum(right + wrong)
    some = right > 0
    return min(1.0, float((right[some] * true[some] / called[some]).sum() / positive.total))


def calibration_bins(counts: CalibrationCounts) -> tuple[CalibrationBin, ...]:
    """Return the points of the reliability diagram, bins without a case left out."""
    right = counts.right.density()
    cases = right + counts.wrong.density()
    said = bin_probability(np.arange(BINS) + 0.5)
    index = np.clip(np.ceil(said * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    held = np.bincount(index, cases, CALIBRATION_BINS)
    summed = np.bincount(index, cases * said, CALIBRATION_BINS)
    hits = np.bincount(index, right, CALIBRATION_BINS)
    return tuple(
        CalibrationBin(float(summed[b] / n), min(1.0, float(hits[b] / n)), float(n))
        for b, n in enumerate(held)
        if n > 1e-9
    )


def calibration_error(bins: tuple[CalibrationBin, ...]) -> float | None:
    """Return the expected calibration error of the top class; None without a case.

    The mean distance of confidence and accuracy over the bins, weighted by cases (Naeini et al.
    2015, AAAI, p. 2901; Guo et al. 2017, equation 3).
    """
    cases = sum(b.cases for b in bins)
    if not cases:
        return None
    return sum(b.cases * abs(b.confidence - b.accuracy) for b in bins) / cases


def rates_at(counts: DecisionCounts, threshold: float) -> Rates:
    """Return sensitivity and specificity of calling scores from ``threshold`` on positive."""
    place = _place(threshold)
    caught, alarms = _from(counts.positives, place), _from(counts.negatives, place)
    positives, negatives = counts.positives.total, counts.negatives.total
    return Rates(
        threshold=threshold,
        sensitivity=caught / positives if positives else None,
        specificity=1 - alarms / negatives if negatives else None,
    )


def threshold_for(counts: DecisionCounts, sensitivity: float) -> float | None:
    """Return the highest threshold that reaches a sensitivity; None without a positive case.

    It is the lower edge of a bin of the grid, at most 0.0001 away from the exact one in
    probability where nothing is suppressed.
    """
    if not counts.positives.total:
        return None
    above = np.cumsum(counts.positives.density()[::-1])[::-1]
    enough = np.flatnonzero(above >= sensitivity * counts.positives.total - 1e-6)
    place = int(enough[-1]) if len(enough) else 0
    # The lowest bin holds all below the grid, too.
    return 0.0 if place == 0 else float(bin_probability(float(place)))


def _place(threshold: float) -> float:
    if threshold <= 0:
        return 0.0
    if threshold >= 1:
        return float(BINS)
    log_odds = np.clip(np.log(threshold / (1 - threshold)), -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    # A threshold that is a bin's edge, rounded, is that edge.
    place = float((log_odds + LOG_ODDS_LIMIT) * (BINS / (2 * LOG_ODDS_LIMIT)))
    return float(round(place)) if abs(place - round(place)) < 1e-6 else place


def _from(histogram: ScoreHistogram, place: float) -> float:
    """Return how many cases lie at or above a place on the grid."""
    if not histogram.counts:
        return 0.0
    starts = np.array(histogram.starts, dtype=np.float64)
    widths = np.array(histogram.widths, dtype=np.float64)
    share = np.clip((starts + widths - place) / widths, 0.0, 1.0)
    return float((share * np.array(histogram.counts, dtype=np.float64)).sum())
