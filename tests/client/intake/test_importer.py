"""Imports: three layouts, every kind of bad row, and a summary that tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.cases.accepted_image import AcceptedImage
from client.cases.store import Case, CaseStore, NewCase
from client.intake import importer
from client.intake.batches import checked_batches
from client.intake.importer import import_cases
from client.intake.source import CsvColumns, ImportSource, SourceRow
from common.errors import CaseRefused
from common.recipe import load_recipe
from tests.client.intake.sources import RECIPE, adds_up, warning_codes, write_csv, write_images
from tests.client.stores import TASK, make_site, open_store, picture


def test_one_hospital_of_several(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 4)
    rows = [f"{n}.png,{'nv' if n < 2 else 'mel'},{'ab'[n % 2]}" for n in range(4)]
    write_csv(data, "file,label,site", *rows)
    summary = import_cases(store, RECIPE, ImportSource(data, site="a"))
    assert (summary.kept, summary.left_out) == (2, 2)
    nobody = import_cases(store, RECIPE, ImportSource(data, site="c"))
    assert (nobody.kept, nobody.left_out) == (0, 4)
    assert summary.suggested_declaration == 5
    assert "Sites there: a, b" in next(w.message for w in nobody.warnings)
    shared = import_cases(store, RECIPE, ImportSource(data), keep=lambda row: row.file == "1.png")
    assert (shared.kept, shared.left_out) == (1, 3)


def test_empty_and_one_class_sites_are_told(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 2)
    empty = import_cases(store, RECIPE, write_csv(data, "file,label"))
    assert warning_codes(empty) == {"no-cases"}
    assert empty.majority_baseline is None
    assert (empty.training_patients, empty.suggested_declaration) == (0, 0)
    rows = ("0.png,nv,train,a", "1.png,nv,test,b")
    source = write_csv(data, "file,label,split,patient_id", *rows)
    assert warning_codes(import_cases(store, RECIPE, source)) == {"one-class"}


def test_a_class_that_is_wholly_absent_is_told_like_one_that_a_side_lacks(
    store: CaseStore, tmp_path: Path
) -> None:
    data = write_images(tmp_path / "data", 4)
    rows = ("0.png,nv,train,a", "1.png,nv,test,b", "2.png,mel,train,c")
    source = write_csv(data, "file,label,split,patient_id", *rows)
    told = {w.code: w.message for w in import_cases(store, RECIPE, source).warnings}
    assert "no case of mel" in told["holdout-class-missing"]
    absent = [label for label in RECIPE.classes if label not in ("nv", "mel")]
    assert f"no case of {', '.join(absent)} at all" in told["class-missing"]


def test_one_image_is_no_images(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 1)
    source = write_csv(data, "file,label,patient_id", "0.png,nv,")
    told = {w.code: w.message for w in import_cases(store, RECIPE, source).warnings}
    assert told["patients-unnamed"].startswith("1 image names no patient")


def test_images_that_name_no_patient_are_told(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 3)
    source = write_csv(data, "file,label,patient_id", "0.png,nv,a", "1.png,nv,", "2.png,nv,")
    told = {w.code: w.message for w in import_cases(store, RECIPE, source).warnings}
    assert told["patients-unnamed"].startswith("2 images name no patient")


def test_importing_again_adds_nothing(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 5)
    source = write_csv(data, "file,label", *[f"{n % 4}.png,nv" for n in range(5)])
    first = import_cases(store, RECIPE, source)
    again = import_cases(store, RECIPE, source)
    assert (first.kept, first.duplicates, first.already_present) == (4, 1, 0)
    assert (again.kept, again.duplicates, again.already_present) == (0, 1, 4)
    assert first.class_balance == again.class_balance
    assert adds_up(again)


def test_into_a_site_folder_with_progress(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 3)
    source = write_csv(data, "file,label", *[f"{n}.png,nv" for n in range(3)])
    seen: list[tuple[int, int]] = []
    site = make_site(tmp_path / "site")
    summary = import_cases(site, RECIPE, source, progress=lambda *step: seen.append(step))
    assert summary.kept == 3
    assert seen == [(3, 3)]


def test_a_batch_ends_before_its_files_fill_the_memory(
    store: CaseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for n in range(20):
        (data / f"{n}.png").write_bytes(picture(n, side=130))  # noise, 50 kB and more
    source = write_csv(data, "file,label", *[f"{n}.png,nv" for n in range(20)])
    held: list[int] = []
    earlier: list[weakref.ref[AcceptedImage]] = []
    real = store.add_many

    def watched(cases: Sequence[NewCase]) -> list[Case | CaseRefused]:
        earlier.extend(weakref.ref(case.image) for case in cases)
        held.append(sum(len(case.image.data) for case in cases))
        return real(cases)

    monkeypatch.setattr(store, "add_many", watched)
    monkeypatch.setattr(importer, "BATCH_BYTES", 200_000)
    left: list[int] = []

    def read(_row: SourceRow) -> bool:
        left.append(sum(image() is not None for image in earlier))
        return True

    assert import_cases(store, RECIPE, source, keep=read).kept == 20
    assert max(left) <= 1  # of stored files, when the next row is read
    assert len(held) >= 5
    assert max(held) < 200_000 + 60_000


def test_rows_are_read_no_further_than_the_batch_and_a_few_ahead() -> None:
    read: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        batches = checked_batches(
            pool, rows(), lambda n: -n, ahead=2, most_rows=10, most_bytes=50, size=lambda _: 10
        )
        assert next(batches) == [(n, -n) for n in range(5)]
        assert len(read) == 7
        assert [len(batch) for batch in batches] == [5] * 19
    assert read == list(range(100))


_IMPORTER = """
import sys
from pathlib import Path
from client.intake import importer as intake
from client.intake.source import ImportSource
from tests.client.stores import open_store
from common.recipe import load_recipe
intake.BATCH_ROWS = 5
store = open_store(Path(sys.argv[1]))
intake.import_cases(store, load_recipe("dermoscopy"), ImportSource(Path(sys.argv[2])),
                    progress=lambda done, total: print(done, flush=True))
"""


def test_an_import_killed_in_the_middle_is_simply_run_again(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 300)
    source = write_csv(data, "file,label", *[f"{n}.png,nv" for n in range(300)])
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _IMPORTER, str(tmp_path / "site"), str(data)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    ) as child:
        assert child.stdout is not None
        for _ in range(2):
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    store = open_store(tmp_path / "site")
    kept = store.counts(TASK).confirmed
    assert 10 <= kept < 300
    summary = import_cases(store, RECIPE, source)
    assert (summary.already_present, summary.kept) == (kept, 300 - kept)
    cases = store.training_cases(TASK) + store.holdout_cases(TASK)
    assert len([store.image_bytes(case) for case in cases]) == 300


# Real data


@pytest.mark.skipif("WARDROUND_TEST_DATA" not in os.environ, reason="WARDROUND_TEST_DATA not set")
def test_real_ultrasound_brings_its_known_faults(store: CaseStore) -> None:
    data = Path(os.environ["WARDROUND_TEST_DATA"]) / "breast_ultrasound_256"
    if not data.is_dir():
        pytest.skip("no breast_ultrasound_256 there")
    recipe = load_recipe("breast-ultrasound")
    source = ImportSource(data, columns=CsvColumns(patient="group_id"))
    summary = import_cases(store, recipe, source)
    assert (summary.rows, summary.kept) == (624, 514)
    assert summary.refused_by_code == {"case-conflict": 1, "label-optional": 109}
    assert "label-leak" in warning_codes(summary)
