"""One command a machine: `wardround coordinator up` and `wardround site up`, as real processes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from client.settings import SiteSettings
from deploy import flower_run
from deploy.enrolment import assign_ports
from deploy.ports import free_port
from deploy.provision import provision
from server.registry.registry import Registry
from server.settings import CoordinatorSettings

pytestmark = [pytest.mark.journey, pytest.mark.timeout(420)]
WAIT_SECONDS = 300.0


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a session of its own; end it with SIGTERM, and see that it ends."""
    whole = [sys.executable, "-m", "deploy.cli", *arguments]
    process = subprocess.Popen(
        whole, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
        assert process.poll() is None, "it ended by itself"
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        assert not [child for child in children if child.is_running()], "something is left"
    finally:
        process.kill()
        process.wait()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def online(settings: CoordinatorSettings) -> set[str]:
    """Return the names of the sites whose nodes the SuperLink sees."""
    registry = Registry.open(settings)
    try:
        names = {site.node_id: site.name for site in registry.sites()}
    finally:
        registry.close()
    nodes = flower_run.registered_nodes(settings)
    return {names[node.node_id] for node in nodes if node.status == "online"}


def test_a_site_that_was_up_first_joins_and_a_new_one_is_let_in(tmp_path: Path) -> None:
    gateway = shutil.which("nginx") is not None or Path("/usr/sbin/nginx").exists()
    provision(tmp_path, sites=["north"], task="dermoscopy")
    coordinator = CoordinatorSettings.read(tmp_path / "coordinator")
    site = SiteSettings.read(tmp_path / "sites" / "north")
    assign_ports(coordinator, [site], gateway=gateway)
    coordinator = CoordinatorSettings.read(tmp_path / "coordinator")
    site = SiteSettings.read(tmp_path / "sites" / "north")
    with (site.folder / "site.toml").open("a", encoding="utf-8") as file:
        file.write(f'\n[dicom]\ncallers = ["SCANNER"]\nport = {free_port()}\n')
    with command("site", "up", "--site", str(site.folder)) as up:
        assert up.stdout is not None
        assert "Site north runs" in up.stdout.readline()
        page = f"http://127.0.0.1:{site.port}"
        assert httpx.get(f"{page}/health/live", trust_env=False).status_code == 200
        until((site.folder / "logs" / "north-dicom.log").exists)
        until(lambda: "Receiving DICOM" in (site.folder / "logs" / "north-dicom.log").read_text())
        again = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "site", "up", "--site", str(site.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (again.returncode, "running already" in again.stderr) == (2, True)
        options = [] if gateway else ["--no-gateway"]
        with command("coordinator", "up", "--folder", str(tmp_path), *options):
            until((coordinator.data / "superlink.db").exists)
            until(lambda: _quietly(coordinator) == {"north"})
            provision(tmp_path, sites=["north", "south"], task="dermoscopy")
            until(lambda: "south" in _registered(coordinator))


def _quietly(settings: CoordinatorSettings) -> set[str]:
    try:
        return online(settings)
    except Exception:  # the SuperLink is still coming up
        return set()


def _registered(settings: CoordinatorSettings) -> set[str]:
    registry = Registry.open(settings)
    try:
        return {site.name for site in registry.sites()}
    finally:
        registry.close()
