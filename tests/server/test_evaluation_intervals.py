"""Intervals out of histograms: they hold the truth as often as they say."""

import numpy as np
import pytest
from scipy.stats import norm

from common.evaluation import SiteEvaluation, evaluate_predictions, merge
from server.calibration_interval import calibration_estimate
from server.evaluation_intervals import (
    auroc_estimate,
    average_precision_estimate,
    difference_lower_bound,
    mean_estimate,
    proportion,
)

DRAWN = 300
SEPARATION = 1.2
CLASSES = ("benign", "malignant")


def hospital(generator: np.random.Generator, cases: int, minimum: int = 1) -> SiteEvaluation:
    """Two normal distributions a `SEPARATION` apart: the AUROC is known exactly."""
    labels = (np.arange(cases) % 4 == 0).astype(int)
    scores = generator.normal(size=cases) + SEPARATION * labels
    positive = 1 / (1 + np.exp(-scores))
    return evaluate_predictions(
        np.stack([1 - positive, positive], axis=1), labels, CLASSES, minimum_cell=minimum,
        positive_classes=("malignant",), statistics=("decision", "calibration"),
    )  # fmt: skip


@pytest.mark.parametrize("minimum", [1, 5])
def test_95_percent_intervals_hold_the_true_auroc(minimum: int) -> None:
    generator = np.random.default_rng(minimum)
    truth = float(norm.cdf(SEPARATION / np.sqrt(2)))
    held = 0
    for _ in range(DRAWN):
        pooled = merge([hospital(generator, n, minimum) for n in (160, 80)])
        found = auroc_estimate(pooled.positives[1], pooled.negatives[1], generator)
        assert found is not None
        held += found.lower <= truth <= found.upper
    assert 0.90 <= held / DRAWN <= 0.99, held / DRAWN


def test_95_percent_intervals_hold_the_true_average_precision() -> None:
    generator = np.random.default_rng(7)
    large = hospital(generator, 400_000)
    truth = average_precision_estimate(large.positives[1], large.negatives[1], generator)
    assert truth is not None
    held = 0
    for _ in range(100):
        one = hospital(generator, 240)
        found = average_precision_estimate(one.positives[1], one.negatives[1], generator)
        assert found is not None
        held += found.lower <= truth.value <= found.upper
    assert 0.87 <= held / 100 <= 1, held / 100


def test_one_sided_bounds_of_a_gain_are_kept() -> None:
    """Two models whose errors correlate by a half, of equal worth: the gain is 0."""
    generator = np.random.default_rng(3)
    labels = np.arange(200) % 2
    kept = 0
    for _ in range(100):
        shared = generator.normal(size=200)
        models = []
        for _ in range(2):
            noise = np.sqrt(0.5) * shared + np.sqrt(0.5) * generator.normal(size=200)
            positive = 1 / (1 + np.exp(-(noise + SEPARATION * labels)))
            scores = np.stack([1 - positive, positive], axis=1)
            models.append(evaluate_predictions(scores, labels, CLASSES, minimum_cell=1))
        bound = difference_lower_bound(*models, correlation=0.4, generator=generator)
        assert bound is not None
        kept += bound <= 0
    assert kept >= 88


def test_more_correlation_makes_the_difference_surer() -> None:
    generator = np.random.default_rng(0)
    one = hospital(generator, 300)
    bounds = [
        difference_lower_bound(one, one, correlation=r, generator=generator) for r in (0, 0.5, 1)
    ]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert bounds[0] < bounds[1] < 0
    assert bounds[2] == pytest.approx(0, abs=0.02)


def test_a_perfect_ranking_of_a_few_cases_is_no_certainty() -> None:
    scores = np.linspace(0.01, 0.99, 20)
    perfect = evaluate_predictions(
        np.stack([1 - scores, scores], axis=1), (np.arange(20) >= 10).astype(int), CLASSES,
        minimum_cell=1,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    found = auroc_estimate(perfect.positives[1], perfect.negatives[1], generator)
    assert found is not None
    assert (found.value, found.upper) == (1.0, 1.0)
    assert found.lower < 0.8


def test_proportions_are_wilsons() -> None:
    found = proportion(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert found is not None
    assert (round(found.lower, 4), round(found.upper, 4)) == (0.2553, 0.3662)
    none = proportion(0, 10)
    assert none is not None
    assert (none.value, none.lower) == (0.0, 0.0)
    assert none.upper > 0.2
    assert proportion(0, 0) is None


def test_what_is_undefined_has_no_interval() -> None:
    generator = np.random.default_rng(0)
    one = evaluate_predictions(
        np.tile([0.8, 0.2], (9, 1)), np.zeros(9, int), CLASSES, minimum_cell=1,
        statistics=("calibration",),
    )  # fmt: skip
    assert auroc_estimate(one.positives[1], one.negatives[1], generator) is None
    assert average_precision_estimate(one.positives[1], one.negatives[1], generator) is None
    assert mean_estimate((None, None)) is None
    assert difference_lower_bound(one, one, correlation=0.5, generator=generator) is None
    assert one.calibration is not None
    sure = calibration_estimate(one.calibration, generator)
    assert sure is not None
    assert sure.value == pytest.approx(0.2, abs=0.01)


def separated(positives: int, negatives: int) -> SiteEvaluation:
    generator = np.random.default_rng(1)
    scores = np.concatenate(
        [generator.uniform(1, 5, positives), -generator.uniform(1, 5, negatives)]
    )
    positive = 1 / (1 + np.exp(-scores))
    labels = np.repeat([1, 0], [positives, negatives])
    return evaluate_predictions(
        np.stack([1 - positive, positive], axis=1), labels, CLASSES, minimum_cell=1
    )


@pytest.mark.parametrize("positives", range(10, 30))
def test_no_perfect_ranking_is_certain_by_rounding(positives: int) -> None:
    for negatives in range(40, 240, 16):
        perfect = separated(positives, negatives)
        sides = perfect.positives[1], perfect.negatives[1]
        for turned in (False, True):
            generator = np.random.default_rng(0)
            found = auroc_estimate(*(sides[::-1] if turned else sides), generator)
            assert found is not None
            certain = found.upper - found.lower
            assert certain >= 3 / positives - 1e-9, (negatives, turned)
        precise = average_precision_estimate(*sides, np.random.default_rng(0))
        assert precise is not None
        assert precise.value == pytest.approx(1.0)
        assert precise.lower <= 1 - 3 / positives + 1e-9, negatives
        bound = difference_lower_bound(
            perfect, perfect, correlation=0.5, generator=np.random.default_rng(0)
        )
        assert bound is not None
        assert bound < -1.2 * 3 / positives / 1.96, negatives
