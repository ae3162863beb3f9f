import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

from client import round_handler
from client.cases.store import CaseStore
from client.policy import SitePolicy
from client.privacy.accounting import Spend, epsilon
from client.privacy.ledger import PrivacyLedger
from client.round_handler import RoundHandler, refusal_code
from client.settings import SiteSettings
from common.errors import ModelError, PrivacyRefused
from common.evaluation import metrics
from common.plan import RoundPlan
from common.records import SiteReply
from common.signing import SigningKey
from common.update import Tensors, apply
from tests.client.rounds import TOY, base_tensors, make_plan, make_site, signed


def no_test(*_: object, **__: object) -> None:
    """Stands in for the gradient self-test, which has tests of its own."""


@pytest.fixture(scope="module")
def base() -> Tensors:
    return base_tensors()


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site")


def answer(site: SiteSettings, plan: RoundPlan, base: Tensors) -> SiteReply:
    return RoundHandler(site, self_test=no_test).handle(signed(plan), base)


def refused(site: SiteSettings, plan: RoundPlan, base: Tensors) -> str:
    reply = answer(site, plan, base)
    assert reply.refusal is not None
    assert (reply.receipt, reply.update, reply.evaluation) == (None, None, None)
    return reply.refusal.code


def change_policy(site: SiteSettings, **fields: object) -> None:
    policy = SitePolicy.read(site.policy).model_dump(mode="json", exclude_none=True) | fields
    site.policy.write_text(tomli_w.dumps(policy))


def ledger_lines(site: SiteSettings) -> list[tuple[str, int, str | None]]:
    with PrivacyLedger.open(site) as ledger:
        ledger.verify_chain()
        return [(line.kind, line.round, line.outcome) for line in ledger.entries()]


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


def test_a_preflight_touches_no_case(site: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("cases were read")

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


def test_no_policy_no_keys_no_training(site: SiteSettings, base: Tensors) -> None:
    forged = RoundHandler(site).handle(signed(make_plan(base=base), SigningKey.generate()), base)
    assert forged.refusal is not None
    assert forged.refusal.code == "plan-signature"
    other = {name: np.array(array) for name, array in base.items()}
    next(iter(other.values()))[...] += 1
    assert refused(site, make_plan(base=base), other) == "plan-base-mismatch"
    lacking = {name: base[name] for name in list(base)[1:]}
    assert refused(site, make_plan(base=lacking), lacking) == "model-mismatch"
    (site.folder / "policy.toml").unlink()
    assert refused(site, make_plan(base=base), base) == "policy-missing"
    assert ledger_lines(site) == []


def test_without_the_self_test_nothing_is_spent(site: SiteSettings, base: Tensors) -> None:
    def failing(*_: object, **__: object) -> None:
        raise PrivacyRefused("wrong", code="self-test-failed")

    reply = RoundHandler(site, self_test=failing).handle(signed(make_plan(base=base)), base)
    assert reply.refusal is not None
    assert reply.refusal.code == "self-test-failed"
    assert ledger_lines(site) == []


def test_an_exception_leaves_only_a_code(
    site: SiteSettings,
    base: Tensors,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("patient Jane Doe of ward 7")

    monkeypatch.setattr(round_handler, "train_private", fail)
    with caplog.at_level(logging.INFO):
        plan = make_plan(base=base)
        reply = answer(site, plan, base)
    assert reply.refusal is not None
    assert reply.refusal.code == "internal-error"
    assert "Jane" not in repr(reply)
    assert "Jane" not in caplog.text
    assert ledger_lines(site) == [("reserve", 1, None), ("outcome", 1, "internal-error")]
    monkeypatch.undo()
    assert refused(site, plan, base) == "plan-replayed"  # the failure stays spent


def test_codes_that_may_leave() -> None:
    assert refusal_code(ModelError("x", code="model-mismatch")) == "model-mismatch"
    assert refusal_code(ModelError("x", code="Jane Doe")) == "internal-error"
    assert refusal_code(KeyError("Jane Doe")) == "internal-error"
    assert refusal_code(MemoryError()) == "out-of-memory"
    assert refusal_code(torch.OutOfMemoryError("x")) == "out-of-memory"


def test_killed_between_reserve_and_training(
    tmp_path: Path, database_url: str, base: Tensors
) -> None:
    """A real process, killed with -9 in its training: the round stays spent, and used up."""
    site = make_site(tmp_path / "site", patients=4, holdout=0, database_url=database_url)
    plan = make_plan(base=base)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    script = f"""
        import sys, time
        from pathlib import Path
        from client import round_handler
        from client.settings import SiteSettings
        from common.plan import RoundPlan
        from common.signing import SigningKey
        from tests.client.rounds import TOY, base_tensors, signed
        def train(*_, **__):
            print("training", flush=True)
            sys.stdin.read()
        round_handler.train_private = train
        plan = RoundPlan.model_validate_json(Path({str(tmp_path / "plan.json")!r}).read_bytes())
        key = SigningKey.read(Path({str(tmp_path / "key.pem")!r}))
        site = SiteSettings.read(Path({str(site.folder)!r}))
        handler = round_handler.RoundHandler(site, self_test=lambda *a, **k: None)
        print(handler.handle(signed(plan, key), base_tensors()), flush=True)
    """
    key = SigningKey.generate()
    (tmp_path / "key.pem").write_bytes(key.pem())
    (site.trust / "plan-keys" / "2.pem").write_bytes(key.verify_key.pem())
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "training\n"
    with PrivacyLedger.open(site) as ledger:
        during = ledger.entries()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    with PrivacyLedger.open(site) as ledger:
        assert ledger.verify_chain() == 1
        assert ledger.entries() == during
        line = during[0]
        spend = Spend(line.noise_multiplier, line.sampling_rate, line.steps)
        recomputed = epsilon([spend], 1e-5, kind="prv")
        assert ledger.spent(1e-5, kind="prv").life == pytest.approx(recomputed)
        assert recomputed > 0
        before = ledger.spent(1e-5).life
    assert refused(site, plan, base) == "plan-replayed"
    fresh = make_plan(base=base)  # the same round under another nonce
    assert refused(site, fresh, base) == "plan-replayed"
    reply = answer(site, make_plan(round=2, base=base), base)
    assert reply.receipt is not None
    assert before < (reply.receipt.epsilon_campaign or 0) <= 8.0
