import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.reading.patients import (
    attainable_share,
    first_of_each,
    folds,
    interval,
    upper_limit,
    weights,
)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60, unique=True), st.floats(0.02, 0.5))
def test_with_one_image_each_it_is_the_split_conformal_quantile(
    values: list[float], share: float
) -> None:
    number = len(values)
    rank = math.ceil((number + 1) * (1 - share) - 1e-9)
    limit = upper_limit(np.array(values), np.arange(number), share=share)
    assert limit == (sorted(values)[rank - 1] if rank <= number else None)


def test_a_new_patients_images_stay_below_as_promised_though_theirs_are_alike() -> None:
    """Images of a patient hang together, and some patients have many."""
    dice, share, rounds = np.random.default_rng(0), 0.1, 1500
    above = 0.0
    for _ in range(rounds):
        counts = dice.choice([1, 2, 30], 25)
        owners = np.repeat(np.arange(25), counts)
        values = dice.normal(size=25)[owners] + 0.1 * dice.normal(size=len(owners))
        limit = upper_limit(values, owners, share=share)
        assert limit is not None
        above += float(dice.normal() + 0.1 * dice.normal() > limit)
    # Three standard errors of a rate of 0.1 are 0.023.
    assert above / rounds <= share + 0.023


def test_too_few_patients_promise_nothing_however_many_images() -> None:
    owners = np.repeat(np.arange(8), 100)
    assert upper_limit(np.arange(800.0), owners, share=0.1) is None
    assert upper_limit(np.zeros(0), np.zeros(0, np.int64), share=0.1) is None
    share = attainable_share(0.1, owners)
    assert share == pytest.approx(1 / 9)
    assert upper_limit(np.arange(800.0), owners, share=share) == 799.0


def test_every_patient_weighs_the_same() -> None:
    owners = np.array([3, 3, 3, 9])
    np.testing.assert_allclose(weights(owners), [1 / 3, 1 / 3, 1 / 3, 1])
    found = interval(np.array([True, True, True, False]), owners)
    assert (found.value, found.patients) == (pytest.approx(0.5), 2)


@given(st.integers(1, 500), st.data())
def test_the_interval_is_wilsons_and_holds_the_rate(number: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, number))
    found = interval(np.arange(number) < hits, np.arange(number))
    assert 0 <= found.low <= found.value <= found.high <= 1
    if hits == 0:
        assert found.high == pytest.approx(1.96**2 / (number + 1.96**2), rel=1e-3)


def test_a_patients_images_are_on_one_side() -> None:
    owners = np.array([5, 1, 5, 2, 1, 9])
    parts = folds(owners, 2)
    for owner in set(owners):
        assert len(set(parts[owners == owner])) == 1
    assert list(first_of_each(owners)) == [0, 1, 3, 5]
