import stat
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from common.signing import SigningKey
from server.coordinator_folder import create_coordinator_folder, plan_public_key
from server.settings import CoordinatorSettings


def test_layout_and_modes(tmp_path: Path) -> None:
    settings = create_coordinator_folder(
        tmp_path / "coordinator",
        settings={"port": 9000},
        private_files={"server.key": b"secret"},
        public_files={"server.crt": b"certificate"},
        releases=False,
    )
    assert settings.port == 9000
    for name, mode in (("plan.pem", 0o600), ("server.key", 0o600), ("server.crt", 0o644)):
        assert stat.S_IMODE((settings.keys / name).stat().st_mode) == mode
    assert stat.S_IMODE(settings.keys.stat().st_mode) == 0o700
    own = SigningKey.read(settings.keys / "plan.pem").verify_key.pem()
    assert plan_public_key(settings) == own


def test_an_existing_folder_keeps_its_keys(tmp_path: Path) -> None:
    settings = create_coordinator_folder(tmp_path / "c", releases=False)
    before = (settings.keys / "plan.pem").read_bytes()
    with pytest.raises(ConfigurationError):
        create_coordinator_folder(tmp_path / "c", releases=False)
    assert (settings.keys / "plan.pem").read_bytes() == before


def test_a_coordinator_is_found_by_its_own_folder_or_the_federations(tmp_path: Path) -> None:
    made = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    for folder in (tmp_path, made.folder):
        assert CoordinatorSettings.find(folder).folder == made.folder
    create_coordinator_folder(made.folder / "coordinator", releases=False)
    assert CoordinatorSettings.find(made.folder).folder == made.folder, "its own goes first"
    with pytest.raises(ConfigurationError, match="There is no"):
        CoordinatorSettings.find(made.folder / "data")


def test_a_wrong_setting_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        create_coordinator_folder(tmp_path / "c", settings={"port": "x"}, releases=False)
    assert list(tmp_path.iterdir()) == []
