import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from simulations.scoring import score


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    probabilities = rng.dirichlet(np.ones(3), 200)
    found = score(probabilities, labels, 3)
    assert found.macro_auroc == pytest.approx(
        roc_auc_score(labels, probabilities, multi_class="ovr")
    )
    assert found.balanced_accuracy == pytest.approx(
        balanced_accuracy_score(labels, probabilities.argmax(1))
    )
    assert found.majority_baseline == np.bincount(labels).max() / 200


def test_a_class_without_cases_is_left_out_of_the_means():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1]])
    found = score(probabilities, labels, 3)
    assert found.auroc[2] is None
    assert found.sensitivity == (0.5, 1.0, None)
    assert found.balanced_accuracy == 0.75


def test_one_class_alone_has_no_auroc():
    found = score(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]), 2)
    assert found.macro_auroc is None
    assert found.accuracy == 0.5


def test_no_case_has_no_score():
    found = score(np.zeros((0, 2)), np.zeros(0, int), 2)
    assert found.count == 0
    assert found.accuracy is None
