from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.review.outcomes import Outcomes
from tests.client.review.rooms import RECIPE, Room, review_room


@pytest.fixture
def one(tmp_path: Path, database_url: str) -> Iterator[Room]:
    with review_room(tmp_path / "site", database_url=database_url) as room:
        yield room


def judged(room: Room, seed: int, *, says: str, is_: str, version: int = 1) -> str:
    """Have the model say one thing of a picture, and a reader another; return the case."""
    case = room.case(seed)
    room.answer(seed, says, model_version=version)
    room.say(case, "ada", "correct", is_)
    return case.id


def found(room: Room, **wanted: object) -> Outcomes:
    return room.room.outcomes(RECIPE, **wanted)  # type: ignore[arg-type]


def test_right_missed_and_false_alarm(one: Room) -> None:
    missed = judged(one, 1, says="nv", is_="mel")
    false_alarm = judged(one, 2, says="mel", is_="nv")
    judged(one, 3, says="mel", is_="bcc")  # another positive class: the verdict was right
    judged(one, 4, says="nv", is_="bkl", version=2)
    one.case(5)  # not asked, not confirmed
    outcomes = found(one)
    kinds = {row.case_id: row.kind for row in outcomes.rows}
    assert (kinds[missed], kinds[false_alarm], len(kinds)) == ("missed", "false-alarm", 4)
    total = outcomes.total
    assert (total.found, total.cleared, total.missed, total.false_alarms) == (1, 1, 1, 1)
    assert total.sensitivity is not None
    assert (total.sensitivity.value, total.sensitivity.patients) == (0.5, 2)
    assert 0 < total.sensitivity.low < 0.5 < total.sensitivity.high < 1
    assert [(c.model_version, c.false_alarms) for c in outcomes.by_version] == [(2, 0), (1, 1)]
    assert outcomes.by_version[0].sensitivity is None  # no positive case of this version
    assert [c.month for c in outcomes.by_month] == [datetime.now(UTC).strftime("%Y-%m")] * 2
    assert [row.model_version for row in found(one, version=2).rows] == [2]


def test_only_what_was_said_before_the_confirmation_counts(one: Room) -> None:
    case = one.case(1)
    now = datetime.now(UTC)
    one.answer(1, "mel", answered_at=now - timedelta(days=2), request_id="early")
    one.answer(1, "nv", answered_at=now - timedelta(days=1), request_id="last before")
    one.say(case, "ada", "correct", "mel")
    one.answer(1, "mel", answered_at=now + timedelta(days=1), request_id="after")
    (row,) = found(one).rows
    assert (row.kind, row.verdict) == ("missed", "negative")
    # A correction later does not let answers count that may have learnt from the case.
    one.say(case, "ben", "correct", "nv")
    (row,) = found(one).rows
    assert (row.kind, row.label, row.verdict) == ("correct", "nv", "negative")
    assert found(one, until=now - timedelta(days=1, hours=1)).rows[0].verdict == "positive"
    assert found(one, since=now).rows == ()


def test_a_case_in_doubt_or_withdrawn_has_no_outcome(one: Room) -> None:
    case_id = judged(one, 1, says="nv", is_="mel")
    assert len(found(one).rows) == 1
    one.room.withdraw(case_id, "anna")
    assert found(one).rows == ()
    assert found(one).total.correct is None
