import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.runner.supernode import arguments
from deploy import components
from server.coordinator_folder import create_coordinator_folder
from tests.client.runner.supernode import make_site
from tests.deploy.test_processes import linux, wait_dead


def test_no_process_inherits_settings_or_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROUND_SITE_PORT", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    environment = components.environment(tmp_path / "home")
    assert "WARDROUND_SITE_PORT" not in environment
    assert "HTTPS_PROXY" not in environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"


def test_processes_have_flower_homes_and_logs_of_their_own(tmp_path: Path) -> None:
    settings = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    site = make_site(tmp_path / "north")
    logs = tmp_path / "logs"
    specs = [f(settings, logs) for f in (components.superlink, components.superexec)]
    specs.append(components.coordinator_service(settings, logs))
    specs += [
        f(site, logs)
        for f in (components.site_node, components.site_runner, components.site_service)
    ]
    for values in (
        [spec.name for spec in specs],
        [spec.log for spec in specs],
        [spec.environment["FLWR_HOME"] for spec in specs],
    ):
        assert len(set(values)) == len(specs)


def test_the_superlink_listens_on_loopback_with_every_guard_on(tmp_path: Path) -> None:
    settings = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    command = " ".join(components.superlink(settings, tmp_path).command)
    assert "--host 127.0.0.1" in command
    assert "--enable-supernode-auth" in command
    assert "--isolation process" in command
    assert "--superexec-auth-secret-file" in command
    assert "--ssl-certfile" in command
    assert "--insecure" not in command


def test_the_supernode_runs_no_process_of_flowers_own(tmp_path: Path) -> None:
    command = " ".join(arguments(make_site(tmp_path / "north")))
    assert "--isolation process" in command
    assert "--superexec-auth-secret-file" in command
    assert "--host 127.0.0.1" in command
    assert "--insecure" not in command


SUPEREXEC = """
import subprocess, sys, time
subprocess.Popen([sys.argv[1], "--token", "t"])
time.sleep(600)
"""


@linux
def test_a_serverapp_dies_with_its_superexec_and_leaves_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "flwr-serverapp"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "print(os.getpid(), *sys.argv[1:], flush=True)\ntime.sleep(600)\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(components, "BIN", fake.parent)
    settings = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    spec = components.superexec(settings, tmp_path / "logs")
    stub = Path(spec.environment["PATH"].split(":")[0]) / "flwr-serverapp"
    superexec = subprocess.Popen([sys.executable, "-c", SUPEREXEC, str(stub)])
    log = tmp_path / "logs" / "serverapp.log"
    while not log.exists() or not log.read_text().endswith("\n"):
        assert superexec.poll() is None
        time.sleep(0.02)
    pid, *words = log.read_text().split()
    assert words == ["--token", "t"]
    superexec.kill()  # and not reaped: its zombie still has the process id
    assert wait_dead(int(pid))
    superexec.wait()
