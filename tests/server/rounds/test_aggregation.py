import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.errors import RoundFailed
from server.rounds.aggregation import WeightedMean

values = arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32))


@given(st.lists(st.tuples(values, st.integers(1, 10_000)), min_size=1, max_size=6))
def test_the_mean_is_weighted(parts: list[tuple[np.ndarray, int]]) -> None:
    mean = WeightedMean()
    for array, weight in parts:
        mean.add({"w": array, "s": np.array(array[0, 0])}, weight=weight)
    expected = np.average([a for a, _ in parts], axis=0, weights=[w for _, w in parts])
    result = mean.mean()
    np.testing.assert_allclose(result["w"], expected, atol=1e-4)
    assert result["w"].dtype == np.float32
    assert result["s"].shape == ()


@given(st.lists(st.tuples(values, st.integers(1, 100)), min_size=2, max_size=5), st.randoms())
def test_the_order_of_arrival_does_not_matter(parts: list[tuple[np.ndarray, int]], random) -> None:
    first, second = WeightedMean(), WeightedMean()
    for array, weight in parts:
        first.add({"w": array}, weight=weight)
    random.shuffle(parts)
    for array, weight in parts:
        second.add({"w": array}, weight=weight)
    np.testing.assert_allclose(first.mean()["w"], second.mean()["w"], rtol=1e-6, atol=1e-6)


def test_nothing_has_no_mean() -> None:
    with pytest.raises(RoundFailed):
        WeightedMean().mean()


def test_memory_does_not_grow_with_the_number_of_sites() -> None:
    size = 500_000

    def peak(sites: int) -> int:
        tracemalloc.start()
        mean = WeightedMean()
        for seed in range(sites):
            mean.add({"a": np.full(size, seed, dtype=np.float32)}, weight=1)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(2), peak(20)
    assert many < few * 1.1
    assert many < size * (8 + 8 + 8 + 4) * 1.1, "one sum, one update and what adding needs"
