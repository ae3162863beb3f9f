from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from client.review.detail import told_once
from tests.client.answers.answered import ANSWER

LATER = timedelta(minutes=1)


def test_a_picture_that_was_asked_about_twice_has_one_reading() -> None:
    again = replace(ANSWER, request_id="f" * 32, answered_at=ANSWER.answered_at + LATER)
    assert told_once((again, ANSWER)) == (again,)


def test_readings_that_differ_are_all_told_the_oldest_first() -> None:
    newer = replace(
        ANSWER, model_version=ANSWER.model_version + 1, answered_at=ANSWER.answered_at + LATER
    )
    stricter = replace(ANSWER, threshold=0.01, answered_at=ANSWER.answered_at + 2 * LATER)
    assert told_once((ANSWER, newer, stricter)) == (ANSWER, newer, stricter)
