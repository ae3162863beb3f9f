"""Groups are compared, small ones stay hidden, and a hidden one does not follow from the rest."""

from __future__ import annotations

import pytest

from client.monitoring.fairness import Fairness, GroupFairness, fairness
from client.monitoring.rates import wilson
from tests.client.monitoring.outcomes import drawn, outcome


def group(found: Fairness, axis: str, name: str) -> GroupFairness:
    return next(one for one in found.groups if (one.axis, one.group) == (axis, name))


def test_a_group_that_is_missed_more_often_shows() -> None:
    outcomes = [
        *drawn(300, 0.95, 0.8, seed=1, sex="female", age="50-59"),
        *drawn(300, 0.60, 0.8, seed=2, sex="male", age="50-59"),
    ]
    found = fairness(outcomes, minimum=10)
    female, male = group(found, "sex", "female"), group(found, "sex", "male")
    assert female.sensitivity is not None
    assert male.sensitivity is not None
    assert male.sensitivity.high < female.sensitivity.low
    caught = sum(o.positive for o in outcomes if o.sex == "male" and o.harmful)
    assert male.sensitivity == wilson(caught, 150)
    gaps = {(gap.axis, gap.rate): gap.distance for gap in found.gaps}
    assert gaps["sex", "sensitivity"].low > 0.15
    assert gaps["sex", "specificity"].low == 0.0
    assert ("age", "sensitivity") not in gaps  # there is one age group alone


def test_groups_that_are_alike_have_no_gap() -> None:
    outcomes = [
        one
        for n, band in enumerate(("20-29", "50-59", "70-79", "90+"))
        for one in drawn(100, 0.85, 0.85, seed=n, age=band)
    ]
    gaps = {gap.rate: gap.distance for gap in fairness(outcomes, minimum=10).gaps}
    assert gaps["sensitivity"].low == 0.0
    assert gaps["specificity"].low == 0.0


def test_a_small_cell_is_hidden_and_does_not_follow_from_the_others() -> None:
    outcomes = [
        *drawn(100, 0.9, 0.9, sex="female"),
        *drawn(60, 0.9, 0.9, sex="male"),
        *drawn(6, 0.9, 0.9, sex="other"),
    ]
    found = fairness(outcomes, minimum=10)
    assert group(found, "sex", "other").positives is None
    assert group(found, "sex", "other").sensitivity is None
    # With the whole's 83 and the women's 50 the men's 30 would give away the other 3.
    assert group(found, "sex", "male").positives is None
    assert group(found, "sex", "female").positives == 50
    assert found.gaps == ()


@pytest.mark.parametrize("minimum", [0, 1, 10])
def test_of_nothing_known_nothing_is_told(minimum: int) -> None:
    assert fairness([], minimum=minimum) == Fairness()
    assert fairness([outcome(harmful=True, called=True)] * 40, minimum=minimum) == Fairness()


def test_one_label_alone_is_told_of() -> None:
    found = fairness(
        [outcome(harmful=True, called=n % 4 > 0, sex="male") for n in range(40)], minimum=10
    )
    male = group(found, "sex", "male")
    assert male.sensitivity is not None
    assert (male.positives, male.negatives) == (40, None)
    assert male.specificity is None
    assert male.positive_share is None
