import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from common.compression import (
    COMPRESSIONS,
    LEVELS,
    Compression,
    Packed,
    compress,
    decode,
    encode,
)
from common.errors import PlanRefused, UpdateRefused

Floats = dict[str, NDArray[np.float32]]
SEED = b"seed"
LOSSY: tuple[Compression, ...] = ("fp16", "int8", "top-k")


def random_delta(seed: int = 0, scale: float = 1e-3) -> Floats:
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"a": (7, 11), "b": (300,), "scalar": (), "empty": (0, 4)}
    return {n: (scale * random.normal(size=s)).astype(np.float32) for n, s in shapes.items()}


def shapes_of(delta: Floats) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in delta.items()}


def size_of(packed: Packed) -> int:
    return sum(array.nbytes for array in packed.arrays.values())


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_what_is_read_back_and_what_is_left_are_what_was_given(kind: Compression) -> None:
    delta = random_delta()
    found = compress(delta, kind, seed=SEED, fraction=0.1)
    again = decode(found.packed, shapes_of(delta))
    for name, array in delta.items():
        np.testing.assert_array_equal(again[name], found.decoded[name])
        assert again[name].dtype == np.float32
        assert again[name].shape == array.shape
        np.testing.assert_allclose(found.decoded[name] + found.left[name], array, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "limit"), [("none", 1.0), ("fp16", 0.51), ("int8", 0.26), ("top-k", 0.07)]
)
def test_bytes_are_as_promised(kind: Compression, limit: float) -> None:
    delta = {"w": np.random.default_rng(0).normal(size=10_000).astype(np.float32)}
    assert size_of(encode(delta, kind, seed=SEED, fraction=0.03)) <= limit * 40_000


def test_stochastic_rounding_is_unbiased_and_off_by_less_than_a_level() -> None:
    delta = {"w": np.linspace(-1, 1, 1001).astype(np.float32)}
    shapes = shapes_of(delta)
    many = [decode(encode(delta, "int8", seed=bytes([i])), shapes)["w"] for i in range(200)]
    step = 1 / LEVELS
    assert max(float(np.abs(m - delta["w"]).max()) for m in many) <= step * 1.001
    # Deviation of a mean over 200 roundings: at most step / 2 / sqrt(200); five of them.
    error = np.abs(np.mean(many, axis=0) - delta["w"]).max()
    assert float(error) <= 5 * step / 2 / math.sqrt(200)


def test_half_precision_keeps_tiny_deltas() -> None:
    delta = {"w": np.array([1e-8, 3e-9, -2e-12], dtype=np.float32)}
    back = decode(encode(delta, "fp16", seed=SEED), shapes_of(delta))["w"]
    np.testing.assert_allclose(back, delta["w"], rtol=1e-3)


def test_top_k_keeps_the_largest_exactly() -> None:
    delta = {"w": np.array([0.1, -5, 0.2, 4, 0.3], dtype=np.float32)}
    back = decode(encode(delta, "top-k", seed=SEED, fraction=0.4), {"w": (5,)})["w"]
    np.testing.assert_array_equal(back, np.array([0, -5, 0, 4, 0], dtype=np.float32))


@pytest.mark.parametrize("kind", LOSSY)
def test_with_error_feedback_nothing_is_lost_in_the_long_run(kind: Compression) -> None:
    """Karimireddy et al. 2019, lemma 3: what is left stays bounded, so the mean error vanishes."""
    delta, rounds = random_delta(), 300
    memory: Floats | None = None
    total = {name: np.zeros(array.shape) for name, array in delta.items()}
    for number in range(rounds):
        found = compress(delta, kind, seed=bytes([number % 256]), fraction=0.1, memory=memory)
        memory = found.left
        total = {name: total[name] + found.decoded[name] for name in total}
    for name, array in delta.items():
        if array.size:
            off = np.abs(total[name] / rounds - array).max() / np.abs(array).max()
            assert off < 0.15, name
    without = compress(delta, "top-k", seed=SEED, fraction=0.1).decoded["b"]
    assert np.abs(without - delta["b"]).max() > 0.15 * np.abs(delta["b"]).max()


@pytest.mark.parametrize("kind", LOSSY)
def test_a_seed_makes_the_bytes_and_nothing_else_does(kind: Compression) -> None:
    first, second = (encode(random_delta(), kind, seed=SEED, fraction=0.1) for _ in range(2))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


def test_stochastic_rounding_differs_between_seeds() -> None:
    one, two = (encode(random_delta(), "int8", seed=s).arrays["values/b"] for s in (b"1", b"2"))
    assert (one != two).any()


BAD: list[tuple[Compression, str, NDArray[np.generic]]] = [
    ("int8", "scales", np.array([math.nan, 1], dtype=np.float32)),
    ("int8", "scales", np.array([math.inf, 1], dtype=np.float32)),
    ("int8", "scales", np.array([-1, 1], dtype=np.float32)),
    ("int8", "scales", np.array([1], dtype=np.float32)),
    ("int8", "scales", np.array([1, 1], dtype=np.float64)),
    ("int8", "scales", np.array([3e38, 1], dtype=np.float32)),
    ("int8", "values/w", np.full(6, -128, dtype=np.int8)),
    ("int8", "values/w", np.zeros(7, dtype=np.int8)),
    ("int8", "values/w", np.zeros(6, dtype=np.uint8)),
    ("int8", "values/other", np.zeros(6, dtype=np.int8)),
    ("fp16", "values/w", np.full(6, math.nan, dtype=np.float16)),
    ("fp16", "values/w", np.full(6, math.inf, dtype=np.float16)),
    ("fp16", "values/w", np.zeros(6, dtype=np.float32)),
    ("top-k", "indices/w", np.array([0, 6], dtype=np.uint32)),
    ("top-k", "indices/w", np.array([1, 1], dtype=np.uint32)),
    ("top-k", "indices/w", np.array([2, 1], dtype=np.uint32)),
    ("top-k", "indices/w", np.array([0, 2**32 - 1], dtype=np.uint32)),
    ("top-k", "indices/w", np.array([0, 1], dtype=np.int64)),
    ("top-k", "indices/w", np.array([0], dtype=np.uint32)),
    ("top-k", "values/w", np.array([0, math.nan], dtype=np.float32)),
    ("top-k", "values/w", np.zeros(7, dtype=np.float32)),
    ("none", "w", np.zeros(6, dtype=np.float64)),
    ("none", "w", np.full(6, math.inf, dtype=np.float32)),
]


@pytest.mark.parametrize(("kind", "name", "array"), BAD)
def test_malformed_bytes_are_refused(
    kind: Compression, name: str, array: NDArray[np.generic]
) -> None:
    delta = {"w": np.arange(6, dtype=np.float32) + 1, "v": np.ones(2, dtype=np.float32)}
    good = encode(delta, kind, seed=SEED, fraction=0.3)
    decode(good, shapes_of(delta))
    arrays = {**good.arrays, name: array}
    with pytest.raises(UpdateRefused) as refused:
        decode(Packed(kind, arrays), shapes_of(delta))
    assert refused.value.code == "update-compression"
    with pytest.raises(PlanRefused):
        decode(Packed(kind, arrays), shapes_of(delta), refusal=PlanRefused)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(COMPRESSIONS),
    arrays=st.dictionaries(
        st.sampled_from(["scales", "values/w", "indices/w", "w"]),
        st.one_of(
            hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=6))
            for dtype in (np.float32, np.float16, np.int8, np.uint32, np.float64, np.bool_)
        ),
    ),
)
def test_whatever_comes_is_decoded_to_the_shape_or_refused(
    kind: Compression, arrays: dict[str, NDArray[np.generic]]
) -> None:
    try:
        found = decode(Packed(kind, arrays), {"w": (2, 3)})
    except UpdateRefused:
        return
    assert found["w"].shape == (2, 3)
    assert found["w"].dtype == np.float32
    assert np.isfinite(found["w"]).all()
