"""Cases: kept once, under pseudonyms, and on one side of the split."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from client.cases.accepted_image import accept_image
from client.cases.case import NewCase
from client.cases.pseudonyms import Pseudonyms
from client.cases.store import Case, CaseStore, DuplicateCase
from common.errors import CaseRefused, ConfigurationError, NotFound, StoreError
from tests.client.cases.adding import CLASSES, add, refusal
from tests.client.stores import TASK, make_site, open_store, picture


def test_a_case_comes_back_as_it_went_in(store: CaseStore) -> None:
    case = add(store, 1, patient_id="P-77", age="045Y", sex="W", split="holdout")
    assert (case.label, case.status, case.split) == ("nv", "confirmed", "holdout")
    assert (case.age_band, case.sex) == ("40-49", "female")
    assert case.created_at.tzinfo is UTC
    assert store.get(case.id) == case
    assert store.image_bytes(case) == picture(1)
    assert store.holdout_cases(TASK) == [case]
    assert store.training_cases(TASK) == store.holdout_cases("other") == []


def test_without_a_label_it_waits_for_one(store: CaseStore) -> None:
    case = add(store, 1, label=None)
    assert (case.status, case.confirmed_at) == ("waiting", None)
    assert store.waiting_cases(TASK) == [case]
    assert store.training_cases(TASK) == store.holdout_cases(TASK) == []
    confirmed = store.confirm(case.id, "mel", classes=CLASSES)
    assert (confirmed.status, confirmed.label) == ("confirmed", "mel")
    assert store.confirm(case.id, "mel", classes=CLASSES) == confirmed
    assert store.waiting_cases(TASK) == []
    with pytest.raises(CaseRefused) as caught:
        store.confirm(case.id, "nv", classes=CLASSES)
    assert caught.value.code == "case-already-confirmed"
    with pytest.raises(CaseRefused) as caught:
        store.confirm(case.id, "naevus", classes=CLASSES)
    assert caught.value.code == "label-unknown"
    with pytest.raises(NotFound):
        store.confirm("0" * 32, "nv", classes=CLASSES)
    assert store.get(case.id) == confirmed


def test_the_same_image_is_kept_once(store: CaseStore) -> None:
    case = add(store, 1, patient_id="P")
    duplicate = refusal(store, 1, patient_id="P")
    assert isinstance(duplicate, DuplicateCase)
    assert duplicate.case == case
    assert refusal(store, 1, patient_id="Q").code == "case-conflict"
    assert refusal(store, 1, patient_id="P", label="mel").code == "case-conflict"
    assert add(store, 1, patient_id="P", task="other").digest == case.digest


def test_the_same_pixels_in_another_file_are_the_same_image(store: CaseStore) -> None:
    add(store, 1)
    with pytest.raises(DuplicateCase):
        store.add(picture(1, kind="BMP"), task=TASK, patient_id=None, label="nv", source="test")


def test_a_label_that_comes_later_confirms(store: CaseStore) -> None:
    waiting = add(store, 1, label=None)
    confirmed = add(store, 1, label="mel")
    assert (confirmed.id, confirmed.status, confirmed.label) == (waiting.id, "confirmed", "mel")


def test_a_patient_stays_on_one_side(store: CaseStore) -> None:
    first = add(store, 1, patient_id="P", split="holdout")
    assert add(store, 2, patient_id=" P ").split == "holdout"
    assert refusal(store, 3, patient_id="P", split="train").code == "patient-split-conflict"
    assert refusal(store, 1, patient_id="P", split="train").code == "patient-split-conflict"
    assert {c.patient for c in store.holdout_cases(TASK)} == {first.patient}
    assert store.training_cases(TASK) == []


def test_a_changed_holdout_fraction_moves_nobody(tmp_path: Path, database_url: str) -> None:
    folder = tmp_path / "site"
    store = open_store(folder, database_url=database_url, holdout_fraction=0.0)
    assert add(store, 1, patient_id="P").split == "train"
    later = open_store(folder, database_url=database_url, holdout_fraction=0.9)
    assert add(later, 2, patient_id="P").split == "train"


def test_one_batch_keeps_patients_and_images_apart_too(store: CaseStore) -> None:
    def new(seed: int, patient: str, split: str | None) -> NewCase:
        image = accept_image(picture(seed))
        return NewCase(image, TASK, patient, "nv", "test", split=split)  # type: ignore[arg-type]

    results = store.add_many([new(1, "P", "train"), new(2, "P", "holdout"), new(1, "P", None)])
    assert isinstance(results[0], Case)
    assert isinstance(results[1], CaseRefused)
    assert results[1].code == "patient-split-conflict"
    assert isinstance(results[2], DuplicateCase)
    assert results[2].case == results[0]
    assert store.add_many([]) == []


def test_counts(store: CaseStore) -> None:
    add(store, 1, patient_id="P", split="train")
    add(store, 2, patient_id="P", split="train", label="mel")
    add(store, 3, patient_id="Q", split="holdout")
    add(store, 4, label=None)
    counts = store.counts(TASK)
    assert (counts.waiting, counts.confirmed, counts.withdrawn) == (1, 3, 0)
    assert (counts.train, counts.holdout) == (2, 1)
    assert (counts.train_patients, counts.holdout_patients) == (1, 1)
    assert [(c.label, c.train, c.holdout) for c in counts.classes] == [("mel", 1, 0), ("nv", 1, 1)]
    assert store.counts("other").confirmed == 0


def test_the_order_is_that_of_the_digests(store: CaseStore) -> None:
    for seed in range(12):
        add(store, seed, split="train")
    digests = [case.digest for case in store.training_cases(TASK)]
    assert len(digests) == 12
    assert digests == sorted(digests)


def test_nothing_on_disk_names_the_patient(tmp_path: Path) -> None:
    store = open_store(tmp_path / "site")
    info = PngImagePlugin.PngInfo()
    info.add_text("PatientName", "DOE-JANE-1954")
    Image.new("RGB", (32, 32), (5, 6, 7)).save(tmp_path / "DOE-JANE-1954.png", pnginfo=info)
    image = (tmp_path / "DOE-JANE-1954.png").read_bytes()
    case = store.add(image, task=TASK, patient_id="MRN-DOE-JANE-1954", label="nv", source="test")
    store.close()
    for path in (tmp_path / "site").rglob("*"):
        if path.is_file():
            assert b"DOE-JANE" not in path.read_bytes(), path
    assert case.patient != Pseudonyms(b"\0" * 32).patient("MRN-DOE-JANE-1954")


def test_another_key_does_not_open_the_store(tmp_path: Path, database_url: str) -> None:
    folder = tmp_path / "site"
    open_store(folder, database_url=database_url).close()
    (folder / "keys" / "pseudonyms").unlink()
    with pytest.raises(ConfigurationError) as caught:
        open_store(folder, database_url=database_url)
    assert caught.value.code == "pseudonym-key"


def test_a_failing_database_is_a_store_error(tmp_path: Path) -> None:
    settings = make_site(tmp_path / "site", database_url="postgresql://nobody@/x?host=/nowhere")
    with pytest.raises(StoreError):
        CaseStore.open(settings)


def test_a_lost_image_is_a_store_error(store: CaseStore, tmp_path: Path) -> None:
    case = add(store, 1)
    (tmp_path / "site" / "data" / "images" / case.digest[:2] / case.digest).unlink()
    with pytest.raises(StoreError) as caught:
        store.image_bytes(case)
    assert caught.value.code == "image-missing"
