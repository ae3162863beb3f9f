"""A reply is held to its own plan, to what the policy releases, and to each ground it stands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.outbox import Outbox
from client.outbox_checks import Grounds, check_reply
from client.policy import SitePolicy
from common.errors import PrivacyRefused
from common.evaluation import SiteEvaluation, evaluate_predictions
from common.records import Forecast
from common.update import Tensors
from tests.client.outbox_rounds import Round, assert_held_back, begin
from tests.client.rounds import TOY, make_plan, make_site


def test_a_reply_to_another_plan_is_held_back(trained: Round, scored: Round) -> None:
    assert_held_back(scored, trained.reply)
    assert_held_back(trained, scored.reply)


def counts(minimum: int, cases: int = 40, classes: tuple[str, ...] = TOY.classes) -> SiteEvaluation:
    labels = np.arange(cases) % 2
    scores = np.linspace(0.01, 0.99, cases)
    return evaluate_predictions(
        np.stack([1 - scores, scores], axis=1), labels, classes, minimum_cell=minimum
    )


@pytest.mark.parametrize(
    "evaluation",
    [
        counts(1),
        counts(1).model_copy(update={"minimum_cell": 2}),  # it says so, but is not
        counts(2, classes=("jane", "doe")),
    ],
)
def test_counts_that_the_policy_does_not_release_are_held_back(
    scored: Round, evaluation: SiteEvaluation
) -> None:
    assert_held_back(scored, replace(scored.reply, evaluation=evaluation))


def test_counts_do_not_ride_along_unasked(trained: Round, base: Tensors) -> None:
    plan = make_plan(base=base, campaign="unscored", evaluate=False)
    quiet = begin(trained.settings, trained.outbox, plan, base)
    assert quiet.reply.evaluation is None
    assert_held_back(quiet, replace(quiet.reply, evaluation=counts(2)))


FORECAST_CHANGES: tuple[dict[str, object], ...] = (
    {"site": "jane-doe"},
    {"campaign": "other"},
    {"nonce": "0" * 64},
    {"rounds": 2},
    {"epsilon_life": 0.0},
    {"delta": 0.5},
    {"code": "jane-doe", "affordable": False},
    {"affordable": False},
)


@pytest.mark.parametrize("change", FORECAST_CHANGES)
def test_a_forecast_tells_no_more_than_asked(forecast: Round, change: dict[str, object]) -> None:
    told = forecast.reply.forecast
    assert isinstance(told, Forecast)
    wrong = told.model_copy(update=change)
    assert_held_back(forecast, replace(forecast.reply, forecast=wrong))


def test_a_forecast_does_not_carry_counts(forecast: Round) -> None:
    assert_held_back(forecast, replace(forecast.reply, evaluation=counts(2)))


def test_a_forecast_is_no_answer_to_a_round(trained: Round, forecast: Round) -> None:
    assert_held_back(trained, forecast.reply)
    assert_held_back(forecast, trained.reply)


@pytest.fixture
def grounds(trained: Round, monkeypatch: pytest.MonkeyPatch) -> Grounds:
    """On what the outbox judged an honest reply."""
    seen: list[Grounds] = []
    monkeypatch.setattr("client.outbox.check_reply", lambda _, grounds: seen.append(grounds))
    trained.outbox.send(trained.reply, trained.request)
    return seen[0]


def without_line(grounds: Grounds, kind: str) -> Grounds:
    own = grounds.plan.nonce
    kept = [line for line in grounds.lines if not (line.nonce == own and line.kind == kind)]
    return replace(grounds, lines=kept)


def with_line(grounds: Grounds, kind: str, **changes: object) -> Grounds:
    own = grounds.plan.nonce
    lines = [
        replace(line, **changes) if line.nonce == own and line.kind == kind else line  # type: ignore[arg-type]
        for line in grounds.lines
    ]
    return replace(grounds, lines=lines)


def with_policy(grounds: Grounds, **changes: object) -> Grounds:
    return replace(grounds, policy=grounds.policy.model_copy(update=changes))


def with_memory(grounds: Grounds, **changes: object) -> Grounds:
    assert grounds.memory is not None
    return replace(grounds, memory=replace(grounds.memory, **changes))  # type: ignore[arg-type]


GROUNDS: tuple[tuple[str, Callable[[Grounds], Grounds]], ...] = (
    ("plan-not-accepted", lambda g: replace(g, memory=None)),
    ("plan-not-accepted", lambda g: with_memory(g, campaign="other")),
    ("plan-not-accepted", lambda g: with_memory(g, purpose="evaluate")),
    ("update-unreserved", lambda g: without_line(g, "reserve")),
    ("update-unreserved", lambda g: without_line(g, "outcome")),
    ("update-unreserved", lambda g: with_line(g, "reserve", campaign="other")),
    ("update-untrained", lambda g: with_line(g, "outcome", outcome="internal-error")),
    ("update-unnoised", lambda g: with_line(g, "reserve", noise_multiplier=0.0)),
    ("receipt-noise", lambda g: with_line(g, "reserve", noise_multiplier=0.6)),
    ("receipt-epsilon", lambda g: with_line(g, "reserve", steps=2, sampling_rate=0.9)),
    ("receipt-noise", lambda g: with_policy(g, min_noise_multiplier=90.0)),
    ("receipt-noise", lambda g: with_policy(g, max_grad_norm=0.01)),
    ("receipt-delta", lambda g: with_policy(g, delta=1e-6)),
    ("evaluation-not-released", lambda g: with_policy(g, release_evaluation=False)),
    ("evaluation-unasked", lambda g: with_memory(g, scores=False)),
    ("evaluation-cell", lambda g: with_policy(g, minimum_cell=11)),
    ("update-names", lambda g: replace(g, trainable={})),
    ("site-name", lambda g: replace(g, site="south")),
)


@pytest.mark.parametrize(("rule", "change"), GROUNDS)
def test_each_ground_counts(
    trained: Round, grounds: Grounds, rule: str, change: Callable[[Grounds], Grounds]
) -> None:
    check_reply(trained.reply, grounds)
    with pytest.raises(PrivacyRefused, match=rf"\({rule}\)") as caught:
        check_reply(trained.reply, change(grounds))
    assert caught.value.code == "outbox-refused"


@pytest.mark.parametrize(
    ("policy", "asked"),
    [({"declared_patients": None}, 8.0), ({"allow_without_privacy": False}, None)],
    ids=["no-declared-patients", "no-training-without-privacy"],
)
def test_a_site_that_would_not_train_still_scores(
    tmp_path: Path, base: Tensors, policy: dict[str, object], asked: float | None
) -> None:
    site = make_site(tmp_path / "site", patients=4, holdout=20, **policy)
    with Outbox.open(site) as outbox:
        scoring = make_plan(base=base, purpose="evaluate", epsilon=asked)
        scored = begin(site, outbox, scoring, base)
        left = scored.sent(scored.reply)
        assert left.refusal is None
        assert left.evaluation is not None
        assert left.receipt is not None
        assert left.receipt.public_patients == (SitePolicy.read(site.policy).declared_patients or 0)
        counted = scored.sent(scored.with_receipt(public_patients=3))
        assert counted.refusal is not None
