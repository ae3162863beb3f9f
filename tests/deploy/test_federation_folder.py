"""A federation is made in no folder of other things, and a demo's is found in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigurationError
from deploy.local import LocalFederation
from deploy.provision import provision
from server.settings import CoordinatorSettings


def test_a_folder_of_other_things_is_refused_untouched(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "patient-1.png").touch()
    for folder in (images, images / "patient-1.png"):
        with pytest.raises(ConfigurationError) as caught:
            provision(folder, sites=["north"], task="dermoscopy")
        assert caught.value.code == "folder-not-new"
        with pytest.raises(ConfigurationError) as caught:
            LocalFederation(folder, sites=["north"], task="dermoscopy")
        assert caught.value.code == "folder-not-new"
    assert [path.name for path in images.iterdir()] == ["patient-1.png"]


def test_a_home_or_a_new_disk_is_taken_and_an_earlier_federation_goes_on(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".bashrc").touch()
    provision(tmp_path, sites=["north"], task="dermoscopy")
    (tmp_path / "notes.txt").touch()
    done = provision(tmp_path, sites=["north"], task="dermoscopy")
    assert not done.coordinator_created


def test_a_host_that_is_none_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="DNS name"):
        provision(tmp_path / "new", sites=["north"], task="dermoscopy", hosts=["not a host"])
    assert not (tmp_path / "new").exists()


def test_the_folder_of_a_demo_names_the_federation_in_it(tmp_path: Path) -> None:
    inside = tmp_path / "federation"
    for part, file in (("coordinator", "coordinator.toml"), ("sites/north", "site.toml")):
        (inside / part).mkdir(parents=True)
        (inside / part / file).touch()
    with pytest.raises(ConfigurationError) as of_local:
        LocalFederation(tmp_path)
    with pytest.raises(ConfigurationError) as of_provision:
        provision(tmp_path, sites=["north"], task="dermoscopy")
    with pytest.raises(ConfigurationError) as of_the_rest:
        CoordinatorSettings.find(tmp_path)
    for caught in (of_local, of_provision, of_the_rest):
        assert str(inside) in caught.value.action
