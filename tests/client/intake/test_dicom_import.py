"""Folders of DICOM files: labels by instance, path or not at all; patients stay together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from client.cases.store import CaseStore
from client.dicom.intake import DicomIntake
from client.intake.importer import import_cases
from client.intake.source import ImportSource
from common.recipe import load_recipe
from tests.client.dicom.files import NUMBER, PLANTED, dataset, file_bytes, planted
from tests.client.dicom.in_process import InProcessDecoder
from tests.client.stores import TASK, open_store, picture

RECIPE = load_recipe(TASK)
INTAKE = DicomIntake(InProcessDecoder(), ("XC",))


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    return open_store(tmp_path / "site")


def image(seed: int, **fields: object) -> Dataset:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return planted(dataset(pixels, **fields))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "study").mkdir(parents=True)
    first, second, third = image(1), image(2), image(3, PatientID="MRN-2")
    (folder / "study" / "IM1").write_bytes(file_bytes(first))
    (folder / "study" / "IM2").write_bytes(file_bytes(second))
    (folder / "IM3").write_bytes(file_bytes(third))
    (folder / "IM4").write_bytes(file_bytes(image(4, Modality="CT")))
    (folder / "DICOMDIR").write_bytes(b"not read")
    rows = ("file,label", f"{first.SOPInstanceUID},mel", "IM2,nv")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def test_labels_by_instance_or_name_or_none(tree: Path, store: CaseStore) -> None:
    source = ImportSource(tree, layout="dicom")
    summary = import_cases(store, RECIPE, source, dicom=INTAKE)
    assert (summary.rows, summary.kept, summary.refused_by_code) == (4, 3, {"dicom-modality": 1})
    counts = store.counts(TASK)
    assert (counts.confirmed, counts.waiting) == (2, 1)
    assert {case.label for case in (*store.training_cases(TASK), *store.holdout_cases(TASK))} == {
        "mel",
        "nv",
    }
    assert summary.patients == 2  # IM1 and IM2 show one patient: one side for both
    assert counts.train_patients + counts.holdout_patients == 1
    again = import_cases(store, RECIPE, source, dicom=INTAKE)
    assert (again.kept, again.already_present) == (0, 3)


def test_without_labels_all_wait(tree: Path, store: CaseStore) -> None:
    (tree / "labels.csv").unlink()
    summary = import_cases(store, RECIPE, ImportSource(tree, layout="dicom"), dicom=INTAKE)
    assert (summary.kept, store.counts(TASK).waiting) == (3, 3)


def test_nothing_of_a_header_is_kept(tree: Path, tmp_path: Path, store: CaseStore) -> None:
    source = ImportSource(tree, layout="dicom", show_files=False)
    summary = import_cases(store, RECIPE, source, dicom=INTAKE)
    store.close()
    kept = b"".join(p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file())
    for word in (*PLANTED, NUMBER):
        assert word.encode() not in kept
        assert word not in summary.model_dump_json()


def test_a_csv_of_pictures_may_name_dicom_files(tmp_path: Path, store: CaseStore) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(file_bytes(image(1)))
    (folder / "b.png").write_bytes(picture(2))
    (folder / "labels.csv").write_text("file,label\na.dcm,mel\nb.png,nv\n")
    summary = import_cases(store, RECIPE, ImportSource(folder), dicom=INTAKE)
    assert (summary.kept, summary.patients) == (2, 1)
    case = next(c for c in store.training_cases(TASK) + store.holdout_cases(TASK) if c.sex)
    assert (case.label, case.sex, case.age_band) == ("mel", "female", "40-49")


def test_a_csv_that_contradicts_itself_is_refused(tree: Path, store: CaseStore) -> None:
    (tree / "labels.csv").write_text("file,label\nIM2,nv\nIM2,mel\n")
    with pytest.raises(Exception, match="two labels"):
        import_cases(store, RECIPE, ImportSource(tree, layout="dicom"), dicom=INTAKE)


def names(tree: Path, *rows: str) -> ImportSource:
    """Two patients whose files have one name, as on every DICOM medium, and a CSV."""
    for number in (1, 2):
        patient = image(number, PatientID=f"MRN-{number}")
        patient.SOPInstanceUID = f"1.2.3.{number}"
        (tree / f"PAT{number}").mkdir(parents=True)
        (tree / f"PAT{number}" / "IM0001").write_bytes(file_bytes(patient))
    (tree / "labels.csv").write_text("\n".join(("file,label", *rows)))
    return ImportSource(tree, layout="dicom")


def test_a_bare_name_that_several_files_have_labels_none(tmp_path: Path, store: CaseStore) -> None:
    summary = import_cases(store, RECIPE, names(tmp_path / "d", "IM0001,mel"), dicom=INTAKE)
    assert (summary.kept, summary.refused_by_code) == (0, {"label-ambiguous": 2})


@pytest.mark.parametrize("named", ["PAT1/IM0001", "1.2.3.1"], ids=["path", "uid"])
def test_a_path_or_uid_labels_its_file_whatever_the_name_does(
    named: str, tmp_path: Path, store: CaseStore
) -> None:
    source = names(tmp_path / "d", f"{named},nv", "IM0001,mel")
    summary = import_cases(store, RECIPE, source, dicom=INTAKE)
    assert (summary.kept, summary.refused_by_code) == (1, {"label-ambiguous": 1})
    assert [c.label for c in (*store.training_cases(TASK), *store.holdout_cases(TASK))] == ["nv"]


def test_a_path_and_a_uid_that_differ_label_nothing(tmp_path: Path, store: CaseStore) -> None:
    source = names(tmp_path / "d", "PAT1/IM0001,nv", "1.2.3.1,mel")
    summary = import_cases(store, RECIPE, source, dicom=INTAKE)
    assert (summary.kept, summary.refused_by_code) == (1, {"label-ambiguous": 1})
    assert store.counts(TASK).waiting == 1  # the other has no label
