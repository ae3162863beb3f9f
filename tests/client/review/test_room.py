from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from client.cases.store import DuplicateCase
from client.review.opinions import SeenAnswer
from common.errors import CaseRefused, NotFound
from tests.client.review.rooms import CLASSES, RECIPE, Room, review_room
from tests.client.stores import TASK


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Room]:
    with review_room(tmp_path / "site") as room:
        yield room


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Room]:
    with review_room(tmp_path / "site", readers=2) as room:
        yield room


@pytest.fixture
def one_anywhere(tmp_path: Path, database_url: str) -> Iterator[Room]:
    with review_room(tmp_path / "site", database_url=database_url) as room:
        yield room


@pytest.fixture
def two_anywhere(tmp_path: Path, database_url: str) -> Iterator[Room]:
    with review_room(tmp_path / "site", database_url=database_url, readers=2) as room:
        yield room


def refusal(code: str) -> object:
    return pytest.raises(CaseRefused, check=lambda error: error.code == code)


def trained_on(room: Room) -> list[str | None]:
    sides = (room.store.training_cases(TASK), room.store.holdout_cases(TASK))
    return [case.label for side in sides for case in side]


def test_agreeing_with_the_model_takes_what_was_shown(one: Room) -> None:
    case = one.case(1)
    with refusal("opinion-incomplete"):  # there is nothing to agree with
        one.say(case, "ada", "agree", seen=one.detail(case).seen)
    one.answer(1, "mel")
    shown = one.detail(case)
    assert shown.proposed is not None
    assert (shown.proposed.label, shown.proposed.by) == ("mel", "model")
    done = one.say(case, "ada", "agree", seen=shown.seen)
    assert (done.case.status, done.case.label, done.state) == ("confirmed", "mel", "confirmed")
    (said,) = done.opinions
    assert (said.reader, said.verdict, said.origin, said.blinded) == (
        "ada",
        "agree",
        "review",
        False,
    )
    assert said.saw == SeenAnswer("request-1", 1, "d" * 64)
    assert trained_on(one) == ["mel"]


def test_two_people_must_agree(two_anywhere: Room) -> None:
    two = two_anywhere
    case = two.case(1)
    assert two.say(case, "ada", "correct", "nv").state == "waiting"
    assert two.say(case, "ada", "correct", "nv").opinions[0].number == 1
    assert len(two.detail(case).opinions) == 1  # said again, nothing changes
    assert trained_on(two) == []
    shown = two.detail(case, "ben")
    assert shown.proposed is not None
    assert (shown.proposed.label, shown.proposed.by) == ("nv", "reader")
    done = two.say(case, "ben", "agree", seen=shown.seen)
    assert (done.state, done.case.label) == ("confirmed", "nv")
    assert trained_on(two) == ["nv"]


def test_a_third_reader_resolves_a_conflict(two: Room) -> None:
    case = two.case(1)
    two.say(case, "ada", "correct", "nv")
    assert two.say(case, "ben", "correct", "mel").state == "conflict"
    assert [(q.case_id, q.state) for q in two.room.queue("cleo").cases] == [(case.id, "conflict")]
    assert two.say(case, "cleo", "unsure").state == "conflict"
    assert two.say(case, "cleo", "correct", "mel").state == "confirmed"
    assert trained_on(two) == ["mel"]


def test_what_is_in_doubt_is_not_trained_on(two: Room) -> None:
    case = two.case(1, label="nv", source="import")
    first = case.confirmed_at
    assert trained_on(two) == ["nv"]
    assert two.say(case, "ada", "unsure").state == "disputed"  # it keeps its label
    done = two.say(case, "ada", "correct", "mel")
    assert (done.state, done.case.status, done.case.label) == ("conflict", "waiting", None)
    assert trained_on(two) == []
    done = two.say(case, "ben", "correct", "mel")
    assert (done.state, done.case.label) == ("confirmed", "mel")
    # A withdrawal lists every round since the case could first be sampled.
    assert two.store.get(case.id).confirmed_at == first
    first_said = done.opinions[0]
    assert (first_said.origin, first_said.label) == ("import", "nv")


def test_an_import_is_no_persons_voice(two: Room) -> None:
    case = two.case(1, label="nv", source="import")
    two.say(case, "import", "correct", "mel")
    assert two.detail(case).state == "conflict"  # not: the reader called import changed their mind


def test_a_correction_counts_at_once_where_one_reader_is_enough(one: Room) -> None:
    case = one.case(1, label="nv", source="import")
    done = one.say(case, "ada", "correct", "mel")
    assert (done.state, done.case.label) == ("confirmed", "mel")
    kinds = [(e.kind, e.previous, e.label) for e in one.room.history(case.id).events]
    assert ("confirmed", None, "nv") in kinds
    assert ("corrected", "nv", "mel") in kinds


def test_an_uploaded_label_is_one_opinion(two: Room) -> None:
    case = two.case(1, label="nv", reader="ada")
    assert (case.status, case.label) == ("waiting", None)
    again = two.case(1, label="nv", reader="ben")
    assert (again.id, again.status, again.label) == (case.id, "confirmed", "nv")
    with pytest.raises(DuplicateCase):
        two.case(1, label="nv", reader="cleo")
    assert [o.origin for o in two.detail(case).opinions] == ["upload", "upload"]


def test_confirming_is_an_opinion(two: Room) -> None:
    case = two.case(1)
    assert two.store.confirm(case.id, "nv", classes=CLASSES, reader="ada").status == "waiting"
    assert two.store.confirm(case.id, "nv", classes=CLASSES, reader="ben").status == "confirmed"
    with refusal("case-already-confirmed"):
        two.store.confirm(case.id, "mel", classes=CLASSES, reader="cleo")


def test_an_opinion_on_what_changed_meanwhile_is_not_kept(two: Room) -> None:
    case = two.case(1)
    two.answer(1, "mel")
    shown = two.detail(case)
    two.answer(1, "mel", request_id="the same answer again")
    assert two.detail(case).seen == shown.seen
    two.say(case, "ben", "correct", "nv")
    for verdict, label in (("agree", None), ("correct", "mel"), ("unsure", None)):
        with refusal("review-changed"):
            two.say(case, "ada", verdict, label, seen=shown.seen)  # type: ignore[arg-type]
    with refusal("review-changed"):  # ben's label is what there is to agree with now
        two.say(case, "ada", "agree", "mel")
    fresh = two.detail(case)
    two.answer(1, "bcc", model_digest="e" * 64, model_version=2)
    with refusal("review-changed"):
        two.say(case, "ada", "unsure", seen=fresh.seen)
    assert len(two.detail(case).opinions) == 1


def test_a_lost_answer_can_be_asked_for_again(two: Room) -> None:
    case = two.case(1)
    shown = two.detail(case)
    first = two.say(case, "ada", "correct", "nv", seen=shown.seen)
    again = two.say(case, "ada", "correct", "nv", seen=shown.seen)  # the token is old by now
    assert again == first


def test_of_readers_at_once_none_is_lost_and_one_label_wins(two_anywhere: Room) -> None:
    case = two_anywhere.case(1)
    barrier = threading.Barrier(6)

    def read(number: int) -> None:
        barrier.wait()
        two_anywhere.say(case, f"reader-{number}", "correct", "nv" if number % 3 else "mel")

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = two_anywhere.detail(case)
    assert [o.number for o in done.opinions] == list(range(1, 7))
    assert done.case.label == "nv"


def test_of_readers_who_saw_the_same_only_the_first_is_heard(two: Room) -> None:
    case = two.case(1)
    seen = two.detail(case).seen
    barrier = threading.Barrier(4)
    codes: list[str] = []

    def read(number: int) -> None:
        barrier.wait()
        try:
            two.say(case, f"reader-{number}", "correct", CLASSES[number], seen=seen)
        except CaseRefused as error:
            codes.append(error.code)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == ["review-changed"] * 3
    assert len(two.detail(case).opinions) == 1


def test_a_blind_reader_sees_nothing_before_they_judged(tmp_path: Path) -> None:
    with review_room(tmp_path / "site", readers=2, blinded=True) as room:
        case = room.case(1)
        room.answer(1, "mel")
        room.say(case, "ada", "correct", "nv")
        blind = room.detail(case, "ben")
        assert (blind.blinded, blind.opinions, blind.answers, blind.proposed) == (
            True,
            (),
            (),
            None,
        )
        assert room.room.queue("ben").cases[0].answer is None
        with refusal("reads-blind"):
            room.room.history(case.id, reader="ben")
        assert room.room.history(case.id, reader="ada").events
        assert room.room.history(case.id).events, "an auditor reads everything"
        with refusal("opinion-incomplete"):
            room.say(case, "ben", "agree", seen=blind.seen)
        room.say(case, "cleo", "unsure")
        done = room.say(case, "ben", "correct", "mel", seen=blind.seen)  # cleo does not matter
        assert [o.saw for o in done.opinions] == [None] * 3
        assert [o.blinded for o in done.opinions] == [True] * 3
        later = room.say(case, "ben", "correct", "nv", seen=done.seen)
        assert later.opinions[-1].saw is not None


@pytest.mark.parametrize(
    ("verdict", "label", "seen", "code"),
    [
        ("agree", None, None, "opinion-incomplete"),
        ("correct", None, None, "opinion-incomplete"),
        ("unsure", "nv", None, "opinion-incomplete"),
        ("correct", "naevus", None, "label-unknown"),
    ],
)
def test_incomplete_opinions_are_refused(
    one: Room, verdict: str, label: str | None, seen: str | None, code: str
) -> None:
    case = one.case(1)
    with refusal(code):
        one.say(case, "ada", verdict, label, seen)  # type: ignore[arg-type]
    assert one.detail(case).opinions == ()


def test_a_withdrawn_case_is_not_judged_and_nothing_of_it_is_left(one: Room) -> None:
    case = one.case(1)
    one.answer(1, "mel")
    one.say(case, "ada", "correct", "nv")
    one.answers.flush()
    one.answer(1, "nv")  # which waits to be written when the case is withdrawn
    one.room.withdraw(case.id, "anna")
    one.answers.flush()
    with refusal("case-withdrawn"):
        one.say(case, "ada", "correct", "mel")
    with pytest.raises(NotFound):
        one.room.image(case.id, side=64)
    left = one.detail(case)
    assert (left.state, left.case.label, left.answers) == ("withdrawn", None, ())
    assert [o.label for o in left.opinions] == [None]
    assert one.room.queue("ada").cases == ()
    events = one.room.history(case.id).events
    assert [e.kind for e in events] == ["stored", "opinion", "confirmed", "withdrawn"]
    assert not any(e.label for e in events)


def test_the_queue_is_paged_oldest_first(one_anywhere: Room) -> None:
    one = one_anywhere
    cases = [one.case(n) for n in range(5)]
    one.case(9, label="nv", source="import")
    one.say(cases[1], "ada", "unsure")
    one.answer(2, "mel", uncertainty=0.9, referred=True)
    first = one.room.queue("ada", limit=3)
    assert [q.case_id for q in first.cases] == [c.id for c in cases[:3]]
    assert [(q.state, q.judged_by_me) for q in first.cases[:2]] == [
        ("waiting", False),
        ("unsure", True),
    ]
    assert first.cases[2].answer is not None
    assert first.cases[2].answer.referred
    assert first.counts == {"waiting": 4, "unsure": 1}
    rest = one.room.queue("ada", after=first.next_after, limit=3)
    assert [q.case_id for q in rest.cases] == [c.id for c in cases[3:]]
    assert rest.next_after is None
    assert [q.case_id for q in one.room.queue("ada", state="unsure").cases] == [cases[1].id]
    with pytest.raises(NotFound):
        one.room.queue("ada", after="0" * 32)


def test_the_picture_is_small_and_holds_nothing_else(one: Room) -> None:
    pixels = Image.new("RGB", (300, 200), (10, 20, 30))
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe"
    target = io.BytesIO()
    pixels.save(target, "JPEG", exif=exif)
    case = one.store.add(target.getvalue(), task=TASK, patient_id=None, label=None, source="http")
    png = one.room.image(case.id, side=64)
    assert b"Jane" not in png
    assert Image.open(io.BytesIO(png)).size == (64, 43)
    assert Image.open(io.BytesIO(one.room.image(case.id, side=2048))).size == (300, 200)


def test_a_case_that_is_not_there(one: Room) -> None:
    with pytest.raises(NotFound):
        one.room.detail("0" * 32, "ada", RECIPE)
    with pytest.raises(NotFound):
        one.room.history("0" * 32)
