"""Rounds that are lost before any step: the release's scores, and a campaign with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import RoundFailed
from common.recipe import Recipe
from server.registry.records import Campaign, Candidate
from tests.fakes import toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.registry.test_champions import record
from tests.server.rounds.buffered import Ledgered, ledgered


def after_a_release(
    made: Coordinator, sites: dict[str, Ledgered], recipe: Recipe, **settings: object
) -> Campaign:
    """A campaign that starts from the current release, before any of its rounds."""
    first = made.run(made.create(rounds=2, quorum=len(sites)))
    record(made, first, 1)
    for site in sites.values():
        site.trained.clear()
        site.newest = None
    template = made.registry.campaign(first.campaign).settings
    return made.registry.add_campaign(
        recipe,
        template.model_copy(update={"rounds": recipe.federation.rounds, **settings}),
        initial_digest=first.model_digest,
        base_release=1,
    )


def against_champion(candidate: Candidate) -> str:
    return next(c.explanation for c in candidate.draft.gate if c.name == "champion-non-inferiority")


@pytest.mark.parametrize("evaluations", [0, 1])
@pytest.mark.parametrize(
    "losing", [{"a": (1,), "b": (1,)}, dict.fromkeys("abc", (1,)), dict.fromkeys("abc", (1, 2))]
)
def test_a_lost_first_round_leaves_no_site_out_of_the_releases_scores(
    tmp_path: Path, losing: dict[str, tuple[int, ...]], evaluations: int
) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0, 1.0)
    recipe = toy_recipe(rounds=5, evaluations=evaluations)
    campaign = after_a_release(made, sites, recipe)
    for name, rounds in losing.items():
        sites[name].loses = rounds
    candidate = made.run(campaign)
    lost = [r.number for r in made.registry.rounds(campaign.id) if r.code]
    assert lost == list(losing["a"])
    assert "3 sites" in against_champion(candidate)


def test_the_scores_of_lost_rounds_add_up(tmp_path: Path) -> None:
    """Of each of them another site's alone came; the round with a step lacks one again."""
    made, sites = ledgered(tmp_path, 1.0, 1.0, 1.0)
    campaign = after_a_release(made, sites, toy_recipe(rounds=4), quorum=2)
    sites["a"].loses, sites["b"].loses, sites["c"].loses = (1, 3), (1, 2), (2,)
    candidate = made.run(campaign)
    assert [r.number for r in made.registry.rounds(campaign.id) if r.code] == [1, 2]
    assert "3 sites" in against_champion(candidate)


def test_a_round_that_is_lost_later_is_no_score_of_the_release(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0, 1.0)
    campaign = after_a_release(made, sites, toy_recipe(rounds=4, evaluations=1))
    sites["b"].loses = (3,)
    made.run(campaign)
    asked = {plan.round: plan.evaluate for plan in made.sites["a"].plans if plan.purpose == "train"}
    assert asked == {1: True, 2: False, 3: False, 4: True}


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_a_campaign_whose_rounds_were_all_lost_has_no_candidate(
    tmp_path: Path, rounds: int
) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (1, 2, 3, 4)
    campaign = made.create(rounds=rounds, quorum=2)
    if rounds == 4:  # a person looked after three, and let it go on
        with pytest.raises(RoundFailed, match="3 rounds in a row"):
            made.run(campaign)
        made.registry.moves.resume(campaign.id)
    for _ in range(2):
        with pytest.raises(RoundFailed) as caught:
            made.run(campaign)
        assert caught.value.code == "rounds-lost"
        assert f"no step in {rounds} round" in caught.value.what
        assert "cut off at b" in caught.value.what
        assert "start a new campaign" in caught.value.action
        assert made.registry.campaign(campaign.id).state == "failed"
        made.registry.moves.resume(campaign.id)  # which brings nothing, and says so
    assert {r.purpose for r in made.registry.rounds(campaign.id)} == {"train"}
    assert made.registry.candidates() == ()
    assert sites["a"].trained == list(range(1, rounds + 1))


def test_the_rounds_in_a_row_are_counted_over_a_resume(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (1, 2, 3, 4, 5, 6)
    campaign = made.create(rounds=7, quorum=2)
    for count in (3, 6):
        with pytest.raises(RoundFailed, match=f"{count} rounds in a row"):
            made.run(campaign)
        made.registry.moves.resume(campaign.id)
    assert made.run(campaign).draft.lineage.rounds == 1


def test_rounds_that_were_lost_at_the_end_leave_what_was_trained(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["b"].loses = (2, 3)
    candidate = made.run(made.create(rounds=3, quorum=2))
    assert candidate.draft.lineage.rounds == 1
