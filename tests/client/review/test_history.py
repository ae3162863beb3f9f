from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.cases.case import Case
from client.cases.tables import PlanRow
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from tests.client.review.rooms import Room, review_room
from tests.client.stores import TASK


@pytest.fixture
def one(tmp_path: Path, database_url: str) -> Iterator[Room]:
    with review_room(tmp_path / "site", database_url=database_url) as room:
        yield room


def take_part(room: Room, campaign: str, number: int, *, trained: bool = True) -> None:
    """Have the site accept a plan that trains and scores, and reserve for it."""
    nonce = f"{campaign}{number}".encode().hex().ljust(64, "0")
    with room.store.transactions.writing() as session:
        session.add(
            PlanRow(
                nonce=nonce,
                campaign=campaign,
                round=number,
                purpose="train",
                task=TASK,
                scores=True,
                issued_at=0,
                accepted_at=datetime.now(UTC),
            )
        )
    if trained:
        request = RoundRequest(campaign, number, nonce, 5, 0.1, 10, 1.0)
        with PrivacyLedger.open(room.settings) as ledger:
            ledger.reserve_without_privacy(request, delta=1e-5)


def pools(room: Room, case: Case) -> list[tuple[str, str, tuple[int, ...], str | None, bool]]:
    return [
        (p.campaign, p.side, p.rounds, p.label, p.outdated)
        for p in room.room.history(case.id).pools
    ]


def test_rounds_that_could_have_sampled_a_case_by_its_label_of_then(one: Room) -> None:
    case = one.case(1, split="train", patient_id="A")
    take_part(one, "before", 1)
    one.say(case, "ada", "correct", "nv")
    take_part(one, "spring", 1)
    take_part(one, "spring", 2)
    take_part(one, "failed", 1, trained=False)
    assert pools(one, case) == [("spring", "train", (1, 2), "nv", False)]
    one.say(case, "ben", "correct", "mel")
    take_part(one, "spring", 3)
    assert pools(one, case) == [
        ("spring", "train", (1, 2), "nv", True),  # these may have learnt a label that was wrong
        ("spring", "train", (3,), "mel", False),
    ]
    one.room.withdraw(case.id, "anna")
    take_part(one, "spring", 4)
    assert pools(one, case) == [("spring", "train", (1, 2, 3), None, False)]


def test_a_held_out_case_was_scored_on(one: Room) -> None:
    case = one.case(1, split="holdout", patient_id="A", label="nv", source="import")
    take_part(one, "spring", 1)
    assert pools(one, case) == [("spring", "holdout", (1,), "nv", False)]


def test_events_in_their_order_with_who_and_what_they_saw(one: Room) -> None:
    case = one.case(1, patient_id="A", flags=["burned-in-unknown"])
    one.answer(1, "mel", model_version=7)
    one.say(case, "ada", "unsure")
    one.say(case, "ada", "agree", seen=one.detail(case).seen)
    one.say(case, "ben", "correct", "nv")
    events = one.room.history(case.id).events
    assert [e.kind for e in events if e.kind != "flagged"] == [
        *("stored", "answered", "opinion", "opinion", "confirmed", "opinion", "corrected"),
    ]
    assert [e.code for e in events if e.kind == "flagged"] == ["burned-in-unknown"]
    said = [(e.by, e.verdict, e.label, e.model_version) for e in events if e.kind == "opinion"]
    assert said == [
        ("ada", "unsure", None, 7),
        ("ada", "agree", "mel", 7),
        ("ben", "correct", "nv", 7),
    ]
    assert all(a.at <= b.at for a, b in itertools.pairwise(events))
