"""A coordinator that was restored from an older backup, and sites that went on meanwhile."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from flwr.app import RecordDict

from common.errors import RoundFailed
from common.plan import RoundPlan
from common.records import SiteReply
from server.registry.records import Campaign
from server.registry.registry import Registry
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import Ledgered, buffered, ledgered

ROUNDS = 4


def saved_at(made: Coordinator, site: str, number: int, backup: Path) -> None:
    """Copy the coordinator's folder when a site is asked to train a round."""
    honest = made.sites[site].behave

    def saving(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.purpose == "train" and plan.round == number and not backup.exists():
            shutil.copytree(made.settings.folder, backup)
        return honest(reply, plan)  # type: ignore[return-value]

    made.sites[site].behave = saving


def restore(made: Coordinator, backup: Path) -> None:
    made.registry.close()
    shutil.rmtree(made.settings.folder)
    shutil.copytree(backup, made.settings.folder)
    made.registry = Registry.open(made.settings)


def refused(made: Coordinator, campaign: Campaign, number: int) -> set[tuple[str, str | None]]:
    found = made.registry.contributions(campaign.id, number=number)
    return {(told.outcome, told.code) for told in found}


def trained(behaviours: dict[str, Ledgered]) -> dict[str, list[int]]:
    return {name: list(behaviour.trained) for name, behaviour in behaviours.items()}


def test_one_round_behind_the_sites_send_it_again(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 0.0, 0.0, 0.0)
    campaign = made.create(rounds=ROUNDS)
    saved_at(made, "a", ROUNDS, tmp_path / "backup")
    first = made.run(campaign)
    before = trained(behaviours)
    restore(made, tmp_path / "backup")
    assert made.run(campaign).model_digest == first.model_digest
    assert trained(behaviours) == before


def test_further_behind_it_fails_and_fails_again_and_a_new_one_runs(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 0.0, 0.0, 0.0)
    campaign = made.create(rounds=ROUNDS)
    saved_at(made, "a", 2, tmp_path / "backup")
    made.run(campaign)
    before = trained(behaviours)
    restore(made, tmp_path / "backup")
    for _ in range(2):
        with pytest.raises(RoundFailed) as caught:
            made.run(campaign)
        assert caught.value.code == "quorum"
        assert refused(made, campaign, 2) == {("refused", "plan-out-of-order")}
        made.registry.moves.resume(campaign.id)
    assert trained(behaviours) == before
    made.registry.moves.cancel(campaign.id)
    for behaviour in behaviours.values():
        behaviour.trained, behaviour.newest = [], None  # a site counts each campaign's by itself
    assert made.run(made.create(rounds=ROUNDS)).state == "approved"


def test_those_that_were_away_meanwhile_carry_it_to_where_the_others_join(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 0.0, 0.0, 0.0)
    campaign = made.create(rounds=ROUNDS)
    saved_at(made, "a", 2, tmp_path / "backup")
    made.run(campaign)
    restore(made, tmp_path / "backup")
    for name in "ab":
        behaviours[name].trained, behaviours[name].newest = [1], None
    behaviours["c"].trained, behaviours["c"].newest = [1, 2, 3], None
    made.run(campaign)
    codes = [made.contribution(campaign, "c", number=n).code for n in range(1, ROUNDS + 1)]
    assert codes == [None, "plan-out-of-order", "training-lost", None]


def test_buffered_rounds_pass_over_the_turns_that_are_spent(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0)
    campaign = buffered(made, rounds=ROUNDS)
    saved_at(made, "a", 1, tmp_path / "backup")
    made.run(campaign)
    before = trained(behaviours)
    restore(made, tmp_path / "backup")
    tries = 0
    while made.registry.campaign(campaign.id).state != "finished":
        tries += 1
        assert tries < 6
        with suppress(RoundFailed):
            made.run(campaign)
            break
        made.registry.moves.resume(campaign.id)
    assert tries > 1
    for name, own in trained(behaviours).items():
        assert own == list(range(1, max(own) + 1)), "each turn once"
        assert len(own) > len(before[name])
