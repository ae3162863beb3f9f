"""What a site makes of a correction that came."""

import numpy as np
import pytest

from common.compression import Packed, encode
from common.correction import norm_bound, read_correction
from common.errors import PlanRefused
from common.recipe import LocalTraining
from common.update import tensors_digest

BASE = {"w": np.full((2, 2), 3.0, dtype=np.float32), "n": np.array(10**6)}
GIVEN = {"w": np.array([[1, -2], [3, 4]], dtype=np.float32)}
SHAPES = {"w": (2, 2)}
BOUND = norm_bound(BASE, LocalTraining(learning_rate=0.1, local_steps=5))


def read(packed: Packed | None, named: str | None = tensors_digest(GIVEN)) -> object:
    return read_correction(packed, named=named, shapes=SHAPES, bound=BOUND)


def test_the_bound_is_what_would_move_the_model_by_ten_times_its_norm() -> None:
    assert pytest.approx(10 * 6 / 0.5) == BOUND


def test_what_the_plan_names_is_read() -> None:
    found = read(Packed("none", GIVEN))
    assert isinstance(found, dict)
    np.testing.assert_array_equal(found["w"], GIVEN["w"])
    assert read(None, None) is None


@pytest.mark.parametrize(
    ("packed", "code"),
    [
        (None, "correction-mismatch"),
        (Packed("none", {"w": GIVEN["w"] * 2}), "correction-mismatch"),
        (Packed("none", {"w": np.full((2, 2), np.nan, np.float32)}), "correction-malformed"),
        (Packed("none", {"w": np.full((2, 2), np.inf, np.float32)}), "correction-malformed"),
        (Packed("none", {"w": GIVEN["w"].ravel()}), "correction-malformed"),
        (Packed("none", {"w": GIVEN["w"].astype(np.float64)}), "correction-malformed"),
        (Packed("none", GIVEN | {"v": GIVEN["w"]}), "correction-malformed"),
        (Packed("none", {}), "correction-malformed"),
        (Packed("int8", {"w": GIVEN["w"]}), "correction-malformed"),
    ],
)
def test_anything_else_is_refused(packed: Packed | None, code: str) -> None:
    with pytest.raises(PlanRefused) as caught:
        read(packed)
    assert caught.value.code == code


def test_one_that_the_plan_does_not_name_is_refused() -> None:
    with pytest.raises(PlanRefused) as caught:
        read(Packed("none", GIVEN), None)
    assert caught.value.code == "correction-mismatch"


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_a_signed_one_that_is_too_long_is_refused(size: float) -> None:
    long = {"w": np.full((2, 2), size, dtype=np.float32)}
    with pytest.raises(PlanRefused) as caught:
        read(Packed("none", long), tensors_digest(long))
    assert caught.value.code == "correction-norm"


def test_a_compressed_one_is_named_by_what_is_decoded() -> None:
    packed = encode(GIVEN, "int8", seed=b"seed")
    with pytest.raises(PlanRefused):
        read(packed, tensors_digest(packed.arrays))
