"""Labels in a CSV: columns, encodings, and every kind of bad row."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.cases.store import CaseStore
from client.intake.importer import import_cases
from client.intake.source import CsvColumns, ImportSource
from common.errors import InputRefused
from tests.client.intake.sources import (
    RECIPE,
    adds_up,
    suppress_refusal,
    warning_codes,
    write_csv,
    write_images,
)
from tests.client.stores import TASK, picture


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
