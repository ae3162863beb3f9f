"""The coordinator's process: starts, publishes by itself, ends cleanly, refuses loose keys."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.releases.cache import ReleaseCache
from common.errors import ConfigurationError, ReleaseError
from deploy.ports import free_port
from server.main import check_keys, compose, main
from server.registry.registry import Registry
from tests.releases import Coordinator, approve, draft

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator", port=free_port(), timestamp_seconds=30)


class Process:
    """``python -m server.main``, its log read as it comes."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "server.main", "--folder", str(folder)]
        self.popen = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self._seen: list[str] = []
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            with self._news:
                self._seen.append(line)
                self._news.notify_all()

    def wait_for(self, text: str) -> None:
        with self._news:
            found = self._news.wait_for(lambda: text in self.log, PATIENCE)
        assert found, f"{text!r} never came:\n{self.log}"

    @property
    def log(self) -> str:
        return "".join(self._seen)


@pytest.fixture
def process(coordinator: Coordinator) -> Iterator[Process]:
    started = Process(coordinator.settings.folder)
    yield started
    started.popen.kill()
    started.popen.wait()


def test_an_approved_candidate_reaches_a_site_and_the_process_ends_cleanly(
    coordinator: Coordinator, process: Process, tmp_path: Path
) -> None:
    process.wait_for("Uvicorn running")
    registry = Registry.open(coordinator.settings)
    approve(coordinator, registry, 1)
    process.wait_for("release-published version=1")
    registry.close()
    cache = ReleaseCache(coordinator.site(tmp_path / "site", coordinator.settings.port))
    release = cache.refresh()
    assert release is not None, cache.status
    assert release.manifest.model_digest == draft(1).model_digest
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(PATIENCE) == 0
    process.wait_for("coordinator-stopped")
    assert "Traceback" not in process.log
    assert str(coordinator.settings.folder / "keys") not in process.log


def test_killed_and_started_again_it_goes_on(coordinator: Coordinator, process: Process) -> None:
    process.wait_for("Uvicorn running")
    process.popen.send_signal(signal.SIGKILL)
    process.popen.wait()
    registry = Registry.open(coordinator.settings)
    approve(coordinator, registry, 1)
    again = Process(coordinator.settings.folder)
    try:
        again.wait_for("release-published version=1")
        again.popen.send_signal(signal.SIGINT)
        assert again.popen.wait(PATIENCE) == 0
    finally:
        again.popen.kill()
        again.popen.wait()
    registry.close()


@pytest.mark.parametrize("name", ["server.key", "plan.pem", "tuf/timestamp.pem"])
def test_a_key_that_others_can_read_is_refused_by_name(
    coordinator: Coordinator, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = coordinator.settings.keys / name
    key.chmod(0o644)
    assert main(["--folder", str(coordinator.settings.folder)]) == 2
    assert "key-readable" in caplog.text
    assert str(key) in caplog.text
    key.chmod(0o600)
    check_keys(coordinator.settings)


def test_an_absent_tls_key_is_refused(coordinator: Coordinator) -> None:
    (coordinator.settings.keys / "server.key").unlink()
    with pytest.raises(ConfigurationError) as caught:
        compose(coordinator.settings)
    assert caught.value.code == "key-missing"


def test_an_absent_repository_is_refused(coordinator: Coordinator) -> None:
    (coordinator.metadata / "timestamp.json").unlink()
    with pytest.raises(ReleaseError) as caught:
        compose(coordinator.settings)
    assert caught.value.code == "repository-missing"
    assert main(["--folder", str(coordinator.settings.folder)]) == 1


def test_an_absent_folder_is_a_configuration_error(tmp_path: Path) -> None:
    assert main(["--folder", str(tmp_path / "none")]) == 2
