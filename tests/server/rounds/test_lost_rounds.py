"""Training that is cut off at the edge of the quorum costs its round, and not the campaign."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import RecordDict

from common.errors import RoundFailed
from common.plan import RoundPlan
from common.records import SiteReply
from server.api.campaigns import CampaignDocument
from server.outcome_reasons import OUTCOME_REASONS
from server.registry.records import Campaign, Contribution, Round
from server.registry.registry import Registry
from server.rounds.checkpoints import Checkpoints
from tests.fakes import toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import Ledgered, ledgered


class Killed(BaseException):
    """Stands for kill -9: nothing of this process runs after it but what it must."""


def rounds(made: Coordinator, campaign: Campaign) -> list[Round]:
    return [r for r in made.registry.rounds(campaign.id) if r.purpose == "train"]


def of_round(made: Coordinator, campaign: Campaign, number: int) -> dict[str, Contribution]:
    return {c.site: c for c in made.registry.contributions(campaign.id, number=number)}


def assert_lost(made: Coordinator, campaign: Campaign, sites: dict[str, Ledgered]) -> None:
    """All ten rounds were asked for once of each site; the third made no step."""
    found = rounds(made, campaign)
    assert [r.number for r in found] == list(range(1, 11))
    lost = found[2]
    assert (lost.state, lost.code) == ("failed", "round-lost")
    assert lost.base_digest == lost.aggregate_digest == found[3].base_digest
    assert [r.code for r in found if r is not lost] == [None] * 9
    assert sites["a"].trained == sites["b"].trained == list(range(1, 11))
    outcomes = {s: (c.outcome, c.code) for s, c in of_round(made, campaign, 3).items()}
    assert outcomes == {"a": ("failed", "round-lost"), "b": ("refused", "training-lost")}
    assert not list((made.settings.data / "campaigns" / campaign.id).glob("answers-*"))


def test_a_training_lost_at_the_edge_of_the_quorum_ends_its_round_alone(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (3,)
    campaign = made.create(rounds=10, quorum=2, epsilon=8.0)
    candidate = made.run(campaign)
    assert_lost(made, campaign, sites)
    lineage = candidate.draft.lineage
    assert lineage.rounds == 9
    assert {s.site: s.rounds for s in lineage.sites} == {"a": 9, "b": 9}
    spent = [s.receipt.epsilon_campaign for s in lineage.sites if s.receipt is not None]
    assert spent == [8.0, 8.0]  # the lost round's, too


def test_a_campaign_that_an_earlier_version_locked_goes_on_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (3,)
    campaign = made.create(rounds=10, quorum=2)
    with pytest.MonkeyPatch.context() as before:
        before.setattr("server.rounds.loop.lost_sites", lambda _collected: ())
        with pytest.raises(RoundFailed) as caught:
            made.run(campaign)
    assert caught.value.code == "quorum"
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    dropped = of_round(made, campaign, 3)["a"]
    assert (dropped.attempt, dropped.code) == (2, "round-lost")
    found = rounds(made, campaign)
    assert [r.number for r in found if r.code] == [3]
    assert sites["a"].trained == sites["b"].trained == list(range(1, 11))


@pytest.mark.parametrize("before", ["checkpoint", "updates", "record", "next"])
def test_a_kill_around_a_lost_rounds_end_changes_nothing(tmp_path: Path, before: str) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (3,)
    campaign = made.create(rounds=10, quorum=2)
    save, end, give_up = Checkpoints.save, Registry.end_round, Registry.record_contribution

    def killed_save(self: Checkpoints, number: int, *rest: object) -> None:
        if number == 3:
            raise Killed
        save(self, number, *rest)  # type: ignore[arg-type]

    def killed_give_up(self: Registry, told: Contribution) -> None:
        if told.code == "round-lost":
            raise Killed
        give_up(self, told)

    def killed_end(self: Registry, of: str, number: int, **rest: object) -> None:
        if number == 3 and before == "record":
            raise Killed
        end(self, of, number, **rest)  # type: ignore[arg-type]
        if number == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as broken:
        if before == "checkpoint":
            broken.setattr(Checkpoints, "save", killed_save)
        elif before == "updates":
            broken.setattr(Registry, "record_contribution", killed_give_up)
        else:
            broken.setattr(Registry, "end_round", killed_end)
        with pytest.raises(Killed):
            made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "interrupted"
    made.run(campaign)
    found = rounds(made, campaign)
    assert [(r.number, r.code) for r in found if r.code] == [(3, "round-lost")]
    assert found[2].base_digest == found[2].aggregate_digest == found[3].base_digest
    assert sites["a"].trained == sites["b"].trained == list(range(1, 11))
    newest = {c.site: c.code for c in made.registry.contributions(campaign.id, number=3)}
    assert newest == {"a": "round-lost", "b": "training-lost"}


def test_three_in_a_row_fail_the_campaign_and_resuming_goes_on_after_them(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (2, 3, 4, 5)
    campaign = made.create(rounds=8, quorum=2)
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "rounds-lost"
    assert "3 rounds in a row" in caught.value.what
    assert "cut off at b" in caught.value.what
    assert made.registry.campaign(campaign.id).state == "failed"
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    found = rounds(made, campaign)
    assert [r.number for r in found if r.code] == [2, 3, 4, 5]
    assert sites["a"].trained == sites["b"].trained == list(range(1, 9))


def silent_in_the_second(behave: Ledgered) -> Callable[[SiteReply, RoundPlan], RecordDict | None]:
    """Return the behaviour of a site that answers all but the second round's training."""

    def behaves(reply: SiteReply, plan: RoundPlan) -> RecordDict | None:
        return None if (plan.round, plan.purpose) == (2, "train") else behave(reply, plan)

    return behaves


def test_a_step_between_them_starts_the_count_anew(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (1, 2, 4, 5)
    campaign = made.create(rounds=6, quorum=2)
    made.run(campaign)
    assert [r.number for r in rounds(made, campaign) if r.code] == [1, 2, 4, 5]


def test_a_quorum_that_others_lack_too_fails_as_before(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0, 1.0)
    sites["b"].loses = (2,)
    made.sites["c"].behave = silent_in_the_second(sites["c"])
    campaign = made.create(rounds=4, quorum=3)
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "quorum"
    last = rounds(made, campaign)[-1]
    assert (last.number, last.state, last.code) == (2, "failed", None)
    # With c back, what b cannot give is all that is missing: the campaign goes on.
    made.sites["c"].behave = sites["c"]
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    assert [r.number for r in rounds(made, campaign) if r.code] == [2]
    assert all(site.trained == [1, 2, 3, 4] for site in sites.values())


def test_the_record_tells_of_it_in_words(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["a"].loses = sites["b"].loses = (2,)
    campaign = made.create(rounds=3, quorum=2)
    made.run(campaign)
    lost = CampaignDocument.read(made.registry, campaign.id).rounds[1]
    assert (lost.number, lost.state, lost.code) == (2, "failed", "round-lost")
    assert {s.code for s in lost.sites} == {"training-lost"}
    assert "without a step" in OUTCOME_REASONS["round-lost"]


@pytest.mark.parametrize("algorithm", ["scaffold", "fedadam"])
def test_what_the_coordinator_remembers_survives_a_lost_round(
    tmp_path: Path, algorithm: str
) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (1, 3)
    recipe = toy_recipe(rounds=5, algorithm=algorithm, compression="int8")
    campaign = made.create(recipe, rounds=5, quorum=2, early_stopping_rounds=2)
    made.run(campaign)
    assert [r.number for r in rounds(made, campaign) if r.code] == [1, 3]


def test_a_site_that_was_only_silent_may_complete_a_round(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0, 1.0)
    sites["b"].loses = (2,)
    made.sites["c"].behave = silent_in_the_second(sites["c"])
    campaign = made.create(rounds=3, quorum=2)
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "quorum"
    assert "c (deadline)" in caught.value.what
    made.sites["c"].behave = sites["c"]
    made.registry.moves.resume(campaign.id)
    assert made.run(campaign).draft.lineage.rounds == 3
    assert [r.state for r in rounds(made, campaign)] == ["finished"] * 3
    accepted = {s for s, c in of_round(made, campaign, 2).items() if c.outcome == "accepted"}
    assert accepted == {"a", "c"}
