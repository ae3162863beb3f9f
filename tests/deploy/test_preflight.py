from __future__ import annotations

import inspect
from pathlib import Path

from rich.console import Console

from common.recipe import ReleaseGateSpec
from deploy.campaign_file import CampaignFile
from deploy.commands import campaign, preflight
from deploy.commands.preflight import PreflightDocument, preflight_document, waited_for
from server.registry.records import BufferSettings, SiteForecast
from tests.fakes import FakeSite, toy_recipe
from tests.server.campaigns import Coordinator


def asked(
    folder: Path,
    *sites: str,
    minimum_sites: int = 3,
    mute: tuple[str, ...] = (),
    **settings: object,
) -> Coordinator:
    made = Coordinator(folder, [FakeSite(name, scores=name not in mute) for name in sites])
    recipe = toy_recipe().model_copy(
        update={"release": ReleaseGateSpec(minimum_sites=minimum_sites)}
    )
    found = made.create(recipe, epsilon=8.0, only_preflight=True, **settings)  # type: ignore[arg-type]
    assert made.run_any(found) is None
    return made


def document(made: Coordinator, **chosen: object) -> PreflightDocument:
    (found,) = made.registry.campaigns()
    told = made.registry.forecasts(found.id)
    return preflight_document(found, told, CampaignFile.model_validate({"recipe": "x"} | chosen))


def shown(found: PreflightDocument) -> str:
    console = Console(record=True, width=200)
    preflight._show(found, console)
    return console.export_text()


def test_a_preflight_takes_what_start_takes() -> None:
    own = inspect.signature(preflight.preflight).parameters
    others = inspect.signature(campaign.create).parameters
    assert {name: p.annotation for name, p in own.items()} == {
        name: p.annotation for name, p in others.items()
    }


def test_the_answer_says_which_setting_asks_for_more_sites(tmp_path: Path) -> None:
    found = document(asked(tmp_path, "north", "south", quorum=3))
    assert not found.possible
    assert [(n.setting, n.sites, n.met) for n in found.needs] == [
        ("quorum", 3, False),
        ("minimum_sites", 3, False),
    ]
    text = shown(found)
    assert "2 of 2 sites can." in text
    assert "A round needs 3 (`quorum` of the recipe), which is out of reach." in text
    assert "--quorum" in text
    assert "`minimum_sites` in [limits] of a protocol file, given with --protocol" in text
    assert "It cannot be started." in text


def test_a_campaign_whose_candidate_the_gate_must_refuse_is_told(tmp_path: Path) -> None:
    found = document(asked(tmp_path, "north", "south", quorum=2), quorum=2)
    assert found.possible
    text = shown(found)
    assert "A round needs 2 (`quorum` of this campaign)." in text
    assert "its candidate could not be released" in text


def test_a_campaign_that_too_few_sites_could_score_is_told(tmp_path: Path) -> None:
    made = asked(
        tmp_path, "north", "south", "west", minimum_sites=2, mute=("north", "west"), quorum=2
    )
    found = document(made)
    assert (found.possible, found.cannot_score) == (False, ("north", "west"))
    assert [answer.scores for answer in found.sites] == [False, True, False]
    text = shown(found)
    assert "3 of 3 sites can." in text
    assert "2 sites to have scored the candidate, and north and west could not" in text
    assert "It cannot be started: its candidate could not be released." in text


def test_one_site_that_cannot_score_beside_enough_is_told(tmp_path: Path) -> None:
    made = asked(tmp_path, "north", "south", "west", minimum_sites=2, mute=("west",), quorum=2)
    found = document(made)
    assert (found.possible, found.cannot_score) == (True, ("west",))
    text = shown(found)
    assert "west could not" in text
    assert "It can be started." in text


def test_enough_sites(tmp_path: Path) -> None:
    text = shown(document(asked(tmp_path, "north", "south", "west", quorum=3)))
    assert "It can be started." in text
    assert "out of reach" not in text


def test_a_buffered_campaigns_steps_and_turns_are_both_told(tmp_path: Path) -> None:
    buffer = BufferSettings(size=2, site_rounds=6, max_staleness=5, quorum_steps=10)
    found = document(asked(tmp_path, "north", "south", "west", buffer=buffer))
    assert (found.rounds, found.site_rounds) == (3, 6)
    assert {a.forecast.rounds for a in found.sites if a.forecast is not None} == {6}
    assert "3 rounds of toy (a site trains 6 times at most)" in shown(found)


def test_for_whom_it_waits() -> None:
    told = (SiteForecast("north", code="asked"), SiteForecast("west", code="awaited"))
    assert waited_for(told, seconds=120) == "waiting for west to connect, 120 s at most"
    assert waited_for(told[:1], seconds=120) == "waiting for the answer of north"
    assert waited_for((), seconds=120) == "asking the sites"
