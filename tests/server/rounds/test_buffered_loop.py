"""Buffered rounds as a campaign sees them: no site waits for another, and nobody starves."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from common.errors import RoundFailed
from common.plan import RoundPlan
from common.records import SiteReply
from common.release import ModelFile, model_target
from common.wire import reply_to_records
from server.model_store import ModelStore
from tests.fakes import TARGET, FakeSite, binding_of, rebuilt, scaled, silent, toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import accepted, buffered, ledgered, staleness, turns
from tests.server.rounds.test_loop_compression import packing


def test_one_site_ten_times_slower_holds_nobody_up(tmp_path: Path) -> None:
    rounds = 12
    slow, _ = ledgered(tmp_path / "synchronous", 10.0, 10.0, 100.0)
    campaign = slow.create(rounds=rounds, quorum=2, round_deadline_seconds=1000.0)
    slow.run(campaign)
    synchronous, seconds = accepted(slow, campaign), slow.clock.slept

    quick, behaviours = ledgered(tmp_path / "buffered", 10.0, 10.0, 100.0)
    campaign = buffered(quick, size=3, rounds=rounds, round_deadline_seconds=1000.0)
    quick.run(campaign)
    found = accepted(quick, campaign)
    ratio = seconds / quick.clock.slept
    assert len(found) >= len(synchronous) == 3 * rounds
    assert ratio > 3
    for name, behaviour in behaviours.items():
        assert turns(found, name) == behaviour.trained == list(range(1, len(behaviour.trained) + 1))
    assert len(turns(found, "c")) >= 2, "the slow one is heard"
    assert max(s or 0 for s in staleness(quick, campaign, "c")) >= 5
    assert set(staleness(quick, campaign, "a")) <= {0, 1}


def test_a_candidate_is_learnt_and_every_round_has_its_row(tmp_path: Path) -> None:
    made, _ = ledgered(tmp_path, 1.0, 2.0, 3.0)
    campaign = buffered(made, rounds=20, epsilon=8.0, recipe=toy_recipe(rounds=20))
    candidate = made.run(campaign)
    assert candidate.state == "approved"
    rounds = made.registry.rounds(campaign.id)
    assert [(r.number, r.state) for r in rounds] == [(n, "finished") for n in range(1, 22)]
    for earlier, later in pairwise(rounds):
        assert later.base_digest == earlier.aggregate_digest
    assert any(r.metrics is not None and r.metrics.macro_auroc is not None for r in rounds[1:20])
    last = {s.site: s for s in candidate.draft.lineage.sites}
    for name, part in last.items():
        own = turns(accepted(made, campaign), name)
        assert part.receipt is not None
        assert (part.rounds, part.receipt.round) == (len(own), max(own))


def test_plans_count_a_sites_own_rounds_and_its_budget(tmp_path: Path) -> None:
    made, _ = ledgered(tmp_path, 1.0, 10.0)
    campaign = buffered(made, rounds=6, site_rounds=40, epsilon=8.0)
    made.run(campaign)
    for site in made.sites.values():
        trained = [p for p in site.plans if p.purpose == "train"]
        assert [p.round for p in trained] == list(range(1, len(trained) + 1))
        assert {p.rounds for p in site.plans} == {40}
        assert [p.steps_before for p in trained] == [
            (p.round - 1) * p.training.local_steps for p in trained
        ]
        assert site.plans[-1].purpose == "evaluate"
        assert site.plans[-1].round == 40, "no site takes it for an earlier round"


def test_a_site_trains_no_more_often_than_its_budget_says(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 6.0)
    campaign = buffered(made, rounds=10, site_rounds=4, round_deadline_seconds=900.0)
    made.run(campaign)
    assert all(max(b.trained) <= 4 for b in behaviours.values())
    told = made.registry.contributions(campaign.id)
    assert ("a", "site-rounds-used-up") in {(c.site, c.code) for c in told}
    done = [r for r in made.registry.rounds(campaign.id) if r.state == "finished"]
    assert len(done) < 11, "it ends with the steps that there are"
    unused = [c for c in told if c.code == "step-not-taken"]
    used = len(accepted(made, campaign))
    assert used + len(unused) == sum(len(b.trained) for b in behaviours.values())


def test_stale_updates_are_shortened_and_one_site_is_one_vote(tmp_path: Path) -> None:
    made, _ = ledgered(tmp_path, 1.0, 3.5)
    campaign = buffered(made, rounds=1, size=4)
    candidate = made.run(campaign)
    assert turns(accepted(made, campaign), "a")[:3] == [1, 2, 3]
    weights = ModelStore(made.settings.models).load(candidate.model_digest)
    np.testing.assert_allclose(weights["head.bias"], TARGET["head.bias"] * 0.1, rtol=1e-5)


def test_an_update_that_is_too_old_is_left_out_by_name(tmp_path: Path) -> None:
    """Its site was late beyond its deadline, so nobody waited for it."""
    made, _ = ledgered(tmp_path, 10.0, 10.0, 10.0)
    slow = made.sites["c"]
    campaign = buffered(made, rounds=40, max_staleness=3, attempts=1, round_deadline_seconds=121.0)
    honest, calls = slow.behave, []

    def slower(reply: object, plan: object) -> object:
        calls.append(plan)
        slow.delay = 10.0 if len(calls) < 3 else 400.0
        return honest(reply, plan)  # type: ignore[misc,arg-type]

    slow.behave = slower  # type: ignore[assignment]
    made.run(campaign)
    codes = {c.code for c in made.registry.contributions(campaign.id) if c.site == "c"}
    assert "deadline" in codes
    assert "update-stale" in codes
    assert max(s or 0 for s in staleness(made, campaign, "c")) <= 3


def test_a_step_waits_rather_than_make_training_useless(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 50.0)
    campaign = buffered(made, rounds=40, max_staleness=2)
    made.run(campaign)
    found = accepted(made, campaign)
    assert len(found) == sum(len(b.trained) for b in behaviours.values())
    assert max(s or 0 for s in staleness(made, campaign, "c")) == 2


def test_a_quorum_of_different_sites_is_kept_within_so_many_steps(tmp_path: Path) -> None:
    made, _ = ledgered(tmp_path, 1.0, 1.0, 30.0)
    campaign = buffered(made, rounds=20, quorum=3, quorum_steps=4)
    made.run(campaign)
    by_step = {n: {c.site for c in accepted(made, campaign) if c.round == n} for n in range(1, 21)}
    assert all(len(sites) >= 2 for sites in by_step.values()), "no step is one site's alone"
    for last in range(4, 21):
        assert len(set().union(*(by_step[n] for n in range(last - 3, last + 1)))) == 3


def test_without_a_quorum_it_fails_closed_and_says_who_is_missing(tmp_path: Path) -> None:
    made, _ = ledgered(tmp_path, 1.0, 1.0, 1.0)
    made.sites["c"].behave = silent
    campaign = buffered(made, rounds=20, quorum=3, quorum_steps=4)
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "quorum"
    assert "c (deadline)" in caught.value.what
    rounds = made.registry.rounds(campaign.id)
    assert [r.state for r in rounds] == ["finished"] * 3 + ["failed"]
    assert made.registry.campaign(campaign.id).state == "failed"
    assert made.registry.candidates() == ()


def test_nobody_is_asked_while_a_quorum_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0)
    monkeypatch.setattr("server.app.preflight", lambda *_: made.grid.offline.add(101))
    with pytest.raises(RoundFailed) as caught:
        made.run(buffered(made))
    assert caught.value.code == "quorum"
    assert behaviours["a"].trained == []


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum", "near-median"])
def test_robust_aggregation_has_a_majority_in_every_step(tmp_path: Path, name: str) -> None:
    sites = [FakeSite(n, delay=d) for n, d in (("a", 1.0), ("b", 1.0), ("c", 9.0))]
    liar = FakeSite("d", delay=0.3, behave=scaled(-1.0))
    made = Coordinator(tmp_path, [*sites, liar])
    recipe = toy_recipe(rounds=4, aggregation={"name": name})
    campaign = buffered(made, rounds=4, quorum=4, recipe=recipe)
    candidate = made.run(campaign)
    for number in range(1, 5):
        assert {c.site for c in accepted(made, campaign) if c.round == number} == set("abcd")
    weights = ModelStore(made.settings.models).load(candidate.model_digest)
    wrong = np.abs(weights["head.weight"] - TARGET["head.weight"]).max()
    assert wrong < np.abs(TARGET["head.weight"]).max() / 2


def test_a_training_that_was_killed_costs_one_turn_and_no_more(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0)
    behaviours["b"].loses = (2,)
    campaign = buffered(made, rounds=4)
    made.run(campaign)
    assert 2 not in turns(accepted(made, campaign), "b")
    assert turns(accepted(made, campaign), "b")[:2] == [1, 3]
    assert behaviours["b"].trained == sorted(set(behaviours["b"].trained))


def test_models_travel_as_steps_to_those_who_hold_the_one_before(tmp_path: Path) -> None:
    sites = [FakeSite(n, delay=d) for n, d in (("a", 1.0), ("b", 1.0), ("c", 7.0))]
    made = Coordinator(tmp_path, sites)
    recipe = toy_recipe(rounds=12, compression="fp16")
    for site in sites:
        site.behave = packing("fp16")  # type: ignore[assignment]
    made.run(buffered(made, rounds=12, recipe=recipe))
    assert len(made.sites["a"].stepped) > 5
    assert len(made.sites["c"].plans) > 1, "an older base comes whole, and is answered"


def test_a_bad_update_is_left_out_of_the_step_by_name(tmp_path: Path) -> None:
    sites = [FakeSite(n, delay=1.0) for n in "ab"]

    def nan(reply: object, plan: object) -> object:
        update = reply.update  # type: ignore[attr-defined]
        if update is None:
            return reply_to_records(reply)  # type: ignore[arg-type]
        bad = {n: np.full_like(a, np.nan) for n, a in update.tensors.items()}
        return rebuilt(reply, bad, binding_of(plan))  # type: ignore[arg-type]

    sites.append(FakeSite("c", delay=0.1, behave=nan))  # type: ignore[arg-type]
    made = Coordinator(tmp_path, sites)
    campaign = buffered(made, rounds=3)
    made.run(campaign)
    told = [c for c in made.registry.contributions(campaign.id) if c.site == "c" and c.round < 4]
    assert {c.code for c in told} == {"update-not-finite"}
    assert len(told) <= 3, "once a step"


def test_a_champion_that_nobody_scored_keeps_the_gate_shut(tmp_path: Path) -> None:
    """The sites score no model that they train, and the last one all the same."""

    def unscored(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        told = None if plan.purpose == "train" else reply.evaluation
        return reply_to_records(replace(reply, evaluation=told))

    sites = [FakeSite(name, behave=unscored, speed=0.5) for name in ("a", "b", "c")]
    made = Coordinator(tmp_path, sites)
    first = made.run(buffered(made, rounds=6))
    assert first.state == "approved", "there is no champion yet"
    file = ModelFile(name=model_target(first.model_digest), sha256="cd" * 32, bytes=10)
    made.registry.record_release(first.draft.released(1, file))
    campaign = made.registry.campaign(first.campaign)
    second = made.registry.add_campaign(
        campaign.recipe, campaign.settings, initial_digest=first.model_digest, base_release=1
    )
    found = made.run(second)
    assert [c.name for c in found.draft.gate if not c.passed] == ["champion-non-inferiority"]
    assert found.state == "refused"
