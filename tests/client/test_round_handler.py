"""What a site answers to each kind of plan: by its policy, its memory and its ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.cases.store import CaseStore
from client.settings import SiteSettings
from common.evaluation import metrics
from common.update import Tensors, apply
from tests.client.handled import answer, ledger_lines, refused
from tests.client.rounds import TOY, change_policy, make_plan, make_site


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site")


def test_a_campaign_of_private_rounds(site: SiteSettings, base: Tensors) -> None:
    weights = base
    epsilons = []
    for number in (1, 2, 3):
        plan = make_plan(round=number, base=weights, clip=50.0, multiplicity=2)
        reply = answer(site, plan, weights)
        assert reply.refusal is None
        assert reply.receipt is not None
        assert reply.update is not None
        assert reply.evaluation is not None
        receipt = reply.receipt
        assert receipt.update_digest == reply.update.digest
        assert (receipt.site, receipt.round, receipt.nonce) == ("north", number, plan.nonce)
        assert receipt.privacy_unit == "patient"
        assert receipt.max_grad_norm == 2.0  # the policy's, the plan asked for 50
        assert receipt.steps == 2
        assert receipt.public_patients == 25  # declared; 24 are there
        assert receipt.epsilon_campaign == receipt.epsilon_life
        assert metrics(reply.evaluation).count == 8
        epsilons.append(receipt.epsilon_campaign or 0.0)
        weights = apply(weights, reply.update.tensors)
    assert epsilons == sorted(epsilons)
    assert 7.9 < epsilons[-1] <= 8.0
    assert ledger_lines(site) == [
        (kind, number, outcome)
        for number in (1, 2, 3)
        for kind, outcome in (("reserve", None), ("outcome", "trained"))
    ]


def test_training_without_privacy_needs_the_policys_leave(
    site: SiteSettings, base: Tensors
) -> None:
    plan = make_plan(epsilon=None, base=base)
    assert refused(site, plan, base) == "privacy-required"
    change_policy(site, allow_without_privacy=True)
    reply = answer(site, plan, base)
    assert reply.receipt is not None
    assert reply.receipt.privacy_unit == "none"
    assert reply.receipt.epsilon_life is None
    assert reply.receipt.noise_multiplier is None
    assert reply.receipt.steps == 2
    assert refused(site, plan, base) == "plan-replayed"
    later = answer(site, make_plan(campaign="later", base=base), base)
    assert later.receipt is not None
    assert later.receipt.epsilon_campaign is not None
    assert later.receipt.epsilon_life is None  # nothing bounds this site's life any more


def test_evaluating_spends_nothing(site: SiteSettings, base: Tensors) -> None:
    for _ in range(2):
        reply = answer(site, make_plan(purpose="evaluate", base=base), base)
        assert reply.receipt is not None
        assert reply.update is None
        assert reply.receipt.steps == 0
        assert reply.evaluation is not None
    assert ledger_lines(site) == []


def test_evaluation_stays_inside_unless_released(site: SiteSettings, base: Tensors) -> None:
    change_policy(site, release_evaluation=False)
    reply = answer(site, make_plan(base=base), base)
    assert reply.update is not None
    assert reply.evaluation is None
    evaluate = make_plan(purpose="evaluate", base=base)
    assert refused(site, evaluate, base) == "evaluation-not-released"


def test_training_is_not_asked_to_evaluate(site: SiteSettings, base: Tensors) -> None:
    assert answer(site, make_plan(base=base, evaluate=False), base).evaluation is None


def test_evaluations_are_remembered_and_bounded(site: SiteSettings, base: Tensors) -> None:
    change_policy(site, evaluations_per_day=2)
    plan = make_plan(purpose="evaluate", base=base)
    assert answer(site, plan, base).evaluation is not None
    assert refused(site, plan, base) == "plan-replayed"
    trained = answer(site, make_plan(base=base), base)
    assert trained.evaluation is not None
    assert refused(site, make_plan(purpose="evaluate", base=base), base) == "evaluations-used-up"
    second = answer(site, make_plan(round=2, base=base), base)
    assert second.update is not None  # training goes on, unscored
    assert second.evaluation is None


def test_a_lower_round_is_refused(site: SiteSettings, base: Tensors) -> None:
    assert answer(site, make_plan(round=2, base=base), base).update is not None
    assert refused(site, make_plan(round=1, base=base), base) == "plan-out-of-order"
    late = make_plan(purpose="evaluate", round=1, base=base)
    assert refused(site, late, base) == "plan-out-of-order"


def test_the_declared_number_is_told_and_divided_by(tmp_path: Path, base: Tensors) -> None:
    few = make_site(tmp_path / "few", patients=6, holdout=0, declared_patients=40)
    more = make_site(tmp_path / "more", patients=7, holdout=0, declared_patients=40)
    for site in (few, more):
        reply = answer(site, make_plan(base=base), base)
        assert reply.receipt is not None
        assert reply.receipt.public_patients == 40


def test_a_recipe_that_is_not_the_sites_own(site: SiteSettings, base: Tensors) -> None:
    classes = ("bright", "dark")
    plan = make_plan(base=base, recipe=TOY.model_copy(update={"classes": classes}))
    assert refused(site, plan, base) == "recipe-changed"
    (site.recipes / "toy.toml").unlink()
    assert refused(site, make_plan(base=base), base) == "recipe-changed"


def test_a_preflight_says_what_a_campaign_would_cost(site: SiteSettings, base: Tensors) -> None:
    plan = make_plan(purpose="preflight", rounds=3)
    forecast = answer(site, plan, {}).forecast
    assert forecast is not None
    assert forecast.affordable
    assert forecast.rounds == 3
    assert ledger_lines(site) == []
    for number in (1, 2, 3):
        reply = answer(site, make_plan(campaign="real", round=number, base=base), base)
    assert reply.receipt is not None
    # Each round solves for its noise anew, so the last ones may get a thousandth less.
    assert reply.receipt.noise_multiplier == pytest.approx(forecast.noise_multiplier, abs=0.003)
    assert reply.receipt.epsilon_campaign == pytest.approx(forecast.epsilon_campaign, abs=0.03)
    assert reply.receipt.epsilon_life == pytest.approx(forecast.epsilon_life, abs=0.03)
    assert refused(site, plan, {}) == "plan-replayed"


def test_a_preflight_of_what_cannot_be_afforded(site: SiteSettings) -> None:
    change_policy(site, epsilon_life=0.01)
    forecast = answer(site, make_plan(purpose="preflight"), {}).forecast
    assert forecast is not None
    assert (forecast.affordable, forecast.code) == (False, "budget-exhausted")
    assert forecast.epsilon_campaign is None
    assert refused(site, make_plan(purpose="preflight", epsilon=None), {}) == "privacy-required"


def test_a_preflight_touches_no_case_where_the_policy_releases_nothing_of_them(
    site: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("cases were read")

    change_policy(site, release_evaluation=False)

    monkeypatch.setattr(CaseStore, "open", fail)
    assert answer(site, make_plan(purpose="preflight"), {}).forecast is not None


def test_an_empty_site(tmp_path: Path, base: Tensors) -> None:
    empty = make_site(tmp_path / "empty", patients=0, holdout=0)
    assert refused(empty, make_plan(base=base), base) == "no-cases"
    assert refused(empty, make_plan(purpose="evaluate", base=base), base) == "no-holdout"
    assert ledger_lines(empty) == []


def test_one_patient_of_one_class_and_no_holdout(tmp_path: Path, base: Tensors) -> None:
    small = make_site(tmp_path / "small", patients=1, holdout=0)
    reply = answer(small, make_plan(base=base), base)
    assert reply.update is not None
    assert reply.evaluation is None


@pytest.mark.parametrize(
    ("policy", "plan", "code"),
    [
        ({"paused": True}, {}, "site-paused"),
        ({"allowed_recipes": ["other"]}, {}, "recipe-not-allowed"),
        ({"epsilon_campaign": 0.01}, {}, "budget-exhausted"),
        ({"epsilon_round": 0.01}, {}, "budget-exhausted"),
        ({"declared_patients": 2000, "delta": 0.0009}, {}, "delta-too-large"),
        ({"rounds_per_day": 0}, {}, "rounds-used-up"),
        ({"evaluations_per_day": 0}, {"purpose": "evaluate"}, "evaluations-used-up"),
        ({"evaluations_per_day": 0}, {}, None),
        ({"delta": 0.0009}, {"steps": 1}, None),
        ({}, {"now": 1_000_000}, "plan-expired"),
        ({}, {"now": 4_000_000_000}, "plan-not-yet-valid"),
        (
            {"allow_without_privacy": True},
            {"rate_of_learning": 1e38, "epsilon": None},
            "update-not-finite",
        ),
    ],
)
def test_refusals(
    site: SiteSettings,
    base: Tensors,
    policy: dict[str, object],
    plan: dict[str, object],
    code: str | None,
) -> None:
    change_policy(site, **policy)
    reply = answer(site, make_plan(base=base, **plan), base)  # type: ignore[arg-type]
    assert (reply.refusal.code if reply.refusal else None) == code
