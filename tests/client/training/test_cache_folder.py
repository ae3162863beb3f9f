"""What was prepared is forgotten without waiting for whoever holds it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from client.training.cache_folder import forget_marked, forget_prepared, locked, prepared_folders
from client.training.pixel_cache import PixelCache
from common.errors import StoreError
from common.recipe import ImageSpec
from tests.client.training.test_dataset import Images, make_case

SPEC = ImageSpec(size=32)


def prepare_some(folder: Path, task: str = "toy") -> None:
    PixelCache(folder, task, SPEC).load([make_case(1), make_case(2)], Images())
    assert prepared_folders(folder, task)


def marks(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.forget")]


def test_nobody_waits_for_who_holds_it_and_it_goes_with_the_holder(tmp_path: Path) -> None:
    prepare_some(tmp_path)
    with locked(tmp_path, "toy"):
        assert not forget_prepared(tmp_path, "toy")
        assert (tmp_path / "toy.forget").stat().st_mode & 0o777 == 0o600
    assert prepared_folders(tmp_path, "toy") == []
    assert marks(tmp_path) == []


def test_it_goes_also_where_the_holder_failed(tmp_path: Path) -> None:
    prepare_some(tmp_path)

    def fail() -> None:
        with locked(tmp_path, "toy"):
            forget_prepared(tmp_path, "toy", seconds=0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert prepared_folders(tmp_path, "toy") == []


@pytest.mark.parametrize("by", ["the next to load", "the next start"])
def test_where_the_holder_died_the_next_obeys(tmp_path: Path, by: str) -> None:
    prepare_some(tmp_path)
    with (tmp_path / "toy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not forget_prepared(tmp_path, "toy", seconds=0)
        forget_marked(tmp_path)
        assert marks(tmp_path) == ["toy.forget"]  # it is held still
    assert prepared_folders(tmp_path, "toy")
    images = Images()
    if by == "the next start":
        forget_marked(tmp_path)
        assert prepared_folders(tmp_path, "toy") == []
    else:
        PixelCache(tmp_path, "toy", SPEC).load([make_case(2)], images)
        assert images.reads == [make_case(2).id]  # what was there before is not used
    assert marks(tmp_path) == []


def test_what_nobody_holds_goes_at_once(tmp_path: Path) -> None:
    prepare_some(tmp_path)
    assert forget_prepared(tmp_path, "toy")
    assert prepared_folders(tmp_path, "toy") == []
    assert marks(tmp_path) == []


def test_a_task_whose_name_begins_alike_keeps_its_own(tmp_path: Path) -> None:
    prepare_some(tmp_path, "toy-two")
    prepare_some(tmp_path)
    PixelCache(tmp_path, "toy", ImageSpec(size=64)).load([make_case(3)], Images())
    assert prepared_folders(tmp_path, "toy-two")
    assert forget_prepared(tmp_path, "toy")
    assert prepared_folders(tmp_path, "toy-two")


def test_a_cache_that_cannot_be_emptied_says_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match="cannot be emptied"):
        forget_prepared(tmp_path / "cache", "toy")
