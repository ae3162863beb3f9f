"""Attacks on the privacy budget and on the policy that guards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from client import outbox_checks, round_handler
from client.policy import SitePolicy
from client.privacy import ledger as ledger_module
from client.privacy import round_cost
from client.privacy.accounting import Budget, Spend
from client.privacy.forecast import round_request
from client.privacy.ledger_lines import LedgerLine, RoundRequest, spends
from client.training import evaluation as holdout_evaluation
from common.evaluation import SiteEvaluation, evaluate_predictions
from common.plan import RoundPlan
from common.recipe import LossSpec
from common.records import SiteReply
from common.signing import SigningKey
from common.update import ModelUpdate, difference
from tests.attacks.attack import Attack, Finding
from tests.attacks.hospital import BASE, Hospital, answer, without_outbox
from tests.client.rounds import TOY, make_plan, signed

LIFE = 1.5


def many_campaigns(folder: Path) -> Finding:
    """Each of many one-round campaigns stays within its own epsilon."""
    hospital = Hospital.build(folder, epsilon_life=LIFE)
    replies = [
        hospital.ask(make_plan(base=BASE, campaign=f"c{n}", rounds=1, epsilon=1.0))
        for n in range(6)
    ]
    return _spent(hospital, replies)


def second_coordinator(folder: Path) -> Finding:
    """Two coordinators, who do not know of each other, spend in turn."""
    hospital, other = Hospital.build(folder, epsilon_life=LIFE), SigningKey.generate()
    hospital.trust(other)
    replies = [
        hospital.ask(signed(make_plan(base=BASE, campaign=f"theirs-{n}", rounds=1, epsilon=2), key))
        for n, key in enumerate([None, other] * 3)
        if key is not None
    ]
    for n in range(3):
        plan = make_plan(base=BASE, campaign=f"ours-{n}", rounds=1, epsilon=2)
        replies.append(hospital.ask(plan))
    return _spent(hospital, replies)


def _spent(hospital: Hospital, replies: Sequence[SiteReply]) -> Finding:
    spent, rounds = hospital.epsilon(), hospital.trained()
    told = f"{rounds} of {len(replies)} rounds; then {answer(replies[-1])}"
    return Finding(spent > LIFE, told, f"epsilon {spent:.2f} of {LIFE:g}")


def forget_other_campaigns(patch: pytest.MonkeyPatch) -> None:
    def of_one(lines: Sequence[LedgerLine], campaign: str | None = None) -> list[Spend]:
        return [] if campaign is None else spends(lines, campaign)

    for module in (ledger_module, round_cost):
        patch.setattr(module, "spends", of_one)
    patch.setattr(outbox_checks, "spends", of_one)


def hardly_any_noise(folder: Path) -> Finding:
    """An epsilon of 1,000 in the plan, which no noise to speak of would keep."""
    hospital = Hospital.build(folder)
    reply = hospital.ask(make_plan(base=BASE, rounds=1, epsilon=1000.0))
    (line, *_) = hospital.lines()
    policy = SitePolicy.read(hospital.settings.policy)
    told = f"{answer(reply)}; noise multiplier {line.noise_multiplier:.2f}"
    spent = hospital.epsilon()
    won = line.noise_multiplier < policy.min_noise_multiplier or spent > policy.epsilon_campaign
    return Finding(won, told, f"epsilon {spent:.2f} of {policy.epsilon_campaign:g}")


def believe_the_plans_epsilon(patch: pytest.MonkeyPatch) -> None:
    def asked(epsilon: float, policy: SitePolicy) -> Budget:
        return Budget(epsilon, epsilon, policy.delta, min_noise_multiplier=0.3)

    patch.setattr(round_handler, "round_budget", asked)
    without_outbox(patch)


def endless_clip(folder: Path) -> Finding:
    """A clip of a million, so that a single patient decides the whole step."""
    hospital = Hospital.build(folder)
    reply = hospital.ask(make_plan(base=BASE, clip=1e6))
    (line, *_) = hospital.lines()
    allowed = SitePolicy.read(hospital.settings.policy).max_grad_norm
    told = f"{answer(reply)}; clip {line.max_grad_norm:g} of {allowed:g} allowed"
    return Finding(line.max_grad_norm > allowed, told)


def believe_the_plans_clip(patch: pytest.MonkeyPatch) -> None:
    def asked(plan: RoundPlan, policy: SitePolicy) -> RoundRequest:
        return replace(round_request(plan, policy), max_grad_norm=plan.privacy.max_grad_norm)

    patch.setattr(round_handler, "round_request", asked)
    without_outbox(patch)


def without_privacy(folder: Path) -> Finding:
    reply = Hospital.build(folder).ask(make_plan(base=BASE, epsilon=None))
    return Finding(reply.update is not None, answer(reply))


def allow_all_training(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SitePolicy, "_check_training", lambda *_: None)
    without_outbox(patch)


def changed_recipe(folder: Path) -> Finding:
    """Another loss under the allowed name: it weighs one class a hundredfold."""
    loss = LossSpec(class_weights=(1.0, 100.0))
    recipe = TOY.model_copy(update={"loss": loss})
    reply = Hospital.build(folder).ask(make_plan(base=BASE, recipe=recipe))
    return Finding(reply.update is not None, answer(reply))


def believe_the_plans_recipe(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SitePolicy, "_check_recipe", lambda *_: None)


def small_cells(folder: Path) -> Finding:
    """Counts over so few holdout patients that each tells about one of them."""
    hospital = Hospital.build(folder, minimum_cell=5)
    evaluation = hospital.ask(make_plan(base=BASE, purpose="evaluate")).evaluation
    assert evaluation is not None
    small = [c for c in _cells(evaluation) if 0 < c < 5]
    return Finding(bool(small), f"{len(small)} counts below 5 left the site")


def _cells(evaluation: SiteEvaluation) -> list[int]:
    cells = [*evaluation.unresolved, *(c for row in evaluation.confusion for c in row)]
    for histogram in (*evaluation.positives, *evaluation.negatives):
        cells += histogram.counts
    return cells


def release_small_cells(patch: pytest.MonkeyPatch) -> None:
    def all_counts(*arguments: object, **_: object) -> SiteEvaluation:
        return evaluate_predictions(*arguments, minimum_cell=1)  # type: ignore[arg-type]

    patch.setattr(holdout_evaluation, "evaluate_predictions", all_counts)
    without_outbox(patch)


def more_than_the_update(folder: Path) -> Finding:
    """A mistake in the site's own round code sends a tensor that nobody may have."""
    hospital = Hospital.build(folder)

    def careless(*arguments: object, **named: object) -> ModelUpdate:
        update = difference(*arguments, **named)  # type: ignore[arg-type]
        name = next(iter(update.tensors))
        extra = {"class_counts": update.tensors[name]}
        return ModelUpdate(update.binding, {**update.tensors, **extra})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_handler, "difference", careless)
        reply = hospital.ask(make_plan(base=BASE))
    leaked = reply.update is not None and "class_counts" in reply.update.tensors
    return Finding(leaked, answer(reply))


ATTACKS = (
    Attack(
        "many-small-campaigns",
        "malicious coordinator",
        "epsilon exhausted by six small campaigns",
        "one ledger for the site's life",
        many_campaigns,
        forget_other_campaigns,
    ),
    Attack(
        "second-coordinator",
        "malicious coordinator",
        "a second coordinator spends the same budget",
        "one ledger for all coordinators",
        second_coordinator,
        forget_other_campaigns,
    ),
    Attack(
        "noise-to-nothing",
        "malicious coordinator",
        "epsilon 1,000, that is hardly any noise",
        "the policy's epsilon and least noise",
        hardly_any_noise,
        believe_the_plans_epsilon,
    ),
    Attack(
        "clip-to-infinity",
        "malicious coordinator",
        "a clip of a million",
        "the policy's largest clip",
        endless_clip,
        believe_the_plans_clip,
    ),
    Attack(
        "no-privacy",
        "malicious coordinator",
        "training without privacy",
        "privacy unless the policy says otherwise",
        without_privacy,
        allow_all_training,
    ),
    Attack(
        "changed-recipe",
        "malicious coordinator",
        "another loss under an allowed name",
        "the site's own copy of the recipe",
        changed_recipe,
        believe_the_plans_recipe,
    ),
    Attack(
        "small-cells",
        "curious coordinator",
        "holdout counts of single patients",
        "small cells are suppressed",
        small_cells,
        release_small_cells,
    ),
    Attack(
        "careless-site-code",
        "curious coordinator",
        "a tensor too many in an update",
        "the outbox checks by itself",
        more_than_the_update,
        without_outbox,
    ),
)
