from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Error, Message, RecordDict

from common.errors import RoundFailed
from common.recipe import Recipe, ReleaseGateSpec
from common.records import Refusal, SiteReply
from common.wire import reply_to_records
from server.rounds.preflight import is_possible
from tests.fakes import FakeSite, toy_recipe
from tests.server.campaigns import Coordinator


class Stubborn(FakeSite):
    """A site that answers a preflight in its own way, and rounds honestly."""

    first: RecordDict | Error | None = None

    def answer(self, message: Message) -> RecordDict | Error | None:
        if message.metadata.group_id == "preflight":
            return self.first
        return super().answer(message)


def stubborn(name: str, first: RecordDict | Error | None) -> Stubborn:
    site = Stubborn(name)
    site.first = first
    return site


def refusal(name: str, code: str) -> RecordDict:
    return reply_to_records(SiteReply(name, refusal=Refusal(code=code)))


def test_every_sites_word_is_recorded_before_the_first_round(tmp_path: Path) -> None:
    sites = [
        FakeSite("east"),
        FakeSite("north"),
        FakeSite("south", unaffordable="budget-exhausted"),
    ]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(rounds=1, epsilon=8.0)
    made.run(campaign)
    told = {f.site: f for f in made.registry.forecasts(campaign.id)}
    assert told["east"].affordable
    assert told["east"].forecast is not None
    assert told["east"].forecast.rounds == 1
    assert (told["south"].affordable, told["south"].code) == (False, "budget-exhausted")
    assert told["south"].refuses


def test_without_a_possible_quorum_nothing_is_trained(tmp_path: Path) -> None:
    sites = [FakeSite("north"), FakeSite("south", unaffordable="budget-exhausted")]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(epsilon=8.0)
    with pytest.raises(RoundFailed, match=r"south \(budget-exhausted\)") as caught:
        made.run(campaign)
    assert caught.value.code == "preflight"
    assert made.registry.campaign(campaign.id).state == "failed"
    assert [site.plans for site in sites] == [[], []]


def test_a_policys_refusal_counts_as_one(tmp_path: Path) -> None:
    made = Coordinator(
        tmp_path, [FakeSite("north"), stubborn("south", refusal("south", "site-paused"))]
    )
    campaign = made.create(epsilon=8.0)
    with pytest.raises(RoundFailed, match="The hospital has paused its site"):
        made.run(campaign)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (None, "deadline"),
        (Error(code=2, reason="/data/jane-doe"), "site-app-failed"),
        (reply_to_records(SiteReply("other", refusal=Refusal(code="no-cases"))), "no-cases"),
        (RecordDict(), "reply-malformed"),
    ],
)
def test_who_does_not_answer_may_still_take_part(
    tmp_path: Path, first: RecordDict | Error | None, code: str
) -> None:
    sites = [FakeSite("east"), FakeSite("north"), stubborn("south", first)]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(rounds=1, epsilon=8.0)
    made.run(campaign)
    told = {f.site: f.code for f in made.registry.forecasts(campaign.id)}
    assert told["south"] == code
    assert sites[2].plans  # and it was asked to train


def demanding(sites: int) -> Recipe:
    return toy_recipe().model_copy(update={"release": ReleaseGateSpec(minimum_sites=sites)})


def test_a_candidate_that_nobody_could_score_is_not_trained(tmp_path: Path) -> None:
    sites = [FakeSite("east"), FakeSite("north", scores=False), FakeSite("south", scores=False)]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(demanding(2), epsilon=8.0)
    with pytest.raises(RoundFailed, match=r"asks for 2 .* north and south could not") as caught:
        made.run(campaign)
    assert caught.value.code == "preflight"
    assert "minimum_cell" in (caught.value.action or "")
    found = made.registry.campaign(campaign.id)
    assert found.state == "failed"
    assert "north and south" in (found.failure or "")
    assert [site.plans for site in sites] == [[], [], []]
    assert not is_possible(found, made.registry.forecasts(campaign.id))


def test_some_sites_that_cannot_score_stop_nothing(tmp_path: Path) -> None:
    sites = [FakeSite("east"), FakeSite("north"), FakeSite("south", scores=False)]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(demanding(2), rounds=1, epsilon=8.0)
    made.run(campaign)
    assert sites[2].plans


def test_a_site_that_cannot_train_may_score(tmp_path: Path) -> None:
    """Scoring spends nothing, so that a used-up budget does not stand in its way."""
    sites = [
        FakeSite("east"),
        FakeSite("north", scores=False),
        FakeSite("south", unaffordable="budget-exhausted"),
    ]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(demanding(2), rounds=1, epsilon=8.0)
    made.run(campaign)
    assert sites[0].plans


def test_a_site_that_is_away_may_score_in_the_end(tmp_path: Path) -> None:
    sites = [FakeSite("east"), FakeSite("north", scores=False), FakeSite("south")]
    made = Coordinator(tmp_path, sites)
    made.grid.offline = {102}
    campaign = made.create(demanding(2), rounds=1, epsilon=8.0)
    made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "finished"


def test_a_simulation_goes_on_unscored(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, [FakeSite("east"), FakeSite("north", scores=False)])
    campaign = made.create(demanding(2), rounds=1, epsilon=8.0, may_go_unscored=True)
    made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "finished"


def test_too_few_sites_that_all_score_are_the_gates_to_judge(tmp_path: Path) -> None:
    """Nobody said no: a site that is missing today may be there at the end."""
    made = Coordinator(tmp_path, [FakeSite("east"), FakeSite("north")])
    campaign = made.create(demanding(3), rounds=1, epsilon=8.0)
    made.run(campaign)


def test_only_asking_who_could_score_fails_nothing(tmp_path: Path) -> None:
    sites = [FakeSite("east", scores=False), FakeSite("north", scores=False)]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(demanding(1), epsilon=8.0, only_preflight=True)
    assert made.run_any(campaign) is None
    found = made.registry.campaign(campaign.id)
    assert (found.state, found.failure) == ("finished", None)
    assert not is_possible(found, made.registry.forecasts(campaign.id))


def test_a_forecast_for_another_request_is_not_believed(tmp_path: Path) -> None:
    class Replaying(FakeSite):
        def forecast(self, plan):  # type: ignore[no-untyped-def]
            return super().forecast(plan.model_copy(update={"nonce": "0" * 64}))

    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("west"), Replaying("south")])
    campaign = made.create(rounds=1, epsilon=8.0)
    made.run(campaign)
    told = {f.site: f for f in made.registry.forecasts(campaign.id)}
    assert told["south"].code == "reply-binding"
    assert told["south"].forecast is None


def test_only_asking(tmp_path: Path) -> None:
    sites = [FakeSite("north"), FakeSite("south")]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(epsilon=8.0, only_preflight=True)
    assert made.run_any(campaign) is None
    assert made.registry.campaign(campaign.id).state == "finished"
    assert made.registry.rounds(campaign.id) == ()
    assert [site.plans for site in sites] == [[], []]
    assert all(f.affordable for f in made.registry.forecasts(campaign.id))


def test_one_that_only_asks_has_not_failed_where_the_answer_is_no(tmp_path: Path) -> None:
    sites = [FakeSite("north"), FakeSite("south", unaffordable="budget-exhausted")]
    made = Coordinator(tmp_path, sites)
    campaign = made.create(epsilon=8.0, only_preflight=True)
    assert made.run_any(campaign) is None
    found = made.registry.campaign(campaign.id)
    assert (found.state, found.kind, found.failure) == ("finished", "preflight", None)
    assert not is_possible(found, made.registry.forecasts(campaign.id))
    assert made.registry.campaigns(kind="training") == ()


def test_who_is_waited_for_is_on_record_meanwhile(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south"), FakeSite("west")])
    made.grid.offline = {102}
    campaign = made.create(epsilon=8.0, only_preflight=True)
    seen: set[tuple[str, str | None]] = set()
    sleep = made.clock.sleep

    def look(seconds: float) -> None:
        seen.update((f.site, f.code) for f in made.registry.forecasts(campaign.id))
        sleep(seconds)

    made.clock.sleep = look  # type: ignore[method-assign]
    made.run_any(campaign)
    assert ("west", "awaited") in seen
    told = {f.site: f.code for f in made.registry.forecasts(campaign.id)}
    assert told == {"north": None, "south": None, "west": "not-connected"}
