import numpy as np
import pytest

from client.reading.ordinary import distance, fit_ordinary
from client.reading.parts import NotEnough, Ordinary
from client.reading.patients import Groups

Rows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def features(count: int, seed: int = 0, *, wide: int = 256) -> Rows:
    """Features that mostly vary in a few directions, as a network's do."""
    dice = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(6, wide))
    rows = dice.normal(size=(count, 6)) @ directions + 0.3 * dice.normal(size=(count, wide))
    return np.abs(rows).astype(np.float32)


def fit(rows: Rows, owners: Groups | None = None) -> Ordinary:
    groups = np.arange(len(rows)) if owners is None else owners
    return fit_ordinary(rows, groups, false_alarms=0.05)


def test_ordinary_images_pass_and_others_do_not() -> None:
    ordinary = fit(features(120))
    assert ordinary.false_alarms == 0.05
    alarms = distance(features(3000, 1), ordinary) > ordinary.limit
    assert alarms.mean() <= 0.09
    foreign = np.abs(np.random.default_rng(5).normal(size=(50, 256)) * 2.5).astype(np.float32)
    assert (distance(foreign, ordinary) > ordinary.limit).all()
    assert (distance(features(50, 2) * 2, ordinary) > ordinary.limit).mean() > 0.9


def test_few_patients_promise_what_they_can_and_say_so() -> None:
    ordinary = fit_ordinary(features(40), np.arange(40), false_alarms=0.01)
    assert ordinary.false_alarms == pytest.approx(1 / 41)


def test_distances_are_the_same_after_a_journey_through_json() -> None:
    ordinary = fit(features(60))
    again = Ordinary.model_validate_json(ordinary.model_dump_json())
    rows = features(5, 3)
    np.testing.assert_array_equal(distance(rows, ordinary), distance(rows, again))


@pytest.mark.parametrize("case", ["few", "constant", "infinite"])
def test_features_that_tell_nothing_give_no_reference(case: str) -> None:
    rows = features(19 if case == "few" else 60)
    if case == "constant":
        rows[:] = 1
    if case == "infinite":
        rows[3, 3] = np.inf
    with pytest.raises(NotEnough):
        fit(rows)


def test_many_images_of_one_patient_are_one_patient() -> None:
    rows = features(400)
    with pytest.raises(NotEnough):
        fit(rows, np.arange(400) % 10)
