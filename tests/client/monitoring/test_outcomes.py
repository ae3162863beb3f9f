"""Only answers from before a confirmation count, once for each patient, label and model."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from client.answers.log import AnswerLog
from client.cases.store import CaseStore
from client.cases.tables import CaseRow
from client.monitoring.outcomes import Outcome, confirmed_outcomes
from common.database import open_database
from common.errors import StoreError
from tests.client.answers.answered import ANSWER, answer
from tests.client.stores import TASK, open_store, picture

CLASSES = ("nv", "mel", "bcc")
SINCE = ANSWER.answered_at - timedelta(days=30)


class Site:
    """A case store and its answers."""

    def __init__(self, store: CaseStore, engine: Engine) -> None:
        self.store, self.engine = store, engine
        self.log = AnswerLog(engine)

    def case(self, seed: int, label: str | None, *, patient: str, **fields: object) -> str:
        """Store a case; return the digest of its pixels."""
        found = self.store.add(
            picture(seed), task=TASK, patient_id=patient, label=label, source="upload", **fields
        )  # type: ignore[arg-type]
        with self.engine.connect() as connection:
            table = CaseRow.__table__
            query = table.select().where(table.c.id == found.id)
            return str(connection.execute(query).one().pixels)

    def outcomes(self) -> tuple[Outcome, ...]:
        assert self.log.flush()
        return confirmed_outcomes(self.engine, TASK, CLASSES, ("mel", "bcc"), since=SINCE)


@pytest.fixture
def site(tmp_path: Path, database_url: str):  # type: ignore[no-untyped-def]
    store = open_store(tmp_path / "site", database_url=database_url)
    engine = open_database(database_url)
    yield Site(store, engine)
    engine.dispose()
    store.close()


def test_the_first_answer_of_each_patient_label_and_model_counts(site: Site) -> None:
    first = site.case(1, "mel", patient="one", age="63", sex="f")
    second = site.case(2, "mel", patient="one")
    other = site.case(3, "nv", patient="one")
    site.log.record(answer(pixels=second, answered_at=ANSWER.answered_at + timedelta(hours=1)))
    site.log.record(answer(pixels=first, verdict="negative"))
    site.log.record(answer(pixels=first, model_version=2, model_digest="e" * 64))
    site.log.record(answer(pixels=first, head_digest="f" * 64))
    site.log.record(answer(pixels=other))
    found = site.outcomes()
    assert len(found) == 4
    counted = next(o for o in found if o.harmful and o.version == 1 and o.head_digest is None)
    assert (counted.positive, counted.label, counted.age_band, counted.sex) == (
        False, 1, "60-69", "female",
    )  # fmt: skip
    assert counted.answered_at == ANSWER.answered_at
    assert counted.probabilities == ANSWER.probabilities
    assert [o.harmful for o in found if o.label == 0] == [False]


def test_an_answer_after_the_confirmation_does_not_count(site: Site) -> None:
    pixels = site.case(1, "mel", patient="one")
    confirmed = site.store.get(_only(site)).confirmed_at
    assert confirmed is not None
    site.log.record(answer(pixels=pixels, answered_at=confirmed + timedelta(microseconds=1)))
    assert site.outcomes() == ()
    site.log.record(answer(pixels=pixels, answered_at=confirmed))
    assert len(site.outcomes()) == 1


def test_waiting_withdrawn_foreign_and_old_ones_do_not_count(site: Site) -> None:
    site.log.record(answer(pixels=site.case(1, None, patient="waiting")))
    site.log.record(answer(pixels=site.case(2, "vasc", patient="foreign label")))
    site.log.record(answer(pixels=site.case(3, "nv", patient="two classes"), probabilities=(1, 0)))
    site.log.record(answer(pixels=site.case(4, "nv", patient="other task"), task="mammography"))
    site.log.record(answer(pixels=site.case(5, "nv", patient="withdrawn")))
    old = SINCE - timedelta(seconds=1)
    site.log.record(answer(pixels=site.case(6, "nv", patient="old"), answered_at=old))
    site.store.withdraw_patient("withdrawn")
    assert site.outcomes() == ()


def test_a_database_that_is_away_is_said_so(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(StoreError):
        confirmed_outcomes(engine, TASK, CLASSES, (), since=SINCE)
    engine.dispose()


def _only(site: Site) -> str:
    (case,) = (*site.store.training_cases(TASK), *site.store.holdout_cases(TASK))
    return case.id
