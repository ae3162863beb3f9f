"""ROC, precision-recall and reliability curves out of score histograms, thinned for drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.evaluation_figures import CALIBRATION_BINS
from common.score_histogram import BINS, LOG_ODDS_LIMIT, ScoreHistogram

Points: TypeAlias = tuple[tuple[float, float], ...]
DRAWN = 120
"""Points of a drawn curve; a step of 1/60 of the unit square's two sides is finer than a line."""
NOBODY = 1e-9
"""Cases that are fewer are none: sums of shares of a range end near 0, not on it."""


@dataclass(frozen=True)
class Reliability:
    """One class's calibration: points (mean probability, observed share), and the ECE.

    The expected calibration error is the mean distance of the two over bins of equal width,
    weighted by cases (Naeini et al. 2015, AAAI, p. 2901).
    """

    points: Points
    error: float


def roc_curve(positive: ScoreHistogram, negative: ScoreHistogram) -> Points:
    """Return (1 - specificity, sensitivity) from (0, 0) to (1, 1); empty if a side is empty."""
    if not positive.total or not negative.total:
        return ()
    true, false = _from_above(positive), _from_above(negative)
    return _thinned(false / negative.total, true / positive.total)


def precision_recall_curve(positive: ScoreHistogram, negative: ScoreHistogram) -> Points:
    """Return (recall, precision), the highest scores first; empty if a side is empty."""
    if not positive.total or not negative.total:
        return ()
    true, false = _from_above(positive), _from_above(negative)
    called = true + false
    some = called > NOBODY
    return _thinned(true[some] / positive.total, true[some] / called[some])


def reliability(positive: ScoreHistogram, negative: ScoreHistogram) -> Reliability | None:
    """Return a class's calibration; None without a case."""
    if not positive.total + negative.total:
        return None
    right, cases = positive.density(), positive.density() + negative.density()
    probability = _probabilities()
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    held = np.bincount(bins, cases, CALIBRATION_BINS)
    some = held > NOBODY
    said = np.bincount(bins, cases * probability, CALIBRATION_BINS)[some] / held[some]
    seen = np.bincount(bins, right, CALIBRATION_BINS)[some] / held[some]
    error = float((held[some] * np.abs(said - seen)).sum() / held.sum())
    return Reliability(tuple(zip(said.tolist(), seen.tolist(), strict=True)), error)


def _from_above(histogram: ScoreHistogram) -> NDArray[np.float64]:
    """Return the cases at or above each bin, from the highest bin down, after a 0."""
    cumulative = np.cumsum(histogram.density()[::-1])
    return np.concatenate([[0.0], np.minimum(cumulative, histogram.total)])


def _probabilities() -> NDArray[np.float64]:
    """Return the probability at the middle of each bin, float64 (BINS,)."""
    log_odds = (np.arange(BINS) + 0.5) * (2 * LOG_ODDS_LIMIT / BINS) - LOG_ODDS_LIMIT
    return np.asarray(1 / (1 + np.exp(-log_odds)), dtype=np.float64)


def _thinned(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> Points:
    """Keep the first and last point, and those evenly spaced along the curve."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(xs)) + np.abs(np.diff(ys)))])
    wanted = np.linspace(0.0, along[-1], DRAWN)
    kept = np.unique(np.concatenate([[0], np.searchsorted(along, wanted), [len(xs) - 1]]))
    kept = np.minimum(kept, len(xs) - 1)
    points = zip(xs[kept].tolist(), ys[kept].tolist(), strict=True)
    return tuple(dict.fromkeys((round(x, 5), round(y, 5)) for x, y in points))
