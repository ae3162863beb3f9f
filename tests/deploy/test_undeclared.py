"""Sites that did not declare their patients are named, with the file to change where it is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.commands.undeclared import CODE, warn_of_undeclared
from server.registry.records import SiteForecast
from server.registry.registry import Registry
from tests.releases import Coordinator
from tests.server.test_api_coordinator import running_campaign


def test_only_they_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coordinator = Coordinator.create(tmp_path / "coordinator")
    registry = Registry.open(coordinator.settings)
    for number, name in enumerate(("north", "south", "west")):
        registry.register_site(name, node_id=number + 1, public_key="key")
    policy = tmp_path / "sites" / "north" / "policy.toml"
    policy.parent.mkdir(parents=True)
    policy.touch()
    campaign = running_campaign(coordinator, registry)
    told = [SiteForecast("north", CODE, True), SiteForecast("south", CODE, True)]
    registry.record_forecasts(campaign, [*told, SiteForecast("west", "no-cases", True)])
    registry.close()
    assert warn_of_undeclared(coordinator.settings, campaign) == ("north", "south")
    said = capsys.readouterr()
    assert said.out == ""
    assert str(policy) in said.err.replace("\n", "")
    assert "west" not in said.err
