"""Bytes and rows: durable before their case is there, and gone when it is refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from client.cases import keeping
from client.cases.accepted_image import accept_image
from client.cases.admission import Admitted
from client.cases.case import NewCase
from client.cases.image_store import ImageStore
from client.cases.store import Case, CaseStore, DuplicateCase
from common.errors import CaseRefused, ImageRefused, NotFound
from tests.client.cases.adding import add, images_on_disk, refusal
from tests.client.stores import TASK, picture


def test_a_refused_case_leaves_no_image(store: CaseStore, tmp_path: Path) -> None:
    kept = add(store, 1, patient_id="P", split="train")
    waiting = add(store, 2, patient_id="Q", label=None)
    assert refusal(store, 3, patient_id="P", split="holdout").code == "patient-split-conflict"
    assert refusal(store, 4, patient_id="x" * 10_000).code == "patient-id"
    bitmap, again = accept_image(picture(5, kind="BMP")), accept_image(picture(5))
    both = [NewCase(image, TASK, "P", "nv", "test") for image in (bitmap, again)]
    first, second = store.add_many(both)
    assert isinstance(first, Case)
    assert isinstance(second, DuplicateCase)
    assert images_on_disk(tmp_path / "site") == {kept.digest, waiting.digest, first.digest}


def test_bytes_that_another_task_names_outlive_a_refusal(store: CaseStore) -> None:
    add(store, 9, patient_id="Q", split="train")
    kept = add(store, 1, patient_id="P")
    fault = refusal(store, 1, patient_id="Q", task="other", split="holdout")
    assert fault.code == "patient-split-conflict"
    assert store.image_bytes(kept) == picture(1)


def test_images_that_are_none_leave_no_trace(store: CaseStore, tmp_path: Path) -> None:
    with pytest.raises(ImageRefused):
        store.add(b"no image", task=TASK, patient_id="P", label="nv", source="test")
    with pytest.raises(NotFound):
        store.withdraw_patient("P")
    assert not [p for p in (tmp_path / "site/data/images").rglob("*") if p.is_file()]


def test_bytes_are_durable_before_the_transaction_begins(
    store: CaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    class Watched(keeping.Admission):
        def admit(self, new: NewCase) -> Admitted | CaseRefused:
            found.append(len(list((tmp_path / "site/data/images").rglob(new.image.digest))))
            return super().admit(new)

    monkeypatch.setattr(keeping, "Admission", Watched)
    add(store, 1)
    assert found == [1]


def test_bytes_that_a_withdrawal_deleted_meanwhile_are_written_again(
    store: CaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many = ImageStore.put_many

    def overtaken(self: ImageStore, contents: Iterable[bytes]) -> list[str]:
        digests = put_many(self, contents)
        monkeypatch.setattr(ImageStore, "put_many", put_many)
        for digest in digests:
            self.remove(digest)
        return digests

    monkeypatch.setattr(ImageStore, "put_many", overtaken)
    assert store.image_bytes(add(store, 1)) == picture(1)
