import json
from io import StringIO
from pathlib import Path

import pytest
import typer
from flwr.app import RecordDict
from rich.console import Console
from typer.testing import CliRunner

from common.errors import ConfigurationError, NotFound
from common.plan import RoundPlan
from common.records import Forecast, Refusal, SiteReply
from common.release import ModelFile, model_target
from common.wire import reply_to_records
from deploy.commands import registry as commands
from server.registry import releases
from server.registry.records import SiteForecast
from server.site_answers import SiteAnswer
from tests.fakes import FakeSite, broken
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import ledgered

app = typer.Typer()
app.command("campaigns")(commands.list_campaigns)
app.command("campaign")(commands.show_campaign)
app.command("releases")(commands.list_releases)
app.command("release")(commands.show_release)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def made(tmp_path: Path) -> tuple[Coordinator, str]:
    sites = [FakeSite("north"), FakeSite("south"), FakeSite("west", behave=broken)]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create(rounds=1, epsilon=8.0)
    found = coordinator.run(campaign)
    file = ModelFile(name=model_target(found.model_digest), sha256="cd" * 32, bytes=10)
    coordinator.registry.record_release(found.draft.released(1, file))
    return coordinator, campaign.id


def test_why_a_candidate_was_scored_by_nobody_is_shown(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite(name, holdout=0) for name in ("north", "south")])
    campaign = coordinator.create(rounds=1, epsilon=8.0)
    coordinator.run(campaign)
    text = run("campaign", campaign.id, "--folder", str(coordinator.settings.folder))
    assert "evaluated-sites: Sites that scored the candidate" in text
    assert "minimum_cell" in text


def test_scripts_read_one_document(made: tuple[Coordinator, str]) -> None:
    coordinator, campaign = made
    folder = str(coordinator.settings.folder)
    listed = json.loads(run("campaigns", "--folder", folder, "--json"))
    assert [c["id"] for c in listed["campaigns"]] == [campaign]
    shown = json.loads(run("campaign", campaign, "--folder", folder, "--json"))
    assert shown["campaign"]["state"] == "finished"
    outcomes = {s["site"]: s["outcome"] for s in shown["rounds"][0]["sites"]}
    assert outcomes == {"north": "accepted", "south": "accepted", "west": "failed"}
    assert shown["campaign"]["aggregation"]["name"] == "mean"
    lay = {s["site"]: s["update_cosine"] for s in shown["rounds"][0]["sites"]}
    assert lay == {"north": pytest.approx(1), "south": pytest.approx(1), "west": None}
    assert all(check["passed"] for check in shown["candidates"][0]["checks"])
    listed = json.loads(run("releases", "--folder", folder, "--json"))
    assert [r["version"] for r in listed["releases"]] == [1]
    manifest = json.loads(run("release", "1", "--folder", folder, "--json"))
    assert manifest["lineage"]["sites"][0]["receipt"]["epsilon_campaign"] == 8.0


def test_people_read_tables(made: tuple[Coordinator, str]) -> None:
    coordinator, campaign = made
    folder = str(coordinator.settings.folder.parent)
    assert campaign in run("campaigns", "--folder", folder)
    shown = run("campaign", campaign, "--folder", folder)
    assert "site-app-failed" in shown.replace("\n", "")
    assert "majority-auroc" in shown
    assert "mean, norms at most 3 x the median" in " ".join(shown.split())
    assert "cosine" in shown
    assert "v1" in run("releases", "--folder", folder)
    assert "north" in run("release", "1", "--folder", folder)


def test_a_candidate_that_was_set_back_to_waiting_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    candidate = coordinator.run(coordinator.create(rounds=1))
    monkeypatch.setattr(releases, "still_stands", lambda *_: False)
    assert not coordinator.registry.still_approved(candidate.id)
    shown = run("campaign", candidate.campaign, "--folder", str(coordinator.settings.folder))
    told = "waiting. The current release is another one than when it was approved."
    assert told in " ".join(shown.split())


def test_a_sites_refusal_is_explained(tmp_path: Path) -> None:
    def paused(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        return reply_to_records(SiteReply(reply.site, refusal=Refusal(code="site-paused")))

    sites = [FakeSite("north"), FakeSite("south"), FakeSite("west", behave=paused)]
    coordinator = Coordinator(tmp_path, sites)
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    shown = run("campaign", campaign.id, "--folder", str(coordinator.settings.folder))
    assert shown.count("site-paused: The hospital has paused its site.") == 1


def test_an_empty_registry_says_so(tmp_path: Path) -> None:
    folder = str(Coordinator(tmp_path, []).settings.folder)
    assert "no campaign" in run("campaigns", "--folder", folder)
    assert "no release" in run("releases", "--folder", folder)
    assert json.loads(run("campaigns", "--folder", folder, "--json")) == {"campaigns": []}
    with pytest.raises(NotFound):
        run("campaign", "no-such", "--folder", folder)
    with pytest.raises(NotFound):
        run("release", "3", "--folder", folder)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"coordinator\.toml"):
        run("campaigns", "--folder", str(tmp_path))


def test_a_preflight_is_not_among_the_campaigns_unless_asked_for(tmp_path: Path) -> None:
    sites = [FakeSite("north"), FakeSite("south", unaffordable="budget-exhausted")]
    coordinator = Coordinator(tmp_path, sites)
    asks = coordinator.create(epsilon=8.0, only_preflight=True)
    coordinator.run_any(asks)
    folder = str(coordinator.settings.folder)
    assert json.loads(run("campaigns", "--folder", folder, "--json"))["campaigns"] == []
    assert asks.id not in run("campaigns", "--folder", folder)
    (listed,) = json.loads(run("campaigns", "--all", "--folder", folder, "--json"))["campaigns"]
    assert (listed["kind"], listed["state"]) == ("preflight", "finished")
    shown = run("campaign", asks.id, "--folder", folder)
    assert f"Preflight {asks.id}" in " ".join(shown.split())
    assert "budget-exhausted" in shown
    document = json.loads(run("campaign", asks.id, "--folder", folder, "--json"))
    assert {a["site"]: a["code"] for a in document["preflight"]} == {
        "north": None,
        "south": "budget-exhausted",
    }


def test_a_life_that_nothing_bounds_is_said_to_be_so(made: tuple[Coordinator, str]) -> None:
    manifest = made[0].registry.release(1).manifest
    first, *others = manifest.lineage.sites
    assert first.receipt is not None
    told = first.receipt.model_copy(update={"epsilon_life": None})
    parts = (first.model_copy(update={"receipt": told}), *others)
    lineage = manifest.lineage.model_copy(update={"sites": parts})
    shown = Console(record=True, width=160, file=StringIO())
    commands._draw_release(manifest.model_copy(update={"lineage": lineage}), shown)
    assert shown.export_text().count("unbounded") == 1

    forecast = Forecast(
        site="north",
        campaign="c",
        nonce="1" * 64,
        rounds=3,
        affordable=True,
        noise_multiplier=1.1,
        epsilon_round=0.5,
        epsilon_campaign=1.5,
    )
    answer = SiteAnswer.of(SiteForecast("north", forecast=forecast))
    commands.draw_answers([answer], shown)
    assert shown.export_text().count("unbounded") == 1


def test_a_round_that_was_lost_is_named_with_what_it_means(tmp_path: Path) -> None:
    made, sites = ledgered(tmp_path, 1.0, 1.0)
    sites["a"].loses = sites["b"].loses = (2,)
    campaign = made.create(rounds=3, quorum=2)
    made.run(campaign)
    text = " ".join(run("campaign", campaign.id, "--folder", str(made.settings.folder)).split())
    assert "round-lost: Sites were cut off while they trained" in text
    assert text.count("round-lost") == 2  # in the table, and what it means
