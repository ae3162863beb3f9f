import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from client.runner.supernode import arguments
from deploy import components
from deploy.certificates import make_authority, make_server_certificate
from deploy.gateway.configuration import render
from deploy.ports import reached_at
from server.coordinator_folder import create_coordinator_folder
from tests.client.runner.supernode import make_site
from tests.deploy.test_processes import linux, wait_dead


def test_no_process_inherits_settings_or_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROUND_SITE_PORT", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    monkeypatch.setenv("PGPASSFILE", "/etc/wardround/pgpass")
    environment = components.environment(tmp_path / "home")
    assert environment["PGPASSFILE"] == "/etc/wardround/pgpass"
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


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/live" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(address: str, certificate: Path, key: Path) -> Iterator[int]:
    """Answer health over TLS at one address of this machine; yield the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer((address, 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@linux  # all of 127.0.0.0/8 is this machine
def test_a_service_on_an_address_and_a_certificate_of_the_hospitals_own_becomes_ready(
    tmp_path: Path,
) -> None:
    authority = make_authority(federation="hospital")
    for name in ("ward.example", "other.example"):
        made = make_server_certificate(authority, hosts=[name])
        (tmp_path / f"{name}.crt").write_bytes(made.certificate)
        (tmp_path / f"{name}.key").write_bytes(made.key)
    own, key = tmp_path / "ward.example.crt", tmp_path / "ward.example.key"
    with serving("127.0.0.2", own, key) as port:
        site = make_site(tmp_path / "north").model_copy(
            update={"host": "127.0.0.2", "port": port, "tls_certificate": own, "tls_key": key}
        )
        assert components.site_url(site) == f"https://127.0.0.2:{port}"
        ready = components.site_service(site, tmp_path / "logs").ready
        assert ready is not None
        assert ready()
        stranger = site.model_copy(update={"tls_certificate": tmp_path / "other.example.crt"})
        refused = components.site_service(stranger, tmp_path / "logs").ready
        assert refused is not None
        assert not refused()


@linux
def test_a_coordinator_and_a_gateway_on_an_address_of_their_own_become_ready(
    tmp_path: Path,
) -> None:
    made = create_coordinator_folder(tmp_path / "coordinator", releases=False)
    authority = make_authority()
    server = make_server_certificate(authority, hosts=["localhost"])
    own, key = tmp_path / "server.crt", tmp_path / "server.key"
    own.write_bytes(server.certificate)
    key.write_bytes(server.key)
    made.keys.mkdir(exist_ok=True)
    (made.keys / "ca.crt").write_bytes(authority.certificate)
    with serving("127.0.0.2", own, key) as port:
        update = {"host": "127.0.0.2", "port": port, "gateway_host": "127.0.0.2"}
        settings = made.model_copy(update={**update, "gateway_port": port})
        for spec in (
            components.coordinator_service(settings, tmp_path / "logs"),
            components.gateway(settings, tmp_path / "logs"),
        ):
            assert spec.ready is not None
            assert spec.ready()
        assert f"https://127.0.0.2:{port}/releases/" in render(settings).read_text()


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("0.0.0.0", "127.0.0.1:80"),
        ("::", "[::1]:80"),
        ("fd00::7", "[fd00::7]:80"),
        ("ward.example", "ward.example:80"),
    ],
)
def test_where_this_machine_reaches_its_own_server(host: str, reached: str) -> None:
    assert reached_at(host, 80) == reached


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
