"""Class-per-folder trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cases.store import CaseStore
from client.intake.importer import import_cases
from client.intake.source import ImportSource
from common.errors import InputRefused
from tests.client.intake.sources import RECIPE, write_images
from tests.client.stores import TASK, picture


def test_a_tree_of_classes(store: CaseStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_images(data / "nv" / "deeper", 2)
    (data / "mel").mkdir()
    (data / "mel" / "17_left.jpg").write_bytes(picture(50, kind="JPEG"))
    (data / "mel" / ".DS_Store").write_bytes(b"x")
    (data / "other").mkdir()
    (data / "other" / "x.png").write_bytes(picture(51))
    (data / "README.txt").write_text("not in a class")
    summary = import_cases(store, RECIPE, ImportSource(data, patient_pattern=r"^(\d+)_"))
    assert (summary.rows, summary.kept, summary.patients) == (4, 3, 1)
    assert summary.refused_by_code == {"label-unknown": 1}


def test_a_tree_of_splits_of_classes(store: CaseStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for n, folder in enumerate(("train/nv", "train/mel", "test/nv", "val/mel")):
        (data / folder).mkdir(parents=True)
        (data / folder / "a.png").write_bytes(picture(n))
    summary = import_cases(store, RECIPE, ImportSource(data))
    assert summary.kept == 4
    assert (store.counts(TASK).train, store.counts(TASK).holdout) == (2, 2)


def test_trees_that_cannot_be_used(store: CaseStore, tmp_path: Path) -> None:
    for folder, code in ((tmp_path / "absent", "data-missing"), (tmp_path / "e", "data-layout")):
        (tmp_path / "e").mkdir(exist_ok=True)
        with pytest.raises(InputRefused) as caught:
            import_cases(store, RECIPE, ImportSource(folder))
        assert caught.value.code == code
    (tmp_path / "e" / "nv").mkdir()
    for pattern in ("(", "no group"):
        with pytest.raises(InputRefused):
            import_cases(store, RECIPE, ImportSource(tmp_path / "e", patient_pattern=pattern))
