from pathlib import Path

import numpy as np
import pytest

from common.errors import StoreError
from common.update import tensors_digest
from server.model_store import ModelStore
from server.rounds.checkpoints import Checkpoints
from tests.fakes import FakeClock


def nothing_named(_: str) -> bool:
    return False


def weights(number: int) -> dict[str, np.ndarray]:
    return {"w": np.full(3, number, dtype=np.float32), "n": np.array(number)}


def save(checkpoints: Checkpoints, clock: FakeClock, number: int) -> str:
    clock.sleep(100)
    digest = tensors_digest(weights(number))
    checkpoints.save(number, digest, weights(number), {"first/w": np.full(3, number)})
    return digest


@pytest.fixture
def made(tmp_path: Path) -> tuple[Checkpoints, ModelStore, FakeClock]:
    clock, models = FakeClock(), ModelStore(tmp_path / "models", named=nothing_named)
    return Checkpoints(models, tmp_path / "states"), models, clock


def test_the_newest_two_are_kept(made: tuple[Checkpoints, ModelStore, FakeClock]) -> None:
    checkpoints, models, clock = made
    digests = [save(checkpoints, clock, number) for number in range(1, 5)]
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.number, newest.digest) == (4, digests[3])
    np.testing.assert_array_equal(newest.state["first/w"], [4, 4, 4])
    assert [digest in models for digest in digests] == [False, False, True, True]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    made: tuple[Checkpoints, ModelStore, FakeClock], tmp_path: Path
) -> None:
    checkpoints, models, clock = made
    first, second = save(checkpoints, clock, 1), save(checkpoints, clock, 2)
    (tmp_path / "states" / f"000002-{second}.safetensors").write_bytes(b"cut off")
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.digest == first
    models.remove(first)
    assert checkpoints.newest() is None


def test_protected_weights_outlive_their_checkpoints(
    made: tuple[Checkpoints, ModelStore, FakeClock],
) -> None:
    checkpoints, models, clock = made
    first = save(checkpoints, clock, 1)
    checkpoints.protect(first)
    second = save(checkpoints, clock, 2)
    checkpoints.clear()
    assert first in models
    assert second not in models
    assert checkpoints.newest() is None


def test_weights_of_two_rounds_that_are_alike_are_not_removed_early(
    made: tuple[Checkpoints, ModelStore, FakeClock],
) -> None:
    checkpoints, models, clock = made
    digest = tensors_digest(weights(1))
    for number in range(1, 5):
        clock.sleep(100)
        checkpoints.save(number, digest, weights(1), {})
    assert digest in models


def test_no_removal_takes_weights_that_a_record_names(tmp_path: Path) -> None:
    clock, named = FakeClock(), set[str]()
    models = ModelStore(tmp_path / "models", named=named.__contains__)
    checkpoints = Checkpoints(models, tmp_path / "states")
    pruned, held, cleared, own = (save(checkpoints, clock, number) for number in range(1, 5))
    assert pruned not in models
    models.save(weights(1))
    named |= {pruned, held, cleared}
    checkpoints.hold({pruned}, purpose="turns")
    checkpoints.hold((), purpose="turns")
    models.remove(held)
    checkpoints.clear()
    found = [digest in models for digest in (pruned, cleared, own)]
    assert found == [True, True, False]


def test_a_store_that_was_not_told_what_is_named_removes_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    digest = store.save(weights(1))
    store.remove(digest)
    assert digest in store


def test_a_model_is_what_its_name_says(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    digest = store.save(weights(5))
    loaded = store.load(digest)
    np.testing.assert_array_equal(loaded["w"], weights(5)["w"])
    assert loaded["n"].shape == ()
    path = tmp_path / "models" / f"{digest}.safetensors"
    other = store.save(weights(6))
    path.write_bytes((tmp_path / "models" / f"{other}.safetensors").read_bytes())
    with pytest.raises(StoreError) as caught:
        store.load(digest)
    assert caught.value.code == "model-damaged"
    path.write_bytes(b"\0" * 20)
    with pytest.raises(StoreError) as caught:
        store.load(digest)
    assert caught.value.code == "model-damaged"
    path.unlink()
    with pytest.raises(StoreError) as caught:
        store.load(digest)
    assert caught.value.code == "model-missing"
