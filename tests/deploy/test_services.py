"""What one machine's processes ask for before any of them is started."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.settings import SiteSettings
from deploy import services
from deploy.cli import main
from deploy.enrolment import assign_ports
from deploy.processes import ProcessSpec, Supervisor
from deploy.provision import provision
from server.settings import CoordinatorSettings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the processes that would have been started; the first ends the command."""
    names: list[str] = []

    def start(_self: Supervisor, spec: ProcessSpec) -> int:
        names.append(spec.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Supervisor, "start", start)
    return names


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    provision(tmp_path, sites=["north"], task="dermoscopy")
    site = SiteSettings.read(tmp_path / "sites" / "north")
    assign_ports(CoordinatorSettings.read(tmp_path / "coordinator"), [site], gateway=True)
    return tmp_path


@pytest.fixture
def stranger() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["wardround", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def change(file: Path, key: str, port: int) -> None:
    lines = [line for line in file.read_text().splitlines() if not line.startswith(f"{key} =")]
    file.write_text("\n".join([f"{key} = {port}", *lines]))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("WARDROUND_COORDINATOR_DATABASE_URL", ("coordinator", "up", "--folder", ".")),
        ("WARDROUND_SITE_DATABASE_URL", ("site", "up", "--site", "sites/north")),
    ],
)
def test_a_database_that_the_processes_would_not_use_is_refused(
    name: str,
    command: tuple[str, ...],
    federation: Path,
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(federation)
    monkeypatch.setenv(name, "postgresql://db.example/other")
    assert run(monkeypatch, *command) == 2
    assert name in capfd.readouterr().err
    assert not started


@pytest.mark.parametrize(
    ("key", "command", "file"),
    [
        ("superlink_port", ("coordinator", "up", "--folder", "."), "coordinator/coordinator.toml"),
        ("port", ("coordinator", "up", "--folder", "."), "coordinator/coordinator.toml"),
        ("gateway_port", ("coordinator", "up", "--folder", "."), "coordinator/coordinator.toml"),
        ("port", ("site", "up", "--site", "sites/north"), "sites/north/site.toml"),
        ("runtime_port", ("site", "up", "--site", "sites/north"), "sites/north/site.toml"),
    ],
)
def test_a_taken_port_is_named_and_nothing_is_started(
    key: str,
    command: tuple[str, ...],
    file: str,
    federation: Path,
    stranger: int,
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(federation)
    monkeypatch.setattr(services.configuration, "nginx", lambda: Path("nginx"))
    kept = (federation / file).read_text()
    change(federation / file, key, stranger)
    assert run(monkeypatch, *command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"Port {stranger} of {key} is in use." in said
    assert f"change {key} in {federation / file}" in said
    assert started == []
    (federation / file).write_text(kept)
    assert run(monkeypatch, *command) == 130
    assert len(started) == 1
    assert capsys.readouterr().err.endswith("Interrupted; everything is stopped.\n")


def test_sites_are_registered_anew_with_a_superlink_that_has_never_seen_them(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrolled: list[list[str]] = []
    monkeypatch.setattr(services, "enrol_nodes", lambda _, names: enrolled.append(list(names)))
    monkeypatch.setattr(services.components, "superlink", lambda settings, _logs: settings)
    for name in ("start", "wait_ready", "keep_alive"):
        monkeypatch.setattr(Supervisor, name, lambda *_arguments, **_options: None)
    settings = CoordinatorSettings.read(federation / "coordinator")
    processes = services.CoordinatorProcesses(settings, gateway=False)
    registry = services.Registry.open(settings)
    registry.register_site("north", node_id=1, public_key="key")
    registry.close()
    settings.data.mkdir(exist_ok=True)
    processes.start()
    assert enrolled == [["north"]]
    (settings.data / "superlink.db").touch()
    processes.start()
    assert enrolled == [["north"]], "this one has seen it"
