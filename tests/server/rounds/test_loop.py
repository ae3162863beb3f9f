"""A campaign from its first round to its candidate, or to the failure that ends it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from common.errors import RoundFailed, WardroundError
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.records import SiteReply
from common.signing import SigningKey
from common.update import tensors_digest
from common.wire import records_to_request, reply_to_records
from server.model_store import ModelStore
from server.registry.records import TrainablePhase
from tests.fakes import (
    TARGET,
    TRAINABLE,
    FakeSite,
    broken,
    first_model,
    rebuilt,
    refusing,
    scaled,
    toy_recipe,
    with_bias,
)
from tests.server.campaigns import Coordinator, three


def test_honest_sites_make_an_approved_candidate(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    campaign = coordinator.create()
    candidate = coordinator.run(campaign)
    assert candidate.state == "approved"
    assert coordinator.registry.campaign(campaign.id).state == "finished"
    rounds = coordinator.registry.rounds(campaign.id)
    assert [(r.number, r.purpose, r.state) for r in rounds] == [
        (1, "train", "finished"),
        (2, "train", "finished"),
        (3, "train", "finished"),
        (4, "evaluate", "finished"),
    ]
    for earlier, later in pairwise(rounds):
        assert later.base_digest == earlier.aggregate_digest
    aurocs = [r.metrics.macro_auroc for r in rounds if r.metrics is not None]
    assert aurocs[0] is not None
    assert aurocs[0] < 0.7
    assert aurocs[-1] is not None
    assert aurocs[-1] > 0.95
    lineage = candidate.draft.lineage
    assert [(s.site, s.rounds) for s in lineage.sites] == [("north", 3), ("south", 3), ("west", 3)]
    assert lineage.sites[0].receipt is not None
    assert lineage.sites[0].receipt.round == 3
    assert candidate.draft.metrics.candidate.count == 180
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    np.testing.assert_allclose(weights["head.weight"], TARGET["head.weight"] * 0.875, rtol=1e-5)
    assert weights["batches"] == 7


def test_sites_weigh_by_their_declared_patients(tmp_path: Path) -> None:
    sites = [FakeSite("north", patients=100, speed=0.0), FakeSite("south", patients=300, speed=1)]
    coordinator = Coordinator(tmp_path, sites)
    candidate = coordinator.run(coordinator.create(rounds=1))
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    np.testing.assert_allclose(weights["head.bias"], TARGET["head.bias"] * 0.75, rtol=1e-6)


def test_every_site_gets_a_signed_plan_with_its_own_nonce(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.run(coordinator.create(epsilon=4.0))
    key = SigningKey.read(coordinator.settings.keys / "plan.pem").verify_key
    nonces = set()
    for message in coordinator.grid.pushed:
        signed, base = records_to_request(message.content)
        plan = verify_plan(signed, [key], now=coordinator.clock.now())
        assert (plan.purpose == "preflight") == (not base)  # no model travels to be told a price
        assert plan.base_digest == tensors_digest(base)
        assert plan.privacy.epsilon == 4.0
        assert plan.training == plan.recipe.privacy.training
        assert plan.steps_before == (plan.round - 1) * plan.training.local_steps
        nonces.add(plan.nonce)
    assert len(nonces) == len(coordinator.grid.pushed) == 15
    assert isinstance(signed, SignedPlan)


def test_without_a_quorum_of_successes_nothing_is_released(tmp_path: Path) -> None:
    """Flower's FedAvg released one hospital's raw model here."""
    sites = [FakeSite("north"), FakeSite("south", behave=broken), FakeSite("west", behave=refusing)]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create()
    with pytest.raises(RoundFailed) as caught:
        coordinator.run(campaign)
    assert caught.value.code == "quorum"
    assert "south (site-app-failed)" in str(caught.value)
    assert "west (budget-spent)" in str(caught.value)
    ended = coordinator.registry.campaign(campaign.id)
    assert ended.state == "failed"
    assert ended.failure is not None
    assert "south (site-app-failed)" in ended.failure
    assert [r.state for r in coordinator.registry.rounds(campaign.id)] == ["failed"]
    assert coordinator.registry.candidates() == ()


def test_in_a_second_attempt_only_those_that_failed_are_asked_again(tmp_path: Path) -> None:
    """A site whose update is in has spent its privacy: asking it again would spend it twice."""
    attempts = []

    def recovering(reply: SiteReply, plan: RoundPlan) -> object:
        attempts.append(plan.nonce)
        return broken(reply, plan) if len(attempts) == 1 else reply_to_records(reply)

    sites = [FakeSite("north"), FakeSite("south", behave=recovering)]  # type: ignore[arg-type]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    trained = [p for p in coordinator.sites["north"].plans if p.purpose == "train"]
    assert len(trained) == 1
    assert attempts[0] != attempts[1]
    assert coordinator.contribution(campaign, "south").outcome == "failed"
    assert coordinator.contribution(campaign, "south", attempt=2).outcome == "accepted"


def test_early_stopping_keeps_the_best_model(tmp_path: Path) -> None:
    def overshooting(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        return scaled(1.0 if plan.round <= 2 else -3.0)(reply, plan)

    sites = [FakeSite(n, behave=overshooting) for n in ("north", "south", "west")]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create(rounds=20, early_stopping_rounds=2)
    candidate = coordinator.run(campaign)
    rounds = coordinator.registry.rounds(campaign.id)
    trained = [r for r in rounds if r.purpose == "train"]
    assert 4 <= len(trained) < 20
    best = max(trained, key=lambda r: (r.metrics.macro_auroc or 0) if r.metrics else 0)
    assert candidate.model_digest == best.base_digest
    assert best.metrics is not None
    assert candidate.draft.metrics.candidate == best.metrics
    assert candidate.draft.lineage.rounds == len(trained)
    assert candidate.model_digest in ModelStore(coordinator.settings.models)


def test_the_head_trains_alone_first_where_the_recipe_says_so(tmp_path: Path) -> None:
    def head_only(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if reply.update is None or plan.trainable == "all":
            return reply_to_records(reply)
        return rebuilt(reply, {"head.bias": reply.update.tensors["head.bias"]})

    sites = [FakeSite(n, behave=head_only) for n in ("north", "south")]
    coordinator = Coordinator(tmp_path, sites)
    phases = (
        TrainablePhase(first_round=1, scope="head", names=("head.bias",)),
        TrainablePhase(first_round=3, scope="all", names=TRAINABLE),
    )
    campaign = coordinator.create(rounds=4, phases=phases)
    coordinator.run(campaign)
    scopes = [p.trainable for p in coordinator.sites["north"].plans]
    assert scopes == ["head", "head", "all", "all", "all"]
    assert all(c.outcome == "accepted" for c in coordinator.registry.contributions(campaign.id))


def test_training_that_diverges_ends_the_campaign(tmp_path: Path) -> None:
    sites = [FakeSite(n, behave=with_bias(np.full(2, 3e38))) for n in ("north", "south")]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create(rounds=3)
    with np.errstate(over="ignore"), pytest.raises(WardroundError) as caught:
        coordinator.run(campaign)
    assert caught.value.code in ("aggregate-not-finite", "quorum")
    assert coordinator.registry.campaign(campaign.id).state == "failed"


def test_checkpoints_are_gone_but_the_candidate_stays(tmp_path: Path) -> None:
    coordinator = three(tmp_path, delay=40.0)
    campaign = coordinator.create(rounds=6)
    candidate = coordinator.run(campaign)
    kept = {path.stem for path in coordinator.settings.models.glob("*.safetensors")}
    assert kept == {campaign.initial_digest, candidate.model_digest}
    assert tensors_digest(first_model()) == campaign.initial_digest
    assert toy_recipe(rounds=6) == campaign.recipe
