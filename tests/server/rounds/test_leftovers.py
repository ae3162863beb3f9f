"""What a campaign that is over leaves on the coordinator's disk."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.errors import RoundFailed
from common.wire import reply_to_records
from deploy.campaigns import cancel_campaign
from server.registry.records import Campaign
from server.rounds.control_variates import holds_variates
from server.rounds.driver import campaign_folder, driving
from server.rounds.leftovers import KEPT_DAYS, remove_leftovers
from tests.fakes import FakeSite, silent, toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.registry.test_champions import record
from tests.server.rounds.buffered import buffered


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, [])


def campaign_that(coordinator: Coordinator, how: str) -> str:
    identifier = coordinator.create(toy_recipe(algorithm="scaffold")).id
    registry = coordinator.registry
    if how != "created":
        registry.start_campaign(identifier)
    if how == "failed":
        registry.moves.fail(identifier, "no quorum", code="quorum")
    elif how == "cancelled":
        registry.moves.cancel(identifier)
    elif how == "interrupted":
        registry.moves.interrupt(identifier, "killed", code="driver-gone")
    variates = campaign_folder(coordinator.settings, identifier) / "control-variates"
    variates.mkdir(parents=True)
    (variates / "north-000001.safetensors").touch()
    return identifier


@pytest.mark.parametrize(
    ("how", "days", "kept"),
    [
        ("failed", KEPT_DAYS - 1, True),  # it may be resumed
        ("failed", KEPT_DAYS + 1, False),
        ("cancelled", 0, False),  # whoever cancelled it was killed before
        ("interrupted", 400, True),
        ("running", 400, True),
        ("created", 400, True),
    ],
)
def test_variates_go_when_nothing_will_use_them(
    coordinator: Coordinator, how: str, days: int, kept: bool
) -> None:
    identifier = campaign_that(coordinator, how)
    now = datetime.now(UTC) + timedelta(days=days)
    told = remove_leftovers(coordinator.settings, coordinator.registry, now=now)
    assert told == (() if kept else (identifier,))
    assert holds_variates(campaign_folder(coordinator.settings, identifier)) == kept


def test_one_that_is_driven_keeps_them(coordinator: Coordinator) -> None:
    identifier = campaign_that(coordinator, "failed")
    late = datetime.now(UTC) + timedelta(days=KEPT_DAYS + 1)
    with driving(campaign_folder(coordinator.settings, identifier)):
        assert remove_leftovers(coordinator.settings, coordinator.registry, now=late) == ()
    assert remove_leftovers(coordinator.settings, coordinator.registry, now=late) == (identifier,)


def failed(made: Coordinator, kind: str) -> Campaign:
    """One that has done three rounds, and lacks its quorum from then on."""
    south = made.sites["south"]
    south.behave = lambda reply, plan: (
        silent(reply, plan) if plan.round == 4 else reply_to_records(reply)
    )
    if kind == "buffered":
        campaign = buffered(made, rounds=10)
    else:
        algorithm = "scaffold" if kind == "scaffold" else "fedavg"
        campaign = made.create(
            toy_recipe(rounds=10, algorithm=algorithm),
            rounds=10,
            early_stopping_rounds=9 if kind == "stops-early" else 0,
        )
    with pytest.raises(RoundFailed):
        made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "failed"
    south.behave = None
    return campaign


def files(made: Coordinator, campaign: Campaign) -> set[str]:
    return {path.name for path in campaign_folder(made.settings, campaign.id).iterdir()}


def models(made: Coordinator) -> set[str]:
    return {path.stem for path in made.settings.models.iterdir()}


@pytest.mark.parametrize("kind", ["fedavg", "stops-early", "scaffold", "buffered"])
def test_a_cancelled_campaign_leaves_its_first_model_alone(tmp_path: Path, kind: str) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = failed(made, kind)
    assert len(models(made)) >= 3
    cancel_campaign(made.settings, campaign.id)
    now = datetime.now(UTC)
    with driving(campaign_folder(made.settings, campaign.id)):  # the ServerApp has not ended yet
        before = files(made, campaign), models(made)
        assert remove_leftovers(made.settings, made.registry, now=now) == ()
        assert (files(made, campaign), models(made)) == before
    assert remove_leftovers(made.settings, made.registry, now=now) == (campaign.id,)
    assert files(made, campaign) == {"driver.lock"}
    assert models(made) == {campaign.initial_digest}
    assert remove_leftovers(made.settings, made.registry, now=now) == (), "nothing is left"


@pytest.mark.parametrize("kind", ["fedavg", "stops-early", "buffered"])
def test_a_failed_campaign_keeps_what_it_goes_on_from(tmp_path: Path, kind: str) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = failed(made, kind)
    before = files(made, campaign), models(made)
    late = datetime.now(UTC) + timedelta(days=400)
    assert remove_leftovers(made.settings, made.registry, now=late) == ()
    assert (files(made, campaign), models(made)) == before
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    assert files(made, campaign) == {"driver.lock"}


def test_a_cancelled_campaign_takes_no_weights_of_others_with_it(tmp_path: Path) -> None:
    """It scored the release as its round 0, and made the same weights as one that may go on."""
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    first = made.run(made.create(toy_recipe(rounds=3), rounds=3))
    record(made, first, 1)
    cancelled, alike = failed(made, "fedavg"), failed(made, "fedavg")
    cancel_campaign(made.settings, cancelled.id)
    now = datetime.now(UTC)
    assert remove_leftovers(made.settings, made.registry, now=now) == (cancelled.id,)
    assert first.model_digest in models(made)
    made.registry.moves.resume(alike.id)
    made.run(alike)
    cancel = failed(made, "fedavg")
    cancel_campaign(made.settings, cancel.id)
    remove_leftovers(made.settings, made.registry, now=now)
    kept = {candidate.model_digest for candidate in made.registry.candidates()}
    assert models(made) == kept | {cancelled.initial_digest}
