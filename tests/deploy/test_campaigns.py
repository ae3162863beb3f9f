from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import ConfigurationError, ProcessError, RoundFailed
from common.recipe import load_recipe
from deploy import campaigns, flower_run
from deploy.campaign_file import read_campaign
from deploy.cli import app
from deploy.keeper import keeper_lock
from server.coordinator_folder import create_coordinator_folder
from server.registry.campaign_states import ENDED
from server.rounds.driver import campaign_folder
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Coordinator, str]:
    coordinator = Coordinator(tmp_path, [FakeSite("north")])
    campaign = coordinator.create().id
    coordinator.registry.start_campaign(campaign, flower_run=7)
    monkeypatch.setattr("server.rounds.driver.PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(flower_run, "stop_run", lambda *_: None)
    monkeypatch.setattr(campaigns, "POLL_SECONDS", 0.001)
    return coordinator, campaign


def test_a_watch_ends_where_nobody_drives_the_campaign(
    made: tuple[Coordinator, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, campaign = made
    monkeypatch.setattr(campaigns, "ALONE_SECONDS", 0.05)
    with pytest.raises(RoundFailed) as caught:
        campaigns.watch_campaign(coordinator.settings, campaign)
    assert caught.value.code == "run-died"
    assert "resume" in caught.value.action


def test_a_watch_ends_when_the_campaign_is_paused(made: tuple[Coordinator, str]) -> None:
    coordinator, campaign = made
    campaigns.pause_campaign(coordinator.settings, campaign)
    coordinator.registry.moves.interrupt(campaign, "killed")
    assert campaigns.watch_campaign(coordinator.settings, campaign).state == "paused"


def test_resume_starts_a_run_only_where_no_keeper_does(
    made: tuple[Coordinator, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, campaign = made
    started: list[str] = []
    monkeypatch.setattr(flower_run, "start_run", lambda _, c: started.append(c))
    with keeper_lock(coordinator.settings):
        assert campaigns.resume_campaign(coordinator.settings, campaign).state == "interrupted"
    assert started == []
    assert campaigns.resume_campaign(coordinator.settings, campaign).launches == 1
    assert started == [campaign]


def test_cancel_removes_what_single_sites_sent(made: tuple[Coordinator, str]) -> None:
    coordinator, campaign = made
    folder = campaign_folder(coordinator.settings, campaign)
    (folder / "answers-000001").mkdir(parents=True)
    coordinator.registry.moves.interrupt(campaign, "killed")
    coordinator.registry.moves.resume(campaign)
    assert campaigns.cancel_campaign(coordinator.settings, campaign).state == "cancelled"
    assert list(folder.glob("answers-*")) == []
    with pytest.raises(RoundFailed, match="is cancelled"):
        campaigns.resume_campaign(coordinator.settings, campaign)


def test_a_campaign_that_start_made_and_could_not_start_is_named_and_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = create_coordinator_folder(tmp_path, releases=False)

    def away(*_: object) -> int:
        raise ProcessError("Flower refused `flwr run`.", action="Read its log.")

    monkeypatch.setattr(flower_run, "start_run", away)
    call = ["coordinator", "campaign", "start", "--folder", str(tmp_path)]
    file = tmp_path / "dermoscopy.toml"
    file.write_text(load_recipe("dermoscopy").with_changes(model="test_resnet").toml())
    small = ["--recipe", str(file), "--image-size", "32"]
    error = CliRunner().invoke(app, [*call, *small]).exception
    with campaigns.opened(settings) as registry:
        (found,) = registry.campaigns()
    assert isinstance(error, ProcessError)
    assert found.id in error.what
    assert f"Read its log. Then `wardround coordinator campaign resume {found.id}`" in error.action
    assert found.state == "failed"
    assert found.state in ENDED, "what has not ended keeps its task's triggers waiting"

    monkeypatch.setattr(flower_run, "start_run", lambda *_: 7)
    assert campaigns.resume_campaign(settings, found.id).launches == 1


def test_a_campaign_that_somebody_created_stays_where_it_could_not_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite("north")])
    campaign = coordinator.create().id

    def away(*_: object) -> int:
        raise ProcessError("Flower refused `flwr run`.")

    monkeypatch.setattr(flower_run, "start_run", away)
    call = ["coordinator", "campaign", "start", campaign, "--folder", str(tmp_path)]
    assert isinstance(CliRunner().invoke(app, call).exception, ProcessError)
    assert coordinator.registry.campaign(campaign).state == "created"


def test_a_campaign_file_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "campaign.toml"
    path.write_text('recipe = "dermoscopy"\nrounds = 5\nsites = ["north", "south"]\nquorum = 2\n')
    read = read_campaign(path, rounds=7, epsilon=None)
    assert (read.recipe, read.rounds, read.sites, read.quorum) == (
        *("dermoscopy", 7),
        ("north", "south"),
        2,
    )
    path.write_text('recipe = "dermoscopy"\nmode = "buffered"\nbuffer_size = 3\n')
    read = read_campaign(path, site_rounds=9)
    assert (read.mode, read.buffer_size, read.site_rounds) == ("buffered", 3, 9)
    path.write_text('recipe = "dermoscopy"\nround = 5\n')
    with pytest.raises(ConfigurationError) as caught:
        read_campaign(path)
    assert (caught.value.code, "round" in caught.value.what) == ("campaign-file", True)
    with pytest.raises(ConfigurationError):
        read_campaign(None, rounds=3)


def test_a_failed_campaign_raises(made: tuple[Coordinator, str]) -> None:
    coordinator, campaign = made
    coordinator.registry.fail_campaign(campaign, "no quorum")
    with pytest.raises(RoundFailed, match="no quorum"):
        campaigns.watch_campaign(coordinator.settings, campaign)
