"""A network that sites would refuse is refused by the command that asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.settings import SiteSettings
from client.site_recipes import keep_recipe
from common.errors import ConfigurationError
from common.recipe import load_recipe
from deploy.campaigns import opened
from deploy.cli import app
from deploy.provision import provision
from server.coordinator_folder import create_coordinator_folder
from server.settings import CoordinatorSettings

OTHER = ["--recipe", "dermoscopy", "--model", "test_resnet", "--image-size", "32"]


def asked(verb: str, folder: Path, *further: str) -> BaseException | None:
    call = ["coordinator", "campaign", verb, "--folder", str(folder)]
    return CliRunner().invoke(app, [*call, *further]).exception


@pytest.mark.parametrize("verb", ["start", "create", "preflight"])
def test_a_network_outside_the_recipe_is_refused_before_it_is_recorded(
    verb: str, tmp_path: Path
) -> None:
    settings = create_coordinator_folder(tmp_path, releases=False)
    error = asked(verb, tmp_path, *OTHER)
    assert isinstance(error, ConfigurationError)
    assert error.code == "network-not-agreed"
    recipe = load_recipe("dermoscopy")
    for name in (recipe.model.architecture, *recipe.model.alternatives):
        assert name in error.action
    with opened(settings) as registry:
        assert registry.campaigns() == ()


def test_a_recipe_file_may_name_any_network(tmp_path: Path) -> None:
    settings = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    file = tmp_path / "dermoscopy.toml"
    file.write_text(load_recipe("dermoscopy").with_changes(model="test_resnet").toml())
    asks = ("--recipe", str(file), "--image-size", "32")
    assert asked("create", settings.folder, *asks) is None
    assert asked("create", settings.folder, *asks, "--model", "resnet10t") is not None


def test_what_a_site_here_has_agreed_to_goes_on(tmp_path: Path) -> None:
    done = provision(tmp_path, sites=["north"], task="dermoscopy")
    settings = CoordinatorSettings.read(done.coordinator)
    site = SiteSettings.read(done.sites[0].folder)
    assert isinstance(asked("create", tmp_path, *OTHER), ConfigurationError)

    policy = site.policy.read_text()
    pinned = f"dermoscopy@{'0' * 64}"
    site.policy.write_text(policy.replace('["dermoscopy"]', f'["dermoscopy", "{pinned}"]'))
    assert asked("create", tmp_path, *OTHER) is None
    site.policy.write_text(policy)

    keep_recipe(site, load_recipe("dermoscopy").with_changes(model="test_resnet"))
    assert asked("create", tmp_path, *OTHER) is None
    with opened(settings) as registry:
        assert len(registry.campaigns()) == 2
