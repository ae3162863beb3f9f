import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from common.errors import UpdateRefused
from common.update import ModelUpdate, UpdateBinding, apply, difference, tensors_digest

BINDING = UpdateBinding("campaign", 1, "ab" * 32, "cd" * 32)
weights = arrays(
    np.float32, array_shapes(max_dims=3, max_side=4), elements=st.floats(-1e3, 1e3, width=32)
)


@given(base=weights, data=st.data())
def test_a_difference_leads_from_base_to_trained(
    base: NDArray[np.float32], data: st.DataObject
) -> None:
    trained = data.draw(arrays(np.float32, base.shape, elements=st.floats(-1e3, 1e3, width=32)))
    update = difference({"w": trained}, {"w": base}, binding=BINDING)
    result = apply({"w": base, "n": np.array(3)}, update.tensors)
    np.testing.assert_allclose(result["w"], trained, atol=1e-3)
    assert result["n"] == 3


def test_apply_leaves_its_inputs_alone_and_keeps_dtypes() -> None:
    base = {"half": np.ones(2, dtype=np.float16), "other": np.ones(2)}
    result = apply(base, {"half": np.ones(2, dtype=np.float64)})
    assert result["half"].dtype == np.float16
    result["other"] += 1
    np.testing.assert_array_equal(base["other"], [1, 1])
    np.testing.assert_array_equal(base["half"], [1, 1])


@pytest.mark.parametrize(
    ("trained", "code"),
    [
        ({"v": np.ones(2)}, "update-shape"),
        ({"w": np.ones(3)}, "update-shape"),
        ({"w": np.array([1, np.nan])}, "update-not-finite"),
        ({"w": np.array([1, np.inf])}, "update-not-finite"),
    ],
)
def test_a_difference_that_cannot_be_is_refused(
    trained: dict[str, NDArray[np.float64]], code: str
) -> None:
    with pytest.raises(UpdateRefused) as caught:
        difference(trained, {"w": np.ones(2)}, binding=BINDING)
    assert caught.value.code == code


@pytest.mark.parametrize("delta", [{"v": np.ones(2)}, {"w": np.ones((2, 1))}])
def test_a_delta_unlike_the_base_is_refused(delta: dict[str, NDArray[np.float64]]) -> None:
    with pytest.raises(UpdateRefused):
        apply({"w": np.ones(2)}, delta)


@given(array=weights)
def test_a_digest_is_of_values_not_of_memory(array: NDArray[np.float32]) -> None:
    swapped = array.astype(array.dtype.newbyteorder(">"))
    strided = np.stack([array, array], axis=-1)[..., 0]
    reference = tensors_digest({"a": array, "b": np.array(1)})
    assert tensors_digest({"b": np.array(1), "a": swapped}) == reference
    assert tensors_digest({"a": strided, "b": np.array(1)}) == reference


def test_a_digest_tells_names_shapes_dtypes_and_values_apart() -> None:
    ones = np.ones(4, dtype=np.float32)
    variants = [
        {"a": ones},
        {"b": ones},
        {"a": ones.reshape(2, 2)},
        {"a": ones.astype(np.float64)},
        {"a": ones * 2},
        {"a": ones, "b": ones},
        {},
    ]
    assert len({tensors_digest(variant) for variant in variants}) == len(variants)


def test_an_updates_digest_covers_its_binding() -> None:
    tensors = {"w": np.ones(2, dtype=np.float32)}
    bindings = [
        BINDING,
        UpdateBinding("other", 1, BINDING.nonce, BINDING.base_digest),
        UpdateBinding("campaign", 2, BINDING.nonce, BINDING.base_digest),
        UpdateBinding("campaign", 1, "ef" * 32, BINDING.base_digest),
        UpdateBinding("campaign", 1, BINDING.nonce, "ef" * 32),
    ]
    assert len({ModelUpdate(binding, tensors).digest for binding in bindings}) == len(bindings)


def test_the_norm_is_over_all_tensors() -> None:
    tensors = {"a": np.array([3.0], dtype=np.float32), "b": np.array([[4.0]], dtype=np.float32)}
    assert ModelUpdate(BINDING, tensors).norm == pytest.approx(5.0)
