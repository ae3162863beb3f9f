"""A site that answers wrongly is dropped, with the reason on record; the others go on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from common.audit_entries import ReplyRefused
from common.errors import RoundFailed
from common.evaluation import merge
from common.plan import RoundPlan
from common.records import Receipt, Refusal, SiteReply
from common.update import UpdateBinding
from common.wire import reply_to_records
from server.model_store import ModelStore
from server.registry.records import Contribution
from tests.fakes import (
    TARGET,
    FakeSite,
    binding_of,
    broken,
    rebuilt,
    refusing,
    scaled,
    silent,
    with_bias,
)
from tests.server.campaigns import Coordinator, three

Behaviour = Callable[[SiteReply, RoundPlan], RecordDict]
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


def named(name: str) -> Behaviour:
    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        assert reply.receipt is not None
        receipt: Receipt = reply.receipt.model_copy(update={"site": name})
        return reply_to_records(replace(reply, site=name, receipt=receipt))

    return behave


def scored_in_one_round(coordinator: Coordinator) -> tuple[Contribution, int]:
    """Return what became of ``west`` in one round, and the patients whose counts were taken."""
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    (first, _) = coordinator.registry.rounds(campaign.id)
    assert first.metrics is not None
    return coordinator.contribution(campaign, "west"), first.metrics.count


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
    found, patients = scored_in_one_round(coordinator)
    assert (found.outcome, found.code) == ("refused", "configuration")
    assert patients == 120, "whose patients those were nobody knows"


def test_no_text_of_a_site_reaches_the_registry(tmp_path: Path) -> None:
    coordinator = three(tmp_path, behave=broken)
    campaign = coordinator.create(quorum=3)
    with pytest.raises(RoundFailed) as caught:
        coordinator.run(campaign)
    told = str(caught.value) + str(coordinator.registry.contributions(campaign.id))
    told += str(coordinator.registry.campaign(campaign.id).failure)
    assert "jane" not in told
    assert "Traceback" not in told


def test_a_site_that_may_not_train_can_still_evaluate(tmp_path: Path) -> None:
    def spent(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.purpose == "evaluate":
            return reply_to_records(reply)
        refusal = Refusal(code="budget-spent")
        return reply_to_records(SiteReply(reply.site, refusal, evaluation=reply.evaluation))

    coordinator = three(tmp_path, behave=spent)
    found, patients = scored_in_one_round(coordinator)
    assert found.outcome == "refused"
    assert patients == 180


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
    found, patients = scored_in_one_round(coordinator)
    assert found.code == "budget-spent"
    assert patients == 120
    lines = coordinator.registry.audit.lines(kinds=("reply-refused",))
    noted = [e.code for e in (line.entry() for line in lines) if isinstance(e, ReplyRefused)]
    assert noted[:2] == ["budget-spent", "reply-evaluation"]
