"""Curves from histograms against scikit-learn on the same scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from common.score_histogram import ScoreHistogram, bin_scores
from server.reports import curves

RNG = np.random.default_rng(7)
LABELS = RNG.random(600) < 0.3
SCORES = 1 / (1 + np.exp(-RNG.normal(np.where(LABELS, 1.0, -0.5), 1.2)))
BINS = bin_scores(SCORES)
POSITIVE = ScoreHistogram.count(BINS[LABELS], 1)
NEGATIVE = ScoreHistogram.count(BINS[~LABELS], 1)
NOTHING = ScoreHistogram()


def area(points: curves.Points) -> float:
    xs, ys = zip(*points, strict=True)
    return float(auc(xs, ys))


def test_the_roc_curve_encloses_the_area_of_scikit_learn() -> None:
    false, true, _ = roc_curve(LABELS, SCORES)
    points = curves.roc_curve(POSITIVE, NEGATIVE)
    assert points[0] == (0.0, 0.0)
    assert points[-1] == (1.0, 1.0)
    assert len(points) <= curves.DRAWN + 2
    assert area(points) == pytest.approx(auc(false, true), abs=0.005)


def test_the_precision_recall_curve_is_that_of_scikit_learn() -> None:
    precision, recall, _ = precision_recall_curve(LABELS, SCORES)
    points = curves.precision_recall_curve(POSITIVE, NEGATIVE)
    assert area(points) == pytest.approx(auc(recall, precision), abs=0.01)


@pytest.mark.parametrize("minimum_cell", [1, 5, 10])
def test_what_is_left_of_a_sum_of_shares_is_no_case(minimum_cell: int) -> None:
    """Above the highest case, a sum of pooled ranges is nearly 0: no precision is there."""
    positive = ScoreHistogram.count(BINS[LABELS], minimum_cell)
    negative = ScoreHistogram.count(BINS[~LABELS], minimum_cell)
    assert SCORES[LABELS].max() > SCORES[~LABELS].max()
    points = curves.precision_recall_curve(positive, negative)
    assert points[0][1] == 1.0


def test_calibration_is_that_of_the_exact_scores() -> None:
    bins = np.minimum((SCORES * 15).astype(int), 14)
    gaps = [
        (bins == b).mean() * abs(SCORES[bins == b].mean() - LABELS[bins == b].mean())
        for b in np.unique(bins)
    ]
    found = curves.reliability(POSITIVE, NEGATIVE)
    assert found is not None
    assert found.error == pytest.approx(sum(gaps), abs=1e-3)
    assert len(found.points) == len(gaps)


def test_nothing_is_drawn_of_nobody() -> None:
    assert curves.roc_curve(NOTHING, NEGATIVE) == ()
    assert curves.precision_recall_curve(POSITIVE, NOTHING) == ()
    assert curves.reliability(NOTHING, NOTHING) is None
