from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from common.audit_entries import ReplyRefused
from common.errors import RoundFailed, WardroundError
from common.evaluation import merge
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.records import Receipt, Refusal, SiteReply
from common.signing import SigningKey
from common.update import UpdateBinding, tensors_digest
from common.wire import records_to_request, reply_to_records
from server.model_store import ModelStore
from server.registry.records import TrainablePhase
from tests.fakes import (
    TARGET,
    TRAINABLE,
    FakeSite,
    binding_of,
    broken,
    first_model,
    rebuilt,
    refusing,
    scaled,
    silent,
    toy_recipe,
)
from tests.server.campaigns import Coordinator

Behaviour = Callable[[SiteReply, RoundPlan], RecordDict]


def three(tmp_path: Path, **last: object) -> Coordinator:
    """Two honest sites, and a third of the kind that a test is about."""
    third = FakeSite("west", **last)  # type: ignore[arg-type]
    return Coordinator(tmp_path, [FakeSite("north"), FakeSite("south", patients=300), third])


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


REPLAYED: dict[str, RecordDict] = {}


def replaying(reply: SiteReply, plan: RoundPlan) -> RecordDict:
    return REPLAYED.setdefault(plan.campaign, reply_to_records(reply))


def rebound(**changes: object) -> Behaviour:
    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if reply.update is None:
            return reply_to_records(reply)
        binding = UpdateBinding(**{**vars(binding_of(plan)), **changes})  # type: ignore[arg-type]
        return rebuilt(reply, dict(reply.update.tensors), binding)

    return behave


def with_bias(bias: np.ndarray) -> Behaviour:
    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if reply.update is None:
            return reply_to_records(reply)
        return rebuilt(reply, {**reply.update.tensors, "head.bias": bias.astype(np.float32)})

    return behave


def named(name: str) -> Behaviour:
    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        assert reply.receipt is not None
        receipt: Receipt = reply.receipt.model_copy(update={"site": name})
        return reply_to_records(replace(reply, site=name, receipt=receipt))

    return behave


@pytest.mark.parametrize(
    ("behave", "outcome", "code"),
    [
        (broken, "failed", "site-app-failed"),
        (refusing, "refused", "budget-spent"),
        (silent, "late", "deadline"),
        (with_bias(np.zeros(3)), "rejected", "update-shape"),
        (with_bias(np.array([0, np.nan])), "rejected", "update-not-finite"),
        (rebound(base_digest="cd" * 32), "rejected", "reply-binding"),
        (rebound(campaign="other"), "rejected", "reply-binding"),
        (rebound(nonce="cd" * 32), "rejected", "reply-binding"),
        (named("north"), "rejected", "reply-site"),
        (lambda reply, plan: RecordDict(), "rejected", "reply-malformed"),
        (scaled(1e6), "rejected", "update-norm"),
    ],
)
def test_a_bad_site_is_dropped_and_the_record_says_why(
    tmp_path: Path, behave: Behaviour, outcome: str, code: str
) -> None:
    coordinator = three(tmp_path, behave=behave)
    campaign = coordinator.create(epsilon=8.0)
    candidate = coordinator.run(campaign)
    assert candidate.state == "approved"
    found = coordinator.contribution(campaign, "west")
    assert (found.outcome, found.code, found.receipt) == (outcome, code, None)
    assert [s.site for s in candidate.draft.lineage.sites] == ["north", "south"]
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    np.testing.assert_allclose(weights["head.weight"], TARGET["head.weight"] * 0.875, rtol=1e-5)


def test_a_huge_update_is_refused_without_privacy_once_a_norm_is_known(tmp_path: Path) -> None:
    calls = []

    def turning(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        calls.append(plan.round)
        return scaled(1e4 if plan.round >= 2 else 1)(reply, plan)

    coordinator = three(tmp_path, behave=turning)
    campaign = coordinator.create()
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").outcome == "accepted"
    assert coordinator.contribution(campaign, "west", number=2).code == "update-norm"


def test_a_replayed_update_is_refused(tmp_path: Path) -> None:
    coordinator = three(tmp_path, behave=replaying)
    campaign = coordinator.create()
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").outcome == "accepted"
    assert coordinator.contribution(campaign, "west", number=2).code == "reply-binding"


def test_a_reply_that_comes_twice_counts_once(tmp_path: Path) -> None:
    sites = [FakeSite("north", speed=0.0), FakeSite("south", speed=1.0)]
    coordinator = Coordinator(tmp_path, sites)
    coordinator.grid.duplicated = {100, 101}
    candidate = coordinator.run(coordinator.create(rounds=1))
    weights = ModelStore(coordinator.settings.models).load(candidate.model_digest)
    np.testing.assert_allclose(weights["head.bias"], TARGET["head.bias"] * 0.5, rtol=1e-6)


def test_another_nodes_answer_is_refused(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.grid.impostors = {102: 100}
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").code == "reply-node"


def test_a_site_that_does_not_know_its_name_still_says_why_it_refuses(tmp_path: Path) -> None:
    def nameless(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        refusal = Refusal(code="configuration")
        return reply_to_records(SiteReply("unknown", refusal, evaluation=reply.evaluation))

    coordinator = three(tmp_path, behave=nameless)
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    found = coordinator.contribution(campaign, "west")
    assert (found.outcome, found.code) == ("refused", "configuration")
    (first, _) = coordinator.registry.rounds(campaign.id)
    assert first.metrics is not None
    assert first.metrics.count == 120, "whose patients those were nobody knows"


def test_no_text_of_a_site_reaches_the_registry(tmp_path: Path) -> None:
    coordinator = three(tmp_path, behave=broken)
    campaign = coordinator.create(quorum=3)
    with pytest.raises(RoundFailed) as caught:
        coordinator.run(campaign)
    told = str(caught.value) + str(coordinator.registry.contributions(campaign.id))
    told += str(coordinator.registry.campaign(campaign.id).failure)
    assert "jane" not in told
    assert "Traceback" not in told


def test_a_slow_site_is_waited_for_within_the_deadline(tmp_path: Path) -> None:
    coordinator = three(tmp_path, delay=60.0)
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    found = coordinator.contribution(campaign, "west")
    assert found.outcome == "accepted"
    assert 60 <= found.seconds <= 62
    assert coordinator.clock.slept < 2 * 62


def test_a_site_beyond_the_deadline_is_left_behind(tmp_path: Path) -> None:
    coordinator = three(tmp_path, delay=500.0)
    campaign = coordinator.create(rounds=2)
    candidate = coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").outcome == "late"
    assert coordinator.contribution(campaign, "west", number=2).outcome == "late"
    assert [s.site for s in candidate.draft.lineage.sites] == ["north", "south"]
    assert coordinator.clock.slept == pytest.approx(3 * 100, rel=0.05)


def test_polling_slows_down_but_never_beyond_a_second(tmp_path: Path) -> None:
    coordinator = three(tmp_path, delay=50.0)
    pulls = []
    original = coordinator.grid.pull_messages

    def counted(identifiers: object) -> object:
        pulls.append(coordinator.clock.now())
        return original(identifiers)  # type: ignore[arg-type]

    coordinator.grid.pull_messages = counted  # type: ignore[method-assign,assignment]
    coordinator.run(coordinator.create(rounds=1))
    gaps = np.diff(pulls)
    assert gaps.max() <= 1.0
    assert 50 < len(pulls) < 200


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


def test_a_site_at_work_is_given_more_time_when_it_is_needed(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south", delay=150.0)])
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "south").outcome == "accepted"
    assert len([p for p in coordinator.sites["south"].plans if p.purpose == "train"]) == 1


def test_a_missing_site_delays_a_campaign_once_and_not_for_ever(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.grid.offline = {102}
    campaign = coordinator.create()
    candidate = coordinator.run(campaign)
    assert candidate.state == "approved"
    absent = coordinator.contribution(campaign, "west")
    assert (absent.outcome, absent.code) == ("absent", "not-connected")
    assert 30 <= coordinator.clock.slept < 33


def test_a_late_comer_joins_the_next_round(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.grid.offline = {102}

    def arrive(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        coordinator.grid.offline.clear()
        return reply_to_records(reply)

    coordinator.sites["north"].behave = arrive
    campaign = coordinator.create()
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").outcome == "absent"
    assert coordinator.contribution(campaign, "west", number=2).outcome == "accepted"


def test_with_too_few_sites_nobody_spends_privacy_for_nothing(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.grid.offline = {101, 102}
    campaign = coordinator.create()
    with pytest.raises(RoundFailed, match="south \\(not-connected\\)"):
        coordinator.run(campaign)
    assert coordinator.sites["north"].plans == []
    assert coordinator.clock.slept < 2 * 30 + 5


def test_no_site_at_all_ends_in_bounded_time(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, [])
    with pytest.raises(RoundFailed, match="no other site"):
        coordinator.run(coordinator.create())
    assert coordinator.clock.slept < 2 * 30 + 5


def test_a_node_that_is_not_registered_is_not_asked(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    stranger = FakeSite("stranger")
    coordinator.grid.sites[999] = stranger
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    assert stranger.plans == []
    found = coordinator.registry.contributions(campaign.id)
    assert {c.site for c in found} == {"north", "south", "west"}


def test_a_site_that_is_not_invited_is_not_asked(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    campaign = coordinator.create(rounds=1, sites=("north", "south"))
    coordinator.run(campaign)
    assert coordinator.sites["west"].plans == []
    found = coordinator.registry.contributions(campaign.id)
    assert {c.site for c in found} == {"north", "south"}


def test_unregistered_nodes_are_asked_who_they_are(tmp_path: Path) -> None:
    sites = [FakeSite("north"), FakeSite("south")]
    coordinator = Coordinator(tmp_path, sites, register=False)
    campaign = coordinator.create()
    coordinator.run(campaign)
    found = coordinator.registry.contributions(campaign.id)
    assert {c.site for c in found} == {"north", "south"}


def test_a_site_that_may_not_train_can_still_evaluate(tmp_path: Path) -> None:
    def spent(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.purpose == "evaluate":
            return reply_to_records(reply)
        refusal = Refusal(code="budget-spent")
        return reply_to_records(SiteReply(reply.site, refusal, evaluation=reply.evaluation))

    coordinator = three(tmp_path, behave=spent)
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").outcome == "refused"
    (first, _) = coordinator.registry.rounds(campaign.id)
    assert first.metrics is not None
    assert first.metrics.count == 180


def test_a_refusal_brings_no_counts_past_the_checks(tmp_path: Path) -> None:
    """West may not train, and says that it has scored two million patients, all rightly."""

    def boasting(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        assert reply.evaluation is not None
        million = reply.evaluation
        for _ in range(15):
            million = merge([million, million])
        return reply_to_records(
            SiteReply(reply.site, Refusal(code="budget-spent"), evaluation=million)
        )

    coordinator = three(tmp_path, behave=boasting)
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").code == "budget-spent"
    (first, _) = coordinator.registry.rounds(campaign.id)
    assert first.metrics is not None
    assert first.metrics.count == 120
    lines = coordinator.registry.audit.lines(kinds=("reply-refused",))
    noted = [e.code for e in (line.entry() for line in lines) if isinstance(e, ReplyRefused)]
    assert noted[:2] == ["budget-spent", "reply-evaluation"]


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
