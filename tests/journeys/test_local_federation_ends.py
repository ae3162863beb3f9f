"""`wardround local up`, interrupted while its processes are still starting."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.journeys.test_local_federation import processes_in

pytestmark = pytest.mark.journey

START_SECONDS = 120.0
END_SECONDS = 20.0


def bring_up(folder: Path) -> subprocess.Popen[bytes]:
    """Start the command, and return when the last kind of process has been started."""
    command = [sys.executable, "-m", "deploy.cli", "local", "up", "--folder", str(folder)]
    command += ["--site", "north", "--recipe", "dermoscopy"]
    launcher = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while not (folder / "logs" / "north-node.log").exists():
        assert launcher.poll() is None, "the command ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return launcher


def wait_until_gone(folder: Path) -> list[psutil.Process]:
    deadline = time.monotonic() + END_SECONDS
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ends") / "here"


def test_ctrl_c_stops_everything(folder: Path) -> None:
    launcher = bring_up(folder)
    assert len(processes_in(folder)) >= 6
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=END_SECONDS) == 130
    assert processes_in(folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux's")
def test_a_killed_launcher_leaves_nothing_and_the_folder_starts_again(folder: Path) -> None:
    (folder / "logs" / "north-node.log").unlink()
    launcher = bring_up(folder)
    launcher.kill()
    launcher.wait(timeout=END_SECONDS)
    assert wait_until_gone(folder) == []
    (folder / "logs" / "north-node.log").unlink()
    again = bring_up(folder)
    again.send_signal(signal.SIGTERM)
    assert again.wait(timeout=END_SECONDS) == 130
    assert processes_in(folder) == []
