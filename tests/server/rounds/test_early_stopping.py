"""Which round's model is the best: judged by the same sites' holdouts, and never taken unscored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, RecordDict
from numpy.typing import NDArray

from common.errors import RoundFailed
from common.evaluation import SiteEvaluation, evaluate_predictions
from common.plan import RoundPlan
from common.recipe import ReleaseGateSpec
from common.records import SiteReply
from common.wire import reply_to_records
from server.evaluation import BySite
from server.model_store import read_tensors
from server.protocol import default_protocol
from server.registry.records import Campaign
from server.rounds.driver import campaign_folder
from server.rounds.loop_state import LoopState, Scored
from server.rounds.scoring import note_scores
from tests.fakes import CLASSES, TARGET, FakeSite, toy_recipe
from tests.server.campaigns import Coordinator

Qualities = Mapping[str, float | None]
SEEDS = {"north": 1, "south": 2, "west": 3}


def scored(quality: float, *, seed: int = 1, cases: int = 60) -> SiteEvaluation:
    generator = np.random.default_rng(seed)
    labels = np.arange(cases) % 2
    logits = quality * (2 * labels - 1) + generator.normal(size=cases)
    positive = 1 / (1 + np.exp(-logits))
    scores = np.stack([1 - positive, positive], axis=1)
    return evaluate_predictions(scores, labels, CLASSES, minimum_cell=3)


class FailingSite(FakeSite):
    """A hospital at which the model is worse than chance, whatever it learns."""

    def evaluation(self, base: dict[str, NDArray[np.generic]]) -> SiteEvaluation:
        error = sum(float(np.square(a - base[n].astype(float)).sum()) for n, a in TARGET.items())
        scale = sum(float(np.square(a).sum()) for a in TARGET.values())
        return scored(-1.5 + 0.6 * (1 - np.sqrt(error / scale)), seed=9)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Coordinator(tmp_path, [FakeSite("north")]).create(rounds=9, early_stopping_rounds=3)


def of(**qualities: float) -> BySite:
    return {site: scored(quality, seed=SEEDS[site]) for site, quality in qualities.items()}


def noted(state: LoopState, campaign: Campaign, number: int, told: BySite) -> Scored | None:
    return note_scores(state, campaign, number, digest=f"{number:064d}", evaluations=told)


def test_rounds_are_compared_by_the_sites_that_scored_both(campaign: Campaign) -> None:
    state = LoopState()
    assert noted(state, campaign, 2, of(north=0.8, south=0.8)) is not None
    assert noted(state, campaign, 3, of(north=1.2, south=1.2, west=-2.0)) is not None
    assert noted(state, campaign, 4, of(north=0.5, south=0.5)) is None
    assert state.stale == 1
    assert state.best is not None
    assert set(state.best.evaluations) == {"north", "south", "west"}


def test_fewer_sites_than_a_quorum_make_a_round_neither_better_nor_worse(
    campaign: Campaign,
) -> None:
    state = LoopState()
    assert noted(state, campaign, 2, of(north=2.0)) is None
    assert noted(state, campaign, 3, of(north=0.8, south=0.8)) is not None
    for told in (of(north=2.0), of(north=0.1)):
        assert noted(state, campaign, 4, told) is None
    assert state.best is not None
    assert (state.stale, state.best.digest) == (0, f"{3:064d}")


def test_a_best_model_whose_sites_are_gone_gives_way_to_one_that_can_be_compared(
    campaign: Campaign,
) -> None:
    state = LoopState()
    assert noted(state, campaign, 2, of(north=2.0, south=2.0)) is not None
    assert noted(state, campaign, 3, of(north=0.8, south=0.8)) is None
    assert noted(state, campaign, 4, of(north=1.0, west=1.0)) is not None
    assert state.best is not None
    assert (state.stale, state.best.digest) == (1, f"{4:064d}")
    assert noted(state, campaign, 5, of(north=0.5, west=0.5)) is None
    assert state.stale == 2
    assert noted(state, campaign, 6, of(north=1.4, west=1.4)) is not None
    assert state.stale == 0


@pytest.mark.parametrize(("leaves", "rounds"), [(3, 10), (4, 4)])
def test_a_best_model_whose_sites_are_gone_is_compared_before_it_is_released(
    tmp_path: Path, leaves: int, rounds: int
) -> None:
    """South leaves and west joins: few have scored both the best model of before and the last."""
    sites = [FakeSite(name, speed=0.2) for name in ("north", "south", "west")]
    made = Coordinator(tmp_path, sites)
    made.grid.offline = {102}

    def moving(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.purpose == "train" and plan.round == leaves:
            made.grid.offline = {101}
        return reply_to_records(reply)

    made.sites["north"].behave = moving
    campaign = made.create(rounds=rounds, early_stopping_rounds=4)
    candidate = made.run(campaign)
    trained = [r for r in made.registry.rounds(campaign.id) if r.purpose == "train"]
    assert len(trained) == rounds
    assert candidate.model_digest not in {r.base_digest for r in trained if r.number <= leaves}
    assert set(made.registry.site_evaluations(candidate.id)) == {"north", "west"}


def scoring(made: Coordinator, last: Qualities, best: Qualities) -> None:
    """Say how good each site finds the last model, and the best one; None: it crashes there."""
    scorings = dict.fromkeys(made.sites, 0)

    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict | Error:
        if plan.purpose != "evaluate":
            return reply_to_records(reply)
        scorings[reply.site] += 1
        told = (last if scorings[reply.site] == 1 else best)[reply.site]
        if told is None:
            return Error(code=2, reason="")
        evaluation = scored(told, seed=SEEDS[reply.site])
        return reply_to_records(replace(reply, evaluation=evaluation))

    for site in made.sites.values():
        site.behave = behave


@pytest.mark.parametrize(
    ("last", "best", "taken"),
    [
        ({"north": 1.8, "south": 1.8}, {"north": 2.5, "south": 2.5}, "best"),
        ({"north": 1.8, "south": 1.8}, {"north": 1.5, "south": 1.5}, "last"),
        ({"north": 1.8, "south": 1.8}, {"north": 2.5, "south": None}, "last"),
        ({"north": 1.8, "south": 1.8}, {"north": None, "south": None}, "last"),
        (
            {"north": 1.8, "south": 1.8, "west": 1.8},
            {"north": 2.5, "south": 2.5, "west": None},
            "last",
        ),
        ({"north": 1.8, "south": None}, {"north": 2.5, "south": 2.5}, "best"),
    ],
)
def test_the_best_model_is_taken_where_it_is_better_now_and_costs_no_verdict(
    tmp_path: Path, last: Qualities, best: Qualities, taken: str
) -> None:
    made = Coordinator(tmp_path, [FakeSite(name) for name in last])
    scoring(made, last, best)
    campaign = made.create(rounds=4, early_stopping_rounds=3)
    candidate = made.run(campaign)
    rounds = {r.number: r for r in made.registry.rounds(campaign.id)}
    number = {"last": 5, "best": 6}[taken]
    assert rounds[6].purpose == "evaluate"
    assert candidate.model_digest == rounds[number].base_digest != rounds[11 - number].base_digest
    told = {"last": last, "best": best}[taken]
    assert set(made.registry.site_evaluations(candidate.id)) == set(told)
    assert candidate.state == "approved"


def test_an_outage_while_the_best_model_is_scored_loses_neither(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    qualities = {"north": 1.8, "south": 1.8}
    scoring(made, qualities, {"north": 2.5, "south": 2.5})
    heard = made.sites["south"].behave
    assert heard is not None
    scorings = 0

    def hanging(reply: SiteReply, plan: RoundPlan) -> RecordDict | Error | None:
        nonlocal scorings
        scorings += plan.purpose == "evaluate"
        return None if scorings > 1 else heard(reply, plan)

    made.sites["south"].behave = hanging
    campaign = made.create(rounds=4, early_stopping_rounds=3)
    with pytest.raises(RoundFailed, match="deadline"):
        made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "failed"
    scoring(made, qualities, {"north": 2.5, "south": 2.5})
    made.registry.moves.resume(campaign.id)
    candidate = made.run(campaign)
    trained = [p.round for p in made.sites["north"].plans if p.purpose == "train"]
    assert (trained, candidate.state) == ([1, 2, 3, 4], "approved")
    assert candidate.model_digest == made.registry.rounds(campaign.id)[-1].base_digest


def test_a_site_that_missed_one_round_has_its_say_on_the_candidate(tmp_path: Path) -> None:
    def late(reply: SiteReply, plan: RoundPlan) -> RecordDict | None:
        missed = plan.purpose == "train" and plan.round == 2
        return None if missed else reply_to_records(reply)

    sites = [FakeSite("north"), FakeSite("south"), FailingSite("west", behave=late)]
    made = Coordinator(tmp_path, sites)
    gate = ReleaseGateSpec(worst_site_auroc_floor=0.5)
    recipe = toy_recipe(rounds=6).model_copy(update={"release": gate})
    locked = default_protocol(recipe)
    campaign = made.create(recipe, rounds=6, protocol=locked, early_stopping_rounds=2)
    candidate = made.run(campaign)
    last = made.registry.rounds(campaign.id)[-1].number
    told = made.registry.contributions(campaign.id, number=last)
    assert {c.site for c in told if c.outcome == "accepted"} == {"north", "south", "west"}
    assert set(made.registry.site_evaluations(candidate.id)) == {"north", "south", "west"}
    assert candidate.state == "refused"
    assert "worst-site" in {check.name for check in candidate.draft.gate if not check.passed}


def test_no_more_models_are_kept_than_two_checkpoints_and_their_best(tmp_path: Path) -> None:
    sites = [FakeSite("north", speed=0.2), FakeSite("south", speed=0.2, delay=1.0)]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(rounds=8, early_stopping_rounds=3)
    most, sleep = 0, made.clock.sleep

    def look(seconds: float) -> None:
        nonlocal most
        most = max(most, len(list(made.settings.models.glob("*.safetensors"))))
        sleep(seconds)

    made.clock.sleep = look  # type: ignore[method-assign]
    candidate = made.run(campaign)
    assert 3 <= most <= 5
    kept = {path.stem for path in made.settings.models.glob("*.safetensors")}
    assert kept == {campaign.initial_digest, candidate.model_digest}


@pytest.mark.parametrize("cuts", [(5,), (4, 5)])
def test_the_best_model_of_the_checkpoint_before_is_there_when_the_newest_is_damaged(
    tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    made = Coordinator(tmp_path, [FakeSite("north", speed=0.2), FakeSite("south", speed=0.2)])
    campaign = made.create(rounds=6, early_stopping_rounds=3)
    folder = campaign_folder(made.settings, campaign.id)

    left = list(cuts)

    def cut(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.purpose == "train" and plan.round == left[0]:
            left.pop(0)
            raise KeyboardInterrupt
        return reply_to_records(reply)

    made.sites["north"].behave = cut
    for _ in cuts:
        with pytest.raises(KeyboardInterrupt):
            made.run(campaign)
    before, newest = sorted(folder.glob("*.safetensors"))
    states = [LoopState.unpack(read_tensors(path)) for path in (before, newest)]
    named = [state.best.digest for state in states if state.best is not None]
    assert len(set(named)) == 2
    assert all((made.settings.models / f"{digest}.safetensors").is_file() for digest in named)
