"""Imports: three layouts, every kind of bad row, and a summary that tells."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from client.cases.store import CaseStore
from client.intake.checks import NamedLabel, count_near_duplicates, label_leaks
from client.intake.importer import import_cases
from client.intake.labels import LabelReader
from client.intake.source import CsvColumns, ImportSource
from client.intake.summary import ImportSummary
from common.errors import CaseRefused, InputRefused
from common.recipe import load_recipe
from tests.client.stores import TASK, make_site, open_store, picture

RECIPE = load_recipe(TASK)


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    return open_store(tmp_path / "site")


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        (folder / f"{n}.png").write_bytes(picture(n))
    return folder


def write_csv(data: Path, *lines: str, encoding: str = "utf-8") -> ImportSource:
    (data / "labels.csv").write_text("\n".join(lines) + "\n", encoding=encoding)
    return ImportSource(data)


def warning_codes(summary: ImportSummary) -> set[str]:
    return {warning.code for warning in summary.warnings}


def adds_up(summary: ImportSummary) -> bool:
    parts = (summary.kept, summary.already_present, summary.duplicates)
    return summary.rows == sum(parts) + summary.left_out + summary.refused_count


@contextmanager
def suppress_refusal(*codes: str) -> Iterator[None]:
    """Let refusals with these codes pass; every other error fails the test."""
    try:
        yield
    except InputRefused as error:
        if error.code not in codes:
            raise


# Labels CSV


def test_a_csv_with_every_column(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 3)
    source = write_csv(
        data,
        "file,label,patient_id,site,age,sex,split",
        "0.png,nv,P1,a,44,F,train",
        "1.png,MEL ,P2,a,91,male,test",
        "2.png,bcc,P3,a,,,valid",
    )
    summary = import_cases(store, RECIPE, source)
    assert (summary.rows, summary.kept, summary.refused_count) == (3, 3, 0)
    assert summary.patients == 3
    (train,) = store.training_cases(TASK)
    assert (train.label, train.age_band, train.sex) == ("nv", "40-49", "female")
    assert {(c.label, c.age_band) for c in store.holdout_cases(TASK)} == {
        ("mel", "90+"),
        ("bcc", None),
    }
    assert summary.majority_baseline == 0.5
    assert [(b.label, b.train, b.holdout) for b in summary.class_balance if b.train] == [
        ("nv", 1, 0)
    ]


def test_a_bom_semicolons_and_other_column_names(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 2)
    write_csv(data, "path;dx;grp", "0.png;nv;7", "1.png;mel;7", encoding="utf-8-sig")
    columns = CsvColumns(file="path", label="dx", patient="grp")
    summary = import_cases(store, RECIPE, ImportSource(data, columns=columns))
    assert (summary.kept, summary.patients) == (2, 1)


def test_one_bad_row_never_stops_the_rest(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 6)
    (data / "text.png").write_text("I am text")
    jpeg = picture(9, kind="JPEG")
    (data / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (50_000).to_bytes(4, "big") * 2
    (data / "bomb.png").write_bytes(header + b"\x08\x02\0\0\0")
    (tmp_path / "outside.png").write_bytes(picture(99))
    (data / "link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(data / "pipe.png")
    source = write_csv(
        data,
        "file,label,patient_id,split",  # 1
        "0.png,nv,P0,train",
        "text.png,nv,,",  # 3
        "half.jpg,nv,,",
        "bomb.png,nv,,",  # 5
        "absent.png,nv,,",
        "../outside.png,nv,,",  # 7
        f"{tmp_path}/outside.png,nv,,",
        "link.png,nv,,",  # 9
        "pipe.png,nv,,",
        "1.png,naevus,,",  # 11
        "1.png,,,",
        "1.png,nv",  # 13
        "1.png,nv,P0,test",
        "1.png,nv,P1,fold9",  # 15
        ",nv,,",
        "a\0b.png,nv,,",  # 17
        ".,nv,,",
        "2.png,mel,P2,test",  # 19
        "2.png,mel,P2,test",
        "2.png,nv,P2,test",  # 21
        f"3.png,nv,{'x' * 300},",
        '"4.png,nv,P4,',  # 23: a quote that never closes
    )
    summary = import_cases(store, RECIPE, source)
    assert {(line.row, line.code) for line in summary.refused} == {
        (3, "image-unreadable"),
        (4, "image-truncated"),
        (5, "image-too-large"),
        (6, "file-missing"),
        (7, "file-outside"),
        (8, "file-outside"),
        (9, "file-outside"),
        (10, "file-missing"),
        (11, "label-unknown"),
        (12, "label-missing"),
        (13, "row-malformed"),
        (14, "patient-split-conflict"),
        (15, "split-unknown"),
        (16, "file-missing"),
        (17, "file-unreadable"),
        (18, "file-missing"),
        (21, "case-conflict"),
        (22, "patient-id"),
        (23, "row-malformed"),
    }
    assert (summary.kept, summary.duplicates) == (2, 1)
    assert summary.patients_in_two_splits == 1
    assert "patients-in-two-splits" in warning_codes(summary)
    assert sum(summary.refused_by_code.values()) == summary.refused_count == 19
    assert adds_up(summary)


def test_row_numbers_are_those_of_a_spreadsheet(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 2)
    source = write_csv(data, "file,label,note", "0.png,nv,", "", '1.png,x,"two\nlines"', "9.png,y,")
    summary = import_cases(store, RECIPE, source)
    assert [line.row for line in summary.refused] == [4, 5]


def test_refused_rows_name_no_file_unless_asked(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 1)
    source = write_csv(data, "file,label,patient_id", "DOE-JANE.png,nv,MRN-1954")
    document = import_cases(store, RECIPE, source).model_dump_json()
    assert "DOE" not in document
    assert "MRN" not in document
    shown = import_cases(store, RECIPE, ImportSource(data, show_files=True))
    assert shown.refused[0].file == "DOE-JANE.png"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "labels-empty"),
        (b"name,label\na,b\n", "labels-column"),
        (b"file,name\na,b\n", "labels-column"),
        (b"file,label\n\xff\xfe,nv\n", "labels-encoding"),
    ],
)
def test_a_csv_that_cannot_be_used_at_all(
    store: CaseStore, tmp_path: Path, content: bytes, code: str
) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputRefused) as caught:
        import_cases(store, RECIPE, ImportSource(tmp_path))
    assert caught.value.code == code


def test_a_column_named_by_hand_must_exist(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 1)
    write_csv(data, "file,label,fold", "0.png,nv,train")
    with pytest.raises(InputRefused, match="--split-column"):
        import_cases(store, RECIPE, ImportSource(data, columns=CsvColumns(split="flod")))
    with pytest.raises(InputRefused, match="--site-column"):
        import_cases(store, RECIPE, ImportSource(data, site="a"))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=200))
def test_any_csv_gives_a_summary_or_a_refusal(
    store: CaseStore, tmp_path: Path, tail: bytes
) -> None:
    (tmp_path / "labels.csv").write_bytes(b"file,label,patient_id,split\n" + tail)
    with suppress_refusal("labels-encoding"):
        assert adds_up(import_cases(store, RECIPE, ImportSource(tmp_path)))


# Sites, patients, repetition


def test_one_hospital_of_several(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 4)
    rows = [f"{n}.png,{'nv' if n < 2 else 'mel'},{'ab'[n % 2]}" for n in range(4)]
    write_csv(data, "file,label,site", *rows)
    summary = import_cases(store, RECIPE, ImportSource(data, site="a"))
    assert (summary.kept, summary.left_out) == (2, 2)
    nobody = import_cases(store, RECIPE, ImportSource(data, site="c"))
    assert (nobody.kept, nobody.left_out) == (0, 4)
    assert "Sites there: a, b" in next(w.message for w in nobody.warnings)
    shared = import_cases(store, RECIPE, ImportSource(data), keep=lambda row: row.file == "1.png")
    assert (shared.kept, shared.left_out) == (1, 3)


def test_empty_and_one_class_sites_are_told(store: CaseStore, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 2)
    empty = import_cases(store, RECIPE, write_csv(data, "file,label"))
    assert warning_codes(empty) == {"no-cases"}
    assert empty.majority_baseline is None
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


# Class tree


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


# npz


def write_npz(path: Path, *, count: int = 6, **changes: object) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, object] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez_compressed(path, **{**arrays, **changes})  # type: ignore[arg-type]
    return path


def test_a_medmnist_npz(store: CaseStore, tmp_path: Path) -> None:
    source = ImportSource(write_npz(tmp_path / "d.npz"), class_order=("mel", "nv"))
    summary = import_cases(store, RECIPE, source)
    assert (summary.rows, summary.kept) == (18, 18)
    balance = {b.label: (b.train, b.holdout) for b in summary.class_balance if b.train}
    assert balance == {"mel": (3, 6), "nv": (3, 6)}
    with np.load(source.data) as arrays:
        stored = {
            np.asarray(Image.open(io.BytesIO(store.image_bytes(c)))).tobytes(): c.label
            for c in store.training_cases(TASK)
        }
        assert [stored[image.tobytes()] for image in arrays["train_images"]] == ["mel", "nv"] * 3


def test_a_grey_npz(store: CaseStore, tmp_path: Path) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (6, 28, 28), np.uint8)
    path = write_npz(tmp_path / "d.npz", train_images=grey)
    assert import_cases(store, RECIPE, ImportSource(path, class_order=("mel", "nv"))).kept == 18


def test_numbers_are_never_guessed_to_be_classes(store: CaseStore, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz")
    with pytest.raises(InputRefused, match="--class-order"):
        import_cases(store, RECIPE, ImportSource(path))
    one = import_cases(store, RECIPE, ImportSource(path, class_order=("mel",)))
    assert one.refused_by_code == {"label-unknown": 9}


@pytest.mark.parametrize(
    "changes",
    [
        {"train_images": np.array([{"a": 1}] * 6, object)},
        {"train_labels": np.array(["nv"] * 6, object)},
        {"train_images": np.zeros((6, 28, 28, 3), np.float32)},
        {"train_images": np.zeros((6, 28), np.uint8)},
        {"train_labels": np.zeros((5, 1), np.uint8)},
        {"train_labels": np.zeros((6, 2), np.uint8)},
        {"train_labels": np.zeros(6, np.float32)},
    ],
)
def test_other_npz_are_refused(
    store: CaseStore, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = write_npz(tmp_path / "d.npz", **changes)
    with pytest.raises(InputRefused) as caught:
        import_cases(store, RECIPE, ImportSource(path, class_order=("mel", "nv")))
    assert caught.value.code in {"npz-layout", "npz-unreadable"}


def test_a_damaged_npz_keeps_what_came_before(store: CaseStore, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", count=40)
    data = bytearray(path.read_bytes())
    place = data.index(b"val_images.npy") + 60_000
    data[place : place + 400] = b"\xaa" * 400
    path.write_bytes(data)
    summary = import_cases(store, RECIPE, ImportSource(path, class_order=("mel", "nv")))
    assert 40 <= summary.kept < 120
    assert "source-broken" in warning_codes(summary)


@pytest.mark.parametrize("header", [b"{'descr'(", b"  x\n y", b"\x00", b"((((", b"'" * 3])
def test_an_npz_whose_header_is_no_python_is_refused(
    store: CaseStore, tmp_path: Path, header: bytes
) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for name in ("train_images.npy", "train_labels.npy"):
            start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
            archive.writestr(name, start + header)
    with pytest.raises(InputRefused) as caught:
        import_cases(store, RECIPE, ImportSource(tmp_path / "d.npz", class_order=("mel", "nv")))
    assert caught.value.code == "npz-unreadable"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(0, 1))
def test_a_mutated_npz_gives_a_summary_or_a_refusal(
    store: CaseStore, tmp_path: Path, changes: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(write_npz(tmp_path / "d.npz", count=2).read_bytes())
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    (tmp_path / "m.npz").write_bytes(data[: int(cut * len(data))] if cut < 0.2 else data)
    source = ImportSource(tmp_path / "m.npz", class_order=("mel", "nv"))
    with suppress_refusal("npz-unreadable", "npz-layout"):
        assert adds_up(import_cases(store, RECIPE, source))


# Labels


def test_labels_are_read_exactly_then_without_case_then_by_alias() -> None:
    reader = LabelReader(RECIPE, {"Melanoma in situ": "mel"}, ("nv", "mel"))
    assert reader.read("nv") == reader.read(" NV ") == reader.read("0") == "nv"
    assert reader.read("melanoma IN SITU") == reader.read("1") == "mel"
    for label, code in (
        ("2", "label-unknown"),
        ("9" * 5000, "label-unknown"),
        ("", "label-missing"),
    ):
        with pytest.raises(CaseRefused) as caught:
            reader.read(label)
        assert caught.value.code == code


def test_optional_classes_are_left_out_and_told_apart() -> None:
    reader = LabelReader(load_recipe("breast-ultrasound"), {"healthy": "normal"}, ())
    for label in ("normal", "healthy"):
        with pytest.raises(CaseRefused) as caught:
            reader.read(label)
        assert caught.value.code == "label-optional"


def test_aliases_must_lead_to_classes() -> None:
    for aliases, order in (({"x": "naevus"}, ()), ({}, ("nv", "naevus"))):
        with pytest.raises(InputRefused) as caught:
            LabelReader(RECIPE, aliases, order)
        assert caught.value.code == "label-alias"


# Warnings


def _lesion(seed: int) -> Image.Image:
    """Noise on every scale, as natural images have it."""
    rng, sum_ = np.random.default_rng(seed), np.zeros((96, 96, 3))
    for side in (4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        sum_ += np.asarray(noise.resize((96, 96), Image.Resampling.BICUBIC))
    return Image.fromarray((sum_ / 4).astype(np.uint8))


def test_look_alikes_across_the_split_are_counted(store: CaseStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for seed in range(12):
        _lesion(seed).save(data / f"{seed}.png")
    _lesion(0).resize((80, 80)).save(data / "copy.jpg", quality=60)
    rows = [f"{seed}.png,{'nv' if seed % 2 else 'mel'},train" for seed in range(6)]
    rows += [f"{seed}.png,{'nv' if seed % 2 else 'mel'},test" for seed in range(6, 12)]
    before = import_cases(store, RECIPE, write_csv(data, "file,label,split", *rows))
    assert before.near_duplicates == 0
    after = import_cases(
        store, RECIPE, write_csv(data, "file,label,split", *rows, "copy.jpg,mel,test")
    )
    assert after.near_duplicates == 1
    assert "near-duplicates" in warning_codes(after)


def test_too_many_pairs_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = ["0" * 64, "f" * 64]
    assert count_near_duplicates(hashes, hashes) == 2
    monkeypatch.setattr("client.intake.checks._MAXIMUM_PAIRS", 3)
    assert count_near_duplicates(hashes, hashes) is None
    assert count_near_duplicates([], hashes) == 0


def _labelled(count: int, file: str, patient: str | None) -> list[NamedLabel]:
    return [
        NamedLabel(
            label := "mel" if n * 3 < count else "nv",
            file.format(n=n, label=label),
            patient.format(n=n) if patient else None,
        )
        for n in range(count)
    ]


def test_labels_that_a_name_predicts_are_told() -> None:
    (words,) = label_leaks(_labelled(90, "{label} (1).png", None))
    assert "words of the file name" in words
    (patients,) = label_leaks(_labelled(300, "x.png", "MRN{n}"))
    assert "patient number" in patients
    (numbers,) = label_leaks(_labelled(300, "a/IMG_{n}.png", None))
    assert "number in the file name" in numbers


def test_names_that_say_nothing_are_not_told() -> None:
    rng = np.random.default_rng(0)
    rows = [
        NamedLabel("mel" if rng.random() < 0.3 else "nv", f"ISIC_{n}.jpg", f"P{n}")
        for n in range(400)
    ]
    assert label_leaks(rows) == []
    assert label_leaks(rows[:10]) == []
    unique = [
        NamedLabel(r.label, f"{chr(97 + n % 26)}{chr(97 + n // 26)}x.png", None)
        for n, r in enumerate(rows[:200])
    ]
    assert label_leaks(unique) == []


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
