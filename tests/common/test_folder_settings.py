"""Settings of a folder: the file, the environment, and which folder is meant."""

from pathlib import Path

import pytest

from client.settings import SiteSettings
from common.errors import ConfigurationError
from server.settings import CoordinatorSettings


def site(folder: Path, text: str = 'name = "north"\ntask = "dermoscopy"\n') -> Path:
    folder.mkdir()
    (folder / "site.toml").write_text(text)
    return folder


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = site(tmp_path / "a")
    assert SiteSettings.read(folder).port == 8500
    monkeypatch.setenv("WARDROUND_SITE_PORT", "9000")
    assert SiteSettings.read(folder).port == 9000


def test_the_folder_that_was_named_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `site import --site B` would write into A where the environment names A."""
    monkeypatch.setenv("WARDROUND_SITE_FOLDER", str(site(tmp_path / "a")))
    settings = SiteSettings.read(site(tmp_path / "b"))
    assert settings.folder == tmp_path / "b"
    assert str(tmp_path / "b") in settings.database


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "cannot be read"),
        ('name = "north"\ntask = "x"\nprot = 1\n', "prot"),
        ('name = "North!"\ntask = "x"\n', "name"),
        ('name = "north"\ntask = "x"\nport = 70000\n', "port"),
    ],
)
def test_a_wrong_file_names_its_fault(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        SiteSettings.read(site(tmp_path / "a", text))


def test_an_absent_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="wardround provision"):
        CoordinatorSettings.read(tmp_path)
