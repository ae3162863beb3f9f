"""Bytes without a case are cleared away in time, and no case's bytes with them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from client.cases.image_store import ImageStore
from client.cases.leftovers import clear_leftovers
from client.cases.store import CaseStore
from tests.client.cases.adding import add, images_on_disk
from tests.client.stores import open_store, picture


@pytest.mark.parametrize("ages_hours", [0.5, 2])
def test_bytes_that_no_live_case_names_go_after_an_hour(
    tmp_path: Path, database_url: str, ages_hours: float
) -> None:
    """What a kill -9 between bytes and row leaves, perhaps of a patient who withdrew."""
    store = open_store(tmp_path / "site", database_url=database_url)
    kept, _ = add(store, 1, patient_id="P"), add(store, 2, patient_id="Q")
    store.withdraw_patient("Q")
    left = ImageStore(tmp_path / "site/data/images").put(picture(3))
    for digest in (kept.digest, left):
        path = tmp_path / "site/data/images" / digest[:2] / digest
        then = time.time() - ages_hours * 3600
        os.utime(path, (then, then))
    again = open_store(tmp_path / "site", database_url=database_url)
    spared = {left} if ages_hours < 1 else set()
    assert images_on_disk(tmp_path / "site") == {kept.digest} | spared
    assert again.image_bytes(kept) == picture(1)


def test_a_database_that_knows_too_little_costs_no_image(tmp_path: Path) -> None:
    """An empty database by mistake, or one of last year, must not empty the folder of images."""
    store = open_store(tmp_path / "site")
    digests = {add(store, seed).digest for seed in range(3)}
    for digest in digests:
        os.utime(tmp_path / "site/data/images" / digest[:2] / digest, (1, 1))
    other = f"sqlite:///{tmp_path}/other.sqlite"
    add(open_store(tmp_path / "site", database_url=other), 9)
    open_store(tmp_path / "site", database_url=other)
    assert digests < images_on_disk(tmp_path / "site")


def test_a_writer_whose_bytes_were_cleared_writes_them_again(
    store: CaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found them there (another's leftover, a day old), so wrote none; then they are cleared."""
    add(store, 2)
    images = ImageStore(tmp_path / "site/data/images")
    left = images.put(picture(1))
    os.utime(tmp_path / "site/data/images" / left[:2] / left, (1, 1))
    put_many = ImageStore.put_many

    def overtaken(self: ImageStore, contents: Iterable[bytes]) -> list[str]:
        digests = put_many(self, contents)
        monkeypatch.setattr(ImageStore, "put_many", put_many)
        assert clear_leftovers(store.transactions, images) == 1
        return digests

    monkeypatch.setattr(ImageStore, "put_many", overtaken)
    assert store.image_bytes(add(store, 1)) == picture(1)


def test_images_that_a_crash_left_after_a_withdrawal_are_removed_on_opening(
    tmp_path: Path, database_url: str
) -> None:
    store = open_store(tmp_path / "site", database_url=database_url)
    case = add(store, 1, patient_id="P")
    store.withdraw_patient("P")
    path = tmp_path / "site" / "data" / "images" / case.digest[:2] / case.digest
    path.write_bytes(picture(1))
    open_store(tmp_path / "site", database_url=database_url)
    assert not path.exists()
