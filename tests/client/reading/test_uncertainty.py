import numpy as np
import pytest

from client.inference.outputs import Classifier
from client.reading.parts import NotEnough
from client.reading.uncertainty import SAMPLES, DropoutHeads, choose_limit, mutual_information
from tests.client.reading.holdouts import D, K, linear, softmax


def test_disagreement_counts_and_shared_doubt_does_not() -> None:
    doubt = np.full((1, 4, 4), 0.25)
    split = np.eye(4)[None]
    some = np.stack([np.full((4, 4), 0.25), np.eye(4)])
    assert mutual_information(doubt)[0] == 0
    assert mutual_information(split)[0] == pytest.approx(1)
    assert list(mutual_information(some)) == [0, pytest.approx(1)]


def test_dropout_is_the_same_each_time_and_nearly_so_for_a_near_copy() -> None:
    features = np.random.default_rng(0).normal(size=(3, D)).astype(np.float32)
    one, other = DropoutHeads(linear()), DropoutHeads(linear())
    first = mutual_information(one.probabilities(features))
    np.testing.assert_array_equal(first, mutual_information(other.probabilities(features)))
    near = mutual_information(one.probabilities(features + np.float32(1e-4)))
    np.testing.assert_allclose(near, first, atol=1e-3)
    np.testing.assert_allclose(
        mutual_information(one.probabilities(features[1:2])), first[1:2], atol=1e-6
    )


def test_samples_lie_around_the_classifier_and_differ() -> None:
    wide = Classifier(np.random.default_rng(1).normal(size=(K, 512)).astype(np.float32) / 20,
                      np.ones(K, np.float32))  # fmt: skip
    features = np.random.default_rng(2).normal(size=(4, 512)).astype(np.float32)
    rows = DropoutHeads(wide).probabilities(features)
    assert rows.shape == (4, SAMPLES, K)
    np.testing.assert_allclose(rows.sum(axis=2), 1)
    whole = softmax((features @ wide.weights.T + wide.bias).astype(np.float64))
    np.testing.assert_allclose(rows.mean(axis=1), whole, atol=0.06)
    assert rows.std(axis=1).min() > 0.003


def test_the_limit_finds_wrong_verdicts_and_refers_no_more_than_it_may() -> None:
    dice = np.random.default_rng(0)
    wrong = np.arange(300) % 10 == 0
    uncertainty = dice.beta(np.where(wrong, 8, 2), 10)
    limit = choose_limit(uncertainty, wrong, np.arange(300), refer_at_most=0.15)
    above = uncertainty > limit
    assert above.mean() <= 0.15
    assert above[wrong].mean() > 0.6 > 0.1 > above[~wrong].mean()


@pytest.mark.parametrize("case", ["few", "noise", "opposite", "none"])
def test_uncertainty_that_tells_nothing_refers_nobody(case: str) -> None:
    dice = np.random.default_rng(0)
    count = 60 if case == "few" else 400
    wrong = np.arange(count) % 10 == 0
    uncertainty = dice.uniform(size=count)
    if case in ("few", "none"):
        uncertainty[wrong] += 1
    if case == "opposite":
        uncertainty[wrong] -= 1
    with pytest.raises(NotEnough):
        choose_limit(
            uncertainty, wrong, np.arange(count), refer_at_most=0.0 if case == "none" else 0.2
        )


def test_chance_is_rarely_taken_for_a_sign() -> None:
    """At p < 0.05, about two of forty."""
    wrong, refused = np.arange(200) % 10 == 0, 0
    for seed in range(40):
        uncertainty = np.random.default_rng(seed).uniform(size=200)
        try:
            choose_limit(uncertainty, wrong, np.arange(200), refer_at_most=0.2)
        except NotEnough:
            refused += 1
    assert refused >= 34
