"""A review room over a real site folder, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.answers.log import AnswerLog
from client.cases.accepted_image import accept_image
from client.cases.store import Case, CaseStore
from client.review.detail import CaseDetail
from client.review.opinions import Verdict
from client.review.room import ReviewRoom
from client.review.settings import ReviewSettings
from client.review.submission import Submission
from client.settings import SiteSettings
from common.database import open_database
from common.recipe import load_recipe
from tests.client.answers.answered import answer
from tests.client.stores import TASK, make_site, picture

RECIPE = load_recipe(TASK)
CLASSES = RECIPE.classes


@dataclass(frozen=True)
class Room:
    """A room with what lies behind it."""

    settings: SiteSettings
    store: CaseStore
    answers: AnswerLog
    room: ReviewRoom

    def case(self, seed: int, **fields: Any) -> Case:
        values = {"task": TASK, "patient_id": None, "label": None, "source": "http", **fields}
        return self.store.add(picture(seed), **values)

    def say(
        self,
        case: Case,
        reader: str,
        verdict: Verdict,
        label: str | None = None,
        seen: str | None = None,
    ) -> CaseDetail:
        return self.room.give(case.id, reader, Submission(verdict, label, seen), RECIPE)

    def detail(self, case: Case, reader: str = "ada") -> CaseDetail:
        return self.room.detail(case.id, reader, RECIPE)

    def answer(self, seed: int, favours: str, **changes: Any) -> None:
        """Have the model answer a picture."""
        rest = 0.2 / (len(CLASSES) - 1)
        probabilities = tuple(0.8 if name == favours else rest for name in CLASSES)
        positive = favours in RECIPE.decision.positive_classes
        fields = {
            "pixels": accept_image(picture(seed)).pixels_digest,
            "probabilities": probabilities,
            "verdict": "positive" if positive else "negative",
            "positive_probability": 0.9 if positive else 0.1,
            "answered_at": datetime.now(UTC),
            "warnings": (),
            **changes,
        }
        self.answers.record(answer(**fields))


@contextmanager
def review_room(folder: Path, *, database_url: str | None = None, **rules: Any) -> Iterator[Room]:
    """Open a room with the rules of a ``[review]`` table."""
    settings = make_site(folder, database_url=database_url, review=ReviewSettings(**rules))
    store = CaseStore.open(settings)
    engine = open_database(settings.database)
    answers = AnswerLog(engine)
    try:
        yield Room(settings, store, answers, ReviewRoom(settings, store, answers))
    finally:
        store.close()
        engine.dispose()
