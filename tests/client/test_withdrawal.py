from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from client import round_handler
from client.audit import open_site_audit
from client.cases.store import CaseStore
from client.cases.tables import CaseRow
from client.outbox import Outbox
from client.policy import SitePolicy
from client.privacy.accounting import Spend, epsilon
from client.privacy.ledger import PrivacyLedger
from client.round_handler import RoundHandler
from client.set_back_clock import largest_step_back
from client.settings import SiteSettings
from client.training.cache_folder import locked
from client.training.dataset import PatientImages
from client.training.pixel_cache import PixelCache
from client.withdrawal import Withdrawal, withdraw_case, withdraw_patient
from common.audit_entries import Left, TrainingPaused
from common.database import open_database
from common.errors import CaseRefused, NotFound
from common.evaluation import metrics
from common.plan import Purpose, RoundPlan
from common.recipe import FederationSpec
from common.records import Refusal
from common.update import Tensors
from common.wire import records_to_reply
from tests.client.pictures import picture
from tests.client.rounds import TOY, base_tensors, make_plan, make_site, no_test, signed


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> SiteSettings:
    return make_site(tmp_path / "site", patients=8, holdout=4, database_url=database_url)


def train(site: SiteSettings, base: Tensors, *, campaign: str, number: int = 1) -> None:
    plan = make_plan(campaign=campaign, round=number, base=base)
    reply = RoundHandler(site, self_test=lambda *_, **__: None).handle(signed(plan), base)
    assert reply.receipt is not None


def prepared(site: SiteSettings) -> list[str]:
    return [p.name for p in site.cache.iterdir() if p.is_dir()]


def test_what_a_patient_reached(site: SiteSettings, base: Tensors) -> None:
    train(site, base, campaign="spring", number=1)
    train(site, base, campaign="spring", number=2)
    assert prepared(site)
    done = withdraw_patient(site, "train-3")
    assert (done.cases, done.side) == (1, "train")
    assert [(c.campaign, c.rounds) for c in done.campaigns] == [("spring", (1, 2))]
    with PrivacyLedger.open(site) as ledger:
        spends = [line.spend for line in ledger.entries() if line.spend is not None]
    assert done.campaigns[0].epsilon == epsilon(spends, 1e-5)
    assert isinstance(spends[0], Spend)
    assert prepared(site) == []  # no pixel of theirs is left
    train(site, base, campaign="summer")
    again = withdraw_patient(site, "train-3")
    assert again.cases == 0
    # Summer's plan came after the withdrawal, and still after the case was confirmed.
    assert [c.campaign for c in again.campaigns] == ["spring"]


def test_a_patient_who_came_later_reached_later_rounds_only(
    site: SiteSettings, base: Tensors
) -> None:
    train(site, base, campaign="spring")
    with closing(CaseStore.open(site)) as store:
        store.add(
            picture(1, np.random.default_rng(99)),
            task="toy",
            patient_id="late",
            label=TOY.classes[1],
            source="test",
            split="train",
        )
    train(site, base, campaign="summer")
    assert [c.campaign for c in withdraw_patient(site, "late").campaigns] == ["summer"]


@pytest.mark.parametrize("known_by", ["audit", "case"])
def test_a_clock_that_was_set_back_hides_no_round(
    site: SiteSettings, base: Tensors, known_by: str
) -> None:
    """A case was confirmed while the clock was fast; then somebody put it right."""
    with closing(CaseStore.open(site)) as store:
        case = store.training_cases("toy")[0]
    if known_by == "audit":
        with open_site_audit(site) as audit:
            audit._clock = lambda: datetime.now(UTC) + timedelta(hours=1)
            audit.append(TrainingPaused(by="somebody"))
    train(site, base, campaign="spring")
    ahead = timedelta() if known_by == "audit" else timedelta(hours=1)
    engine = open_database(site.database)
    with engine.begin() as connection:
        chosen = update(CaseRow).where(CaseRow.id == case.id)
        connection.execute(chosen.values(confirmed_at=datetime.now(UTC) + ahead))
    engine.dispose()
    assert [c.campaign for c in withdraw_case(site, case.id).campaigns] == ["spring"]


def test_how_far_a_clock_was_set_back() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    minutes = [0, 10, 5, 6, 2, 20, 19]
    moments = [start + timedelta(minutes=m) for m in minutes]
    assert largest_step_back(moments) == timedelta(minutes=8)
    assert largest_step_back(sorted(moments)) == largest_step_back([]) == timedelta()


def test_a_held_out_patient_reached_no_model(site: SiteSettings, base: Tensors) -> None:
    train(site, base, campaign="spring")
    done = withdraw_patient(site, "holdout-1")
    assert (done.cases, done.side, done.campaigns) == (1, "holdout", ())


def test_an_unknown_patient(site: SiteSettings) -> None:
    with pytest.raises(NotFound):
        withdraw_patient(site, "nobody")
    with pytest.raises(NotFound):
        withdraw_case(site, "0" * 32)


def test_the_patient_does_not_come_back(site: SiteSettings) -> None:
    withdraw_patient(site, "train-1")
    with closing(CaseStore.open(site)) as store:
        assert len(store.training_cases("toy")) == 7
        with pytest.raises(CaseRefused) as caught:
            store.add(
                picture(0, np.random.default_rng(5)),
                task="toy",
                patient_id="train-1",
                label=TOY.classes[0],
                source="test",
            )
    assert caught.value.code == "patient-withdrawn"


def test_one_case(site: SiteSettings, base: Tensors) -> None:
    train(site, base, campaign="spring")
    with closing(CaseStore.open(site)) as store:
        case = store.training_cases("toy")[0]
    done = withdraw_case(site, case.id)
    assert (done.cases, done.campaigns[0].rounds) == (1, (1,))
    train(site, base, campaign="summer")
    again = withdraw_case(site, case.id)
    assert (again.cases, [c.campaign for c in again.campaigns]) == (0, ["spring"])
    with closing(CaseStore.open(site)) as store:
        assert case.id not in {c.id for c in store.training_cases("toy")}


def test_rounds_without_privacy_have_no_epsilon(tmp_path: Path, base: Tensors) -> None:
    site = make_site(tmp_path / "s", patients=4, holdout=0, allow_without_privacy=True)
    plan = make_plan(epsilon=None, base=base)
    assert RoundHandler(site).handle(signed(plan), base).receipt is not None
    assert withdraw_patient(site, "train-0").campaigns[0].epsilon is None


@pytest.mark.parametrize(
    ("patient", "trainable", "fails"),
    [("train-3", "all", False), ("holdout-1", "head", False), ("train-3", "head", True)],
)
def test_what_a_round_writes_after_a_withdrawal_goes_with_it(
    tmp_path: Path,
    base: Tensors,
    monkeypatch: pytest.MonkeyPatch,
    patient: str,
    trainable: str,
    fails: bool,
) -> None:
    """The patient objects while the round works; the round ends, or fails, afterwards."""
    site = make_site(tmp_path / "site", patients=8, holdout=4)
    recipe = TOY.model_copy(update={"federation": FederationSpec(compression="int8")})
    plan = make_plan(base=base, recipe=recipe).model_copy(update={"trainable": trainable})
    difference = round_handler.difference

    def late(*given: Any, **named: Any) -> object:
        withdraw_patient(site, patient)
        PixelCache(site.cache, "toy", recipe.image).load(cases, images.__getitem__)
        if fails:
            raise OSError
        return difference(*given, **named)

    with closing(CaseStore.open(site)) as store:
        cases = [*store.training_cases("toy"), *store.holdout_cases("toy")]
        images = {case: store.image_bytes(case) for case in cases}
    monkeypatch.setattr(round_handler, "difference", late)
    reply = RoundHandler(site, self_test=lambda *_, **__: None).handle(signed(plan), base)
    assert (reply.update is None) == fails
    assert not (site.data / "newest-reply.safetensors").exists()
    assert not (site.data / "update-feedback.safetensors").exists()
    assert prepared(site) == []


@pytest.mark.parametrize(("purpose", "works"), [("train", "_run"), ("evaluate", "count_holdout")])
def test_no_count_leaves_with_a_patient_who_withdrew_while_the_round_worked(
    tmp_path: Path,
    database_url: str,
    base: Tensors,
    monkeypatch: pytest.MonkeyPatch,
    purpose: Purpose,
    works: str,
) -> None:
    """An update was spent and leaves alone; what was only scored is scored again."""
    site = make_site(tmp_path / "site", patients=8, holdout=8, database_url=database_url)
    work = getattr(round_handler, works)
    reports: list[Withdrawal] = []

    def late(*given: Any, **named: Any) -> object:
        done = work(*given, **named)
        reports.append(withdraw_patient(site, "holdout-1"))
        return done

    monkeypatch.setattr(round_handler, works, late)
    plan = make_plan(base=base, purpose=purpose)
    with Outbox.open(site) as outbox:
        request = outbox.opened(signed(plan), base)
        reply = RoundHandler(site, self_test=no_test).handle(signed(plan), base)
        sent = records_to_reply(outbox.send(reply, request))
    assert reports[0].campaigns == (), "the report says that they reached nothing"
    assert sent.refusal is None
    if purpose == "train":
        assert sent.update is not None
        assert sent.evaluation is None
    else:
        assert sent.evaluation is not None
        assert metrics(sent.evaluation).count == 7
    with open_site_audit(site) as audit:
        left = [e for line in audit.lines(kinds=("left",)) if isinstance(e := line.entry(), Left)]
    assert ["evaluation" in entry.contents for entry in left] == [purpose == "evaluate"]
    assert not (site.data / "newest-reply.safetensors").exists()


@pytest.mark.parametrize("patient", ["train-3", "holdout-1"])
@pytest.mark.parametrize("epsilon", [8.0, None])
def test_who_withdraws_before_the_reservation_is_not_trained_on(
    tmp_path: Path,
    base: Tensors,
    monkeypatch: pytest.MonkeyPatch,
    patient: str,
    epsilon: float | None,
) -> None:
    site = make_site(tmp_path / "s", patients=8, holdout=4, allow_without_privacy=True)
    trained_on: list[int] = []
    reports: list[Withdrawal] = []
    seen = round_handler.round_request

    def late(plan: RoundPlan, policy: SitePolicy) -> object:
        """Stands between the cases' reading and the reservation."""
        reports.append(withdraw_patient(site, patient))
        return seen(plan, policy)

    def counted(run: Callable[..., object]) -> Callable[..., object]:
        def counting(model: object, training: PatientImages, *rest: Any, **named: Any) -> object:
            trained_on.append(len(training.patients) + len(training))
            return run(model, training, *rest, **named)

        return counting

    monkeypatch.setattr(round_handler, "round_request", late)
    for name in ("train_private", "train_plain"):
        monkeypatch.setattr(round_handler, name, counted(getattr(round_handler, name)))
    plan = make_plan(epsilon=epsilon, base=base)
    reply = RoundHandler(site, self_test=no_test).handle(signed(plan), base)
    assert reply.update is not None
    with PrivacyLedger.open(site) as ledger:
        assert [line.kind for line in ledger.entries()] == ["reserve", "outcome"]
    assert trained_on == [14 if patient == "train-3" else 16]
    assert [done.cases for done in reports] == [1, 0]
    assert [done.campaigns for done in reports] == [(), ()]


def test_the_last_patient_withdraws_before_the_reservation(tmp_path: Path, base: Tensors) -> None:
    site = make_site(tmp_path / "s", patients=1, holdout=0)
    late = RoundHandler(site, self_test=lambda *_, **__: withdraw_patient(site, "train-0"))
    reply = late.handle(signed(make_plan(base=base)), base)
    assert reply.refusal == Refusal(code="no-cases")
    with PrivacyLedger.open(site) as ledger:
        assert ledger.entries() == ()


def test_nobody_waits_for_a_round_that_prepares(site: SiteSettings, base: Tensors) -> None:
    train(site, base, campaign="spring")
    with closing(CaseStore.open(site)) as store:
        case = store.training_cases("toy")[0]
    with ThreadPoolExecutor(1) as pool, locked(site.cache, "toy"):
        withdrawing = pool.submit(withdraw_case, site, case.id)
        assert withdrawing.result(timeout=20).unfinished == ()
        assert prepared(site)
    assert prepared(site) == []


def test_a_round_without_a_withdrawal_keeps_what_it_wrote(
    site: SiteSettings, base: Tensors
) -> None:
    train(site, base, campaign="spring")
    assert (site.data / "newest-reply.safetensors").exists()
    assert prepared(site)
