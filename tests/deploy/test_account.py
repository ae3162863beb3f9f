import os
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from deploy import account
from deploy.cli import main
from deploy.provision import provision

NOBODY = 65534


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    provision(tmp_path, sites=["north"], task="dermoscopy")
    return tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can run in another account's folder.")
@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("sites/north", "sites/north/site.toml"),
        ("coordinator", "coordinator/coordinator.toml"),
        (".", "coordinator/coordinator.toml"),
    ],
)
def test_root_writes_nothing_into_the_folder_of_a_services_account(
    folder: str, file: str, federation: Path
) -> None:
    assert account.own_folder(federation / folder) == federation / folder
    os.chown(federation / file, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match="runs as root") as caught:
        account.own_folder(federation / folder)
    assert caught.value.code == "wrong-account"
    assert "sudo -u" in (caught.value.action or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can run in another account's folder.")
@pytest.mark.parametrize(
    "command",
    [
        ("site", "budget", "--rounds", "1", "--epsilon", "1", "--site", "sites/north"),
        ("coordinator", "campaign", "list", "--folder", "."),
        ("coordinator", "campaign", "pause", "none", "--folder", "."),
        ("pki", "renew-server", "--folder", "."),
        ("provision", "--folder", ".", "--site", "east", "--recipe", "dermoscopy"),
        ("local", "up", "--folder", "."),
        ("audit", "verify", "--site", "sites/north"),
        ("audit", "verify", "--coordinator", "."),
        ("audit", "verify", "--folder", "."),
        ("audit", "verify", "--folder", "sites/north"),
    ],
)
def test_every_kind_of_command_asks_as_whom_it_runs(
    command: tuple[str, ...],
    federation: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for file in ("sites/north/site.toml", "coordinator/coordinator.toml"):
        os.chown(federation / file, NOBODY, NOBODY)
    monkeypatch.setattr("deploy.local.LocalFederation", _started)
    monkeypatch.chdir(federation)
    monkeypatch.setattr("sys.argv", ["wardround", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "runs as root" in " ".join(capfd.readouterr().err.split())
    assert not (federation / "sites" / "east").exists()
    assert list(federation.glob("**/*.db")) == []


def _started(*_: object, **__: object) -> None:
    pytest.fail("A federation was started as root.")


def test_a_folder_of_nobody_yet_is_anybodys(tmp_path: Path) -> None:
    assert account.own_folder(tmp_path / "new") == tmp_path / "new"
