"""Area under the curve and calibration error of scores, with bootstrap intervals."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from client.monitoring.comparison import Interval
from client.monitoring.rates import CONFIDENCE, wilson
from common.evaluation_figures import CALIBRATION_BINS

Weights: TypeAlias = NDArray[np.float64]

DRAWS = 400


def area_and_calibration(
    scores: NDArray[np.float64], labels: NDArray[np.int64], *, minimum: int
) -> tuple[Interval | None, Interval]:
    """Return the mean one-against-the-rest area, and the calibration error of the top class.

    The area is None where a class has fewer than ``minimum`` cases: the mean is over all or none.

    Parameters
    ----------
    scores : ndarray of float64 (N, K)
        Probabilities; N at least 2.
    labels : ndarray of int64 (N,)
    minimum : int
    """
    generator = np.random.default_rng(0)
    count = len(labels)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    weights = np.vstack([np.ones(count), drawn]).astype(np.float64)
    held = np.bincount(labels, minlength=scores.shape[1])
    area = None
    if held.min() >= max(1, minimum):
        area = _area_interval(_mean_area(scores, labels, weights), int(held.min()))
    return area, _calibration(scores, labels, weights)


def _area_interval(areas: NDArray[np.float64], fewest: int) -> Interval:
    low, high = _quantiles(areas[1:])
    # Perfect separation resamples to itself: as sure as the smaller class's perfect rate, then.
    low = min(low, wilson(fewest, fewest).low) if areas[0] == 1.0 else low
    return Interval(low, float(areas[0]), high)


def _mean_area(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: Weights
) -> NDArray[np.float64]:
    """Return the mean one-against-the-rest area under the curve for each row of weights."""
    classes = range(scores.shape[1])
    areas = [_area(scores[:, k], labels == k, weights) for k in classes]
    found: NDArray[np.float64] = np.mean(areas, axis=0)
    return found


def _area(
    score: NDArray[np.float64], positive: NDArray[np.bool_], weights: Weights
) -> NDArray[np.float64]:
    """Return the Mann-Whitney statistic for each row of weights, ties counting one half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of equal scores
    above = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    below = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    lower = np.cumsum(below, axis=1) - below
    pairs = above.sum(axis=1) * below.sum(axis=1)
    won = (above * (lower + below / 2)).sum(axis=1)
    found: NDArray[np.float64] = np.where(pairs > 0, won / np.maximum(pairs, 1e-12), 0.5)
    return found


def _calibration(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: Weights
) -> Interval:
    """Return the expected calibration error of the top class, freed of its upward bias.

    As `common.evaluation_figures.calibration_error`, over the same bins, which chance alone makes
    larger than 0. It is multiplied by the root of the share of the mean squared distance that
    binomial chance does not explain (after Kumar et al. 2019, arXiv:1909.10155, section 5). The
    lower bound is 0 where chance explains all of it (Hosmer and Lemeshow 1980).
    """
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, None)
    member = np.zeros((len(labels), CALIBRATION_BINS))
    member[np.arange(len(labels)), np.minimum(place, CALIBRATION_BINS - 1)] = 1.0
    apart = np.abs((weights * (confidence - right)) @ member).sum(axis=1) / weights.sum(axis=1)
    share, shown = _unexplained(confidence, right, member)
    estimate = float(apart[0]) * share
    low, high = (bound - float(apart[1:].mean()) for bound in _quantiles(apart[1:]))
    least = max(0.0, estimate + low) if shown else 0.0
    return Interval(least, estimate, min(1.0, estimate + high))


def _unexplained(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], member: NDArray[np.float64]
) -> tuple[float, bool]:
    """Return the share of the distance that is not chance's, and whether there is any, surely."""
    held = member.sum(axis=0)
    some = held > 0
    said, seen = (values @ member[:, some] / held[some] for values in (confidence, right))
    squares = held[some] * np.square(said - seen)
    by_chance = np.maximum(said * (1 - said), 1e-9)  # were the answers calibrated
    total = float(squares.sum())
    rest = max(0.0, total - float(by_chance.sum())) / total if total > 0 else 0.0
    p_value = float(stats.chi2.sf(float((squares / by_chance).sum()), int(some.sum())))
    return float(np.sqrt(rest)), p_value < 1 - CONFIDENCE


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
