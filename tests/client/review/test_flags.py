from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from client.cases.store import Case
from client.review.flags import (
    BURNED_IN_UNKNOWN,
    NEAR_DUPLICATE_OTHER_PATIENT,
    NEAR_DUPLICATE_SAME_PATIENT,
)
from client.review.near_duplicates import NearDuplicates
from client.review.writing import holds_writing
from common.errors import NotFound
from common.imaging import Pixels
from tests.client.review.rooms import RECIPE, Room, review_room
from tests.client.review.scenes import scene
from tests.client.stores import TASK


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Room]:
    with review_room(tmp_path / "site") as room:
        yield room


def store(room: Room, image: bytes, patient: str, **fields: object) -> Case:
    values = {"task": TASK, "label": None, "source": "http", **fields}
    return room.store.add(image, patient_id=patient, **values)  # type: ignore[arg-type]


def flags(room: Room, case: Case) -> dict[str, str | None]:
    return {flag.code: flag.other_case for flag in room.detail(case).flags}


def test_look_alikes_are_flagged_by_whose_they_are(one: Room) -> None:
    first = store(one, scene(1), "A")
    store(one, scene(2), "A")
    other = store(one, scene(1, quality=50), "B")
    same = store(one, scene(1, quality=70), "A")
    assert flags(one, first) == {}
    assert flags(one, other) == {NEAR_DUPLICATE_OTHER_PATIENT: first.id}
    assert set(flags(one, same)) == {NEAR_DUPLICATE_OTHER_PATIENT, NEAR_DUPLICATE_SAME_PATIENT}
    found = one.detail(other).look_alikes
    assert {(f.case_id, f.same_patient) for f in found} == {(first.id, False), (same.id, False)}
    assert all(0 < f.distance <= 24 for f in found)


def test_what_was_withdrawn_is_nobodys_look_alike(one: Room) -> None:
    gone = store(one, scene(1), "A")
    one.store.withdraw_case(gone.id)
    assert flags(one, store(one, scene(1, quality=50), "B")) == {}


def test_look_alikes_within_one_batch_and_of_another_process_are_found(
    one: Room, tmp_path: Path
) -> None:
    with review_room(tmp_path / "site") as elsewhere:
        first = store(elsewhere, scene(1), "A", label="nv", source="import")
    assert flags(one, store(one, scene(1, quality=50), "B")) == {
        NEAR_DUPLICATE_OTHER_PATIENT: first.id
    }
    assert NearDuplicates(0).find(None, TASK, "0" * 64, of="") == []  # type: ignore[arg-type]


def test_a_blocking_flag_holds_the_case_until_it_is_set_aside(tmp_path: Path) -> None:
    with review_room(tmp_path / "site", blocking=[NEAR_DUPLICATE_OTHER_PATIENT]) as room:
        store(room, scene(1), "A")
        case = store(room, scene(1, quality=50), "B")
        held = room.say(case, "ada", "correct", "nv")
        assert (held.state, held.case.status) == ("held", "waiting")
        assert [q.state for q in room.room.queue("ada", state="held").cases] == ["held"]
        with pytest.raises(NotFound):
            room.room.dismiss(case.id, "blurred", "ada", RECIPE)
        done = room.room.dismiss(case.id, NEAR_DUPLICATE_OTHER_PATIENT, "ada", RECIPE)
        assert (done.state, done.case.status, done.case.label) == ("confirmed", "confirmed", "nv")
        assert [f.dismissed_by for f in done.flags] == ["ada"]
        assert room.room.dismiss(case.id, NEAR_DUPLICATE_OTHER_PATIENT, "ben", RECIPE) == done


def test_a_held_import_waits_with_its_label_as_a_voice(tmp_path: Path) -> None:
    with review_room(tmp_path / "site", blocking=[BURNED_IN_UNKNOWN]) as room:
        case = store(room, scene(1), "A", label="nv", source="import", flags=[BURNED_IN_UNKNOWN])
        assert (case.status, case.label) == ("waiting", None)
        assert room.store.training_cases(TASK) == room.store.holdout_cases(TASK) == []
        done = room.room.dismiss(case.id, BURNED_IN_UNKNOWN, "ada", RECIPE)
        assert (done.case.status, done.case.label) == ("confirmed", "nv")


def test_warnings_of_the_models_answer_are_flags(tmp_path: Path) -> None:
    with review_room(tmp_path / "site", blocking=["out-of-distribution"]) as room:
        case = room.case(1)
        room.answer(1, "mel", warnings=("out-of-distribution", "blurred"))
        (queued,) = room.room.queue("ada").cases
        assert [(f.code, f.blocks) for f in queued.flags] == [
            ("out-of-distribution", True),
            ("blurred", False),
        ]
        assert room.say(case, "ada", "correct", "mel").state == "held"
        done = room.room.dismiss(case.id, "out-of-distribution", "ada", RECIPE)
        assert done.state == "confirmed"
        room.answer(1, "mel", warnings=("out-of-distribution",))  # set aside is set aside
        assert room.say(case, "ben", "correct", "nv").case.label == "nv"


def picture_with(words: str, *, size: int = 20, tone: int = 255) -> Pixels:
    noise = np.random.default_rng(1).normal(90, 12, (300, 400)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise).convert("RGB")
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text((30, 240), words, fill=(tone, tone, tone), font=font)
    return np.asarray(image)


def test_writing_is_seen_and_tissue_is_not() -> None:
    assert holds_writing(picture_with("DOE JANE 1954"))
    assert holds_writing(picture_with("RT UOQ", size=14))
    assert not holds_writing(picture_with(""))
    assert not holds_writing(picture_with("DOE JANE 1954", tone=100))  # as the docstring says
    assert not holds_writing(np.zeros((64, 64, 3), np.uint8))
    assert not holds_writing(np.full((64, 64, 3), 255, np.uint8))
