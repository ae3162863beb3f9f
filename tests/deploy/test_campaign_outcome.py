"""What a watch says at its end of the candidate that the campaign came to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.recipe import ReleaseGateSpec
from common.release import ModelFile, model_target
from deploy import flower_run
from deploy.cli import app
from server.registry.records import Candidate
from tests.fakes import FakeSite, toy_recipe
from tests.server.campaigns import Coordinator


def ran(folder: Path, *, minimum_sites: int = 2, **settings: object) -> tuple[Coordinator, str]:
    made = Coordinator(folder, [FakeSite("north"), FakeSite("south")])
    gate = ReleaseGateSpec(minimum_sites=minimum_sites)
    recipe = toy_recipe(rounds=1).model_copy(update={"release": gate})
    candidate = made.run(made.create(recipe, rounds=1, **settings))  # type: ignore[arg-type]
    return made, candidate.campaign


def publish(made: Coordinator, campaign: str) -> Candidate:
    (found,) = made.registry.candidates(campaign=campaign)
    file = ModelFile(name=model_target(found.model_digest), sha256="cd" * 32, bytes=10)
    made.registry.record_release(found.draft.released(1, file))
    return found


def watch(made: Coordinator, campaign: str, *further: str) -> str:
    call = ["coordinator", "campaign", "watch", campaign, "--folder", str(made.settings.folder)]
    result = CliRunner().invoke(app, [*call, *further])
    assert result.exit_code == 0
    return result.stdout


def test_a_refused_candidate_is_told_with_what_it_failed(tmp_path: Path) -> None:
    made, campaign = ran(tmp_path, minimum_sites=3)
    text = " ".join(watch(made, campaign).split())
    (found,) = made.registry.candidates(campaign=campaign)
    failed = [check.name for check in found.draft.gate if not check.passed]
    assert "minimum-sites" in failed
    assert f"The release gate refused its candidate: {', '.join(failed)}." in text
    assert f"campaign show --folder {made.settings.folder} {campaign}" in text
    document = json.loads(watch(made, campaign, "--json"))
    assert document["state"] == "finished"
    assert document["candidate"] == {
        "state": "refused",
        "failed_checks": failed,
        "release": None,
    }


def test_a_candidate_that_waits_or_was_released_is_told(tmp_path: Path) -> None:
    made, campaign = ran(tmp_path / "waits", auto_approve=False)
    assert "waits for approval" in watch(made, campaign)
    assert json.loads(watch(made, campaign, "--json"))["candidate"]["state"] == "waiting"
    made.registry.rollouts.refuse(campaign, by="anna", reason="Too few women.")
    assert "anna refused its candidate: Too few women." in watch(made, campaign)

    made, campaign = ran(tmp_path / "passes")
    assert "is being published" in watch(made, campaign)
    publish(made, campaign)
    assert "released as v1" in watch(made, campaign)
    assert json.loads(watch(made, campaign, "--json"))["candidate"]["release"] == 1


def test_a_campaign_without_a_candidate_yet_has_none(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = made.create().id
    made.registry.moves.pause(campaign)
    assert json.loads(watch(made, campaign, "--json"))["candidate"] is None
    assert "candidate" not in watch(made, campaign)


def test_start_says_how_to_follow_it_and_with_watch_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = made.create(toy_recipe(rounds=1), rounds=1)
    monkeypatch.setattr(flower_run, "start_run", lambda *_: 7)
    folder = str(made.settings.folder)
    call = ["coordinator", "campaign", "start", campaign.id, "--folder", folder]
    started = CliRunner().invoke(app, call)
    follow = f"wardround coordinator campaign watch --folder {folder} {campaign.id}"
    assert (started.exit_code, follow in " ".join(started.stdout.split())) == (0, True)

    other = made.create(toy_recipe(rounds=1), rounds=1)

    def at_once(*_: object) -> int:
        made.run(other)
        return 7

    monkeypatch.setattr(flower_run, "start_run", at_once)
    call = ["coordinator", "campaign", "start", other.id, "--folder", folder, "--watch", "--json"]
    document = json.loads(CliRunner().invoke(app, call).stdout)
    assert document["candidate"]["failed_checks"] == []
