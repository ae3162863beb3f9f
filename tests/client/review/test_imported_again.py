"""The same import run again, after readers have judged the cases that it brought."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.intake.importer import import_cases
from client.intake.source import ImportSource
from client.review.flags import NEAR_DUPLICATE_OTHER_PATIENT
from tests.client.review.rooms import RECIPE, Room, review_room
from tests.client.review.scenes import scene
from tests.client.stores import TASK


def held(room: Room, data: Path) -> tuple[ImportSource, str]:
    """Import two look-alikes of two patients, the second of them held; return its id."""
    data.mkdir()
    (data / "0.png").write_bytes(scene(1))
    source = labelled(data, "0.png,nv,A")
    import_cases(room.store, RECIPE, source)
    (data / "1.jpg").write_bytes(scene(1, quality=50))
    source = labelled(data, "0.png,nv,A", "1.jpg,nv,B")
    summary = import_cases(room.store, RECIPE, source)
    assert (summary.kept, summary.already_present) == (1, 1)
    (case,) = room.store.waiting_cases(TASK)
    return source, case.id


def labelled(data: Path, *rows: str) -> ImportSource:
    (data / "labels.csv").write_text("\n".join(("file,label,patient_id", *rows)) + "\n")
    return ImportSource(data)


def test_an_import_that_runs_again_overrules_no_reader(tmp_path: Path, database_url: str) -> None:
    rules = {"blocking": [NEAR_DUPLICATE_OTHER_PATIENT]}
    with review_room(tmp_path / "site", database_url=database_url, **rules) as room:
        source, case_id = held(room, tmp_path / "data")
        room.say(room.store.get(case_id), "ada", "correct", "mel")
        again = import_cases(room.store, RECIPE, source)
        assert (again.kept, again.already_present) == (0, 2)
        done = room.room.dismiss(case_id, NEAR_DUPLICATE_OTHER_PATIENT, "bob", RECIPE)
        assert (done.case.status, done.case.label) == ("confirmed", "mel")


@pytest.mark.parametrize(
    ("rows", "judged", "label"),
    [
        (("mel",), False, "mel"),  # corrected at its source
        (("mel", "nv"), False, "nv"),  # and back
        (("mel",), True, "mel"),  # news for a reader, too: nobody had said it
        (("mel", "nv", "mel"), False, "mel"),
    ],
)
def test_what_an_import_says_anew_of_a_held_case_counts(
    tmp_path: Path, rows: tuple[str, ...], judged: bool, label: str
) -> None:
    with review_room(tmp_path / "site", blocking=[NEAR_DUPLICATE_OTHER_PATIENT]) as room:
        _, case_id = held(room, tmp_path / "data")
        if judged:
            room.say(room.store.get(case_id), "ada", "correct", "bkl")
        for said in rows:
            source = labelled(tmp_path / "data", f"1.jpg,{said},B")
            assert import_cases(room.store, RECIPE, source).kept == 1
        done = room.room.dismiss(case_id, NEAR_DUPLICATE_OTHER_PATIENT, "bob", RECIPE)
        assert done.case.label == label


def test_of_two_imports_that_differ_neither_overrules_a_reader_by_running_again(
    tmp_path: Path,
) -> None:
    with review_room(tmp_path / "site", blocking=[NEAR_DUPLICATE_OTHER_PATIENT]) as room:
        _, case_id = held(room, tmp_path / "data")
        import_cases(room.store, RECIPE, labelled(tmp_path / "data", "1.jpg,mel,B"))
        room.say(room.store.get(case_id), "ada", "correct", "bkl")
        for label in ("nv", "mel", "nv"):
            source = labelled(tmp_path / "data", f"1.jpg,{label},B")
            assert import_cases(room.store, RECIPE, source).already_present == 1
        done = room.room.dismiss(case_id, NEAR_DUPLICATE_OTHER_PATIENT, "bob", RECIPE)
        assert done.case.label == "bkl"
