import numpy as np
import pytest

from client.reading.conformal import class_scores, fit_conformal, prediction_sets
from client.reading.parts import NotEnough
from client.reading.settings import ReadingSettings
from tests.client.reading.holdouts import K, holdout, softmax


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_sets_hold_the_right_class_of_new_patients_as_promised(method: str) -> None:
    settings = ReadingSettings(conformal=method, coverage=0.9)  # type: ignore[arg-type]
    held = []
    for seed in range(60):
        scores, new = holdout(80, heat=2.0, seed=seed), holdout(100, heat=2.0, seed=1000 + seed)
        rule = fit_conformal(softmax(scores.logits), scores.labels, scores.patients, settings)
        inside = prediction_sets(softmax(new.logits), rule)
        held.append(inside[np.arange(len(new.labels)), new.labels].mean())
    assert np.mean(held) >= 0.9 - 0.012
    assert np.mean(held) <= 0.93, "no larger than need be"


def test_by_class_the_promise_is_for_the_rare_class_too() -> None:
    settings = ReadingSettings(coverage=0.8, by_class=True)
    scores, new = holdout(900, heat=2.0), holdout(900, heat=2.0, seed=5)
    rule = fit_conformal(softmax(scores.logits), scores.labels, scores.patients, settings)
    inside = prediction_sets(softmax(new.logits), rule)
    for k in range(K):
        of_it = new.labels == k
        assert inside[of_it, k].mean() > 0.8 - 3 * np.sqrt(0.16 / of_it.sum())


def test_a_class_without_cases_is_in_every_set() -> None:
    settings = ReadingSettings(by_class=True)
    scores = holdout(200)
    known = scores.labels != 0
    rule = fit_conformal(
        softmax(scores.logits[known]), scores.labels[known], scores.patients[known], settings
    )
    assert rule.quantiles[0] is None
    assert prediction_sets(softmax(scores.logits), rule)[:, 0].all()


def test_the_likeliest_class_is_in_every_adaptive_set() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(50, K)))
    scores = class_scores(rows, "aps")
    assert (scores[np.arange(50), rows.argmax(axis=1)] == 0).all()
    np.testing.assert_allclose(scores[0], [rows[0][rows[0] > p].sum() for p in rows[0]], atol=1e-12)
    np.testing.assert_allclose(class_scores(rows, "lac"), 1 - rows)


def test_too_few_patients_and_turned_off_give_no_rule() -> None:
    few, some = holdout(29, images=50), holdout(60)
    for scores, settings in (
        (few, ReadingSettings()),
        (some, ReadingSettings(coverage=0.99)),
        (some, ReadingSettings(conformal="off")),
    ):
        with pytest.raises(NotEnough):
            fit_conformal(softmax(scores.logits), scores.labels, scores.patients, settings)
