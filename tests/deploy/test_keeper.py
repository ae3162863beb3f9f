"""Who starts a campaign again whose ServerApp died, when, and when no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from common.errors import ProcessError
from deploy import keeper
from deploy.keeper import MOST_LAUNCHES, Keeper
from server.rounds.driver import campaign_folder, driving
from server.settings import CoordinatorSettings
from tests.fakes import FakeClock, FakeSite
from tests.server.campaigns import Coordinator


class Kept:
    """A keeper with a clock of its own, and Flower runs that are only counted."""

    def __init__(self, tmp_path: Path) -> None:
        self.coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
        self.clock = FakeClock()
        self.started: list[str] = []
        self.down = False
        self.keeper = Keeper(
            self.coordinator.settings,
            self.coordinator.registry,
            start=self.start,
            monotonic=self.clock.monotonic,
        )

    def start(self, _settings: CoordinatorSettings, campaign: str) -> int:
        if self.down:
            raise ProcessError("The SuperLink is down.")
        self.started.append(campaign)
        return len(self.started)

    def look(self, seconds: float = 0.0) -> None:
        self.clock.time += seconds
        self.keeper.look()

    def died(self, campaign: str) -> None:
        self.coordinator.registry.start_campaign(campaign)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr("server.rounds.driver.PATIENCE_SECONDS", 0.05)
    return Kept(tmp_path)


def test_a_campaign_that_nobody_drives_is_started_again(kept: Kept) -> None:
    registry, campaign = kept.coordinator.registry, kept.coordinator.create().id
    kept.died(campaign)
    kept.look()
    assert registry.campaign(campaign).state == "interrupted"
    kept.look()
    assert kept.started == [campaign]
    kept.look(10)
    assert kept.started == [campaign], "the run has some time to take it"


def test_a_campaign_that_is_driven_is_left_alone(kept: Kept) -> None:
    campaign = kept.coordinator.create().id
    kept.died(campaign)
    with driving(campaign_folder(kept.coordinator.settings, campaign)):
        kept.look(100)
    assert kept.coordinator.registry.campaign(campaign).state == "running"
    assert kept.started == []


def test_a_run_that_never_takes_it_is_followed_by_another(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = kept.coordinator.create().id
    kept.coordinator.registry.moves.note_launch(campaign)
    monkeypatch.setattr(keeper, "LAUNCH_SECONDS", 0.0)
    kept.look()
    assert kept.started == [campaign]


def test_a_clock_that_was_set_back_does_not_hold_up_the_next_run(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month ahead when the run was started, right when it was killed before taking it."""
    registry, campaign = kept.coordinator.registry, kept.coordinator.create().id
    with monkeypatch.context() as ahead:
        month = datetime.now(UTC) + timedelta(days=30)
        ahead.setattr("server.registry.campaign_moves.utc_now", lambda: month)
        registry.moves.note_launch(campaign)
    kept.look()
    assert kept.started == [campaign]
    with monkeypatch.context() as ahead:
        soon = datetime.now(UTC) + timedelta(seconds=20)
        ahead.setattr("server.registry.campaign_moves.utc_now", lambda: soon)
        registry.moves.note_launch(campaign)
    kept.look(10)
    assert kept.started == [campaign], "set back a little, the run still has some time to take it"


def test_what_was_not_started_or_is_paused_stays_so(kept: Kept) -> None:
    moves = kept.coordinator.registry.moves
    kept.coordinator.create()
    paused = kept.coordinator.create().id
    kept.died(paused)
    moves.pause(paused)
    for _ in range(3):
        kept.look(100)
    assert kept.coordinator.registry.campaign(paused).state == "paused"
    assert kept.started == []
    moves.resume(paused)
    kept.look()
    assert kept.started == [paused]


def test_a_superlink_that_is_down_costs_no_launch(kept: Kept) -> None:
    campaign = kept.coordinator.create().id
    kept.died(campaign)
    kept.down = True
    for _ in range(30):
        kept.look(5)
    assert kept.coordinator.registry.campaign(campaign).launches == 0
    kept.down = False
    kept.look(5)
    assert kept.started == [campaign]


def test_it_waits_longer_each_time_and_then_gives_up(kept: Kept) -> None:
    registry, campaign = kept.coordinator.registry, kept.coordinator.create().id
    moments: list[float] = []
    for _ in range(10_000):
        count = len(kept.started)
        kept.look(0.5)
        if len(kept.started) > count:
            moments.append(kept.clock.time)
        state = registry.campaign(campaign).state
        if state == "created" or (state == "interrupted" and len(kept.started) > count):
            kept.died(campaign)
        elif state == "failed":
            break
    assert len(kept.started) == MOST_LAUNCHES
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 30
    failure = registry.campaign(campaign).failure
    assert failure is not None
    assert "in a row finished no round of training" in failure
    registry.moves.resume(campaign)
    kept.look()
    assert len(kept.started) == MOST_LAUNCHES + 1


def test_a_campaign_that_dies_after_each_scoring_is_given_up(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that lasts must not use up the scorings that the sites allow."""
    made = kept.coordinator
    registry, campaign = made.registry, made.create(rounds=2)

    def dying(*_: object, **__: object) -> None:
        raise MemoryError

    def start(_settings: CoordinatorSettings, identifier: str) -> int:
        with pytest.raises(MemoryError):
            made.run_any(campaign)
        return kept.start(_settings, identifier)

    monkeypatch.setattr("server.rounds.final_candidate.record_candidate", dying)
    monkeypatch.setattr(keeper, "LAUNCH_SECONDS", 0.0)
    monkeypatch.setattr(kept.keeper, "_start", start)
    registry.moves.note_launch(campaign.id)
    start(made.settings, campaign.id)
    for _ in range(3 * MOST_LAUNCHES):
        kept.look(60)
    assert registry.campaign(campaign.id).state == "failed"
    assert "finished no round of training" in (registry.campaign(campaign.id).failure or "")
    assert len(kept.started) == 1 + MOST_LAUNCHES, "the first one trained"
    for site in made.sites.values():
        assert [p.purpose for p in site.plans].count("evaluate") == len(kept.started)
    assert '"died-too-often"' in list(registry.audit.lines())[-1].body


def test_what_single_sites_sent_goes_when_a_campaign_is_over(kept: Kept) -> None:
    campaign = kept.coordinator.create().id
    answers = campaign_folder(kept.coordinator.settings, campaign) / "answers-000001"
    answers.mkdir(parents=True)
    (answers / "north.safetensors").write_bytes(b"x")
    kept.look()
    assert answers.exists()
    kept.coordinator.registry.moves.cancel(campaign)
    kept.look()
    assert not answers.exists()
