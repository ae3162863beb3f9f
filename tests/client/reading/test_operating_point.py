import numpy as np
import pytest

from client.reading.operating_point import choose_operating_point
from client.reading.parts import NotEnough


def people(count: int, seed: int = 0) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    dice = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    scores = 1 / (1 + np.exp(-dice.normal(loc=np.where(truth, 1.0, -1.0))))
    return scores, truth


def test_new_positive_patients_reach_the_threshold_as_often_as_wanted() -> None:
    reached = []
    for seed in range(150):
        scores, truth = people(80, seed)
        point = choose_operating_point(scores, truth, np.arange(80), wanted=0.9)
        new, positive = people(400, 10_000 + seed)
        reached.append((new[positive] >= point.threshold).mean())
    assert 0.9 - 0.01 <= np.mean(reached) <= 0.94


def test_the_figures_are_of_the_threshold_and_have_intervals() -> None:
    scores, truth = people(200)
    point = choose_operating_point(scores, truth, np.arange(200), wanted=0.95)
    assert point.sensitivity.value == pytest.approx((scores[truth] >= point.threshold).mean())
    assert point.specificity is not None
    assert point.specificity.value == pytest.approx((scores[~truth] < point.threshold).mean())
    assert point.sensitivity.low < 0.95 < point.sensitivity.high
    assert point.sensitivity.patients == point.specificity.patients == 100


def test_a_sensitivity_that_so_few_cannot_promise_is_refused_with_the_number() -> None:
    scores, truth = people(36)
    with pytest.raises(NotEnough, match=r"18 .* needs 19"):
        choose_operating_point(scores, truth, np.arange(36), wanted=0.95)
    nineteen = people(38)
    assert choose_operating_point(*nineteen, np.arange(38), wanted=0.95).sensitivity.value == 1.0
    with pytest.raises(NotEnough):
        choose_operating_point(scores, np.zeros(36, bool), np.arange(36), wanted=0.5)


def test_without_a_negative_there_is_no_specificity() -> None:
    scores, _ = people(40)
    point = choose_operating_point(scores, np.ones(40, bool), np.arange(40), wanted=0.8)
    assert point.specificity is None
