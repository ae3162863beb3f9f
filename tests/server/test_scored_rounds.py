import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rounds.round_plans import is_scored


def scored(rounds, evaluations):
    return [n for n in range(1, rounds + 1) if is_scored(n, rounds, evaluations)]


@given(st.integers(1, 300), st.integers(1, 50))
def test_as_many_rounds_are_scored_as_the_recipe_says(rounds, evaluations):
    found = scored(rounds, evaluations)
    assert found[0] == 1
    assert min(rounds, evaluations) <= len(found) <= min(rounds, evaluations + 1)


@pytest.mark.parametrize(
    ("rounds", "evaluations", "numbers"),
    [(5, 0, [1, 2, 3, 4, 5]), (5, 20, [1, 2, 3, 4, 5]), (10, 2, [1, 5, 10])],
)
def test_they_are_spread_evenly(rounds, evaluations, numbers):
    assert scored(rounds, evaluations) == numbers
