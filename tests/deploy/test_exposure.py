"""What a running federation leaves open: processes, ports, passwords, files. It must be nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.local import LocalFederation
from tests.deploy.gateways import is_refused, needs_nginx
from tests.journeys.test_local_federation import POLICY, processes_in, toy_recipe

pytestmark = [pytest.mark.journey, needs_nginx]

SECRET_MARKS = (b"PRIVATE KEY-----",)
SECRET_NAMES = ("superexec.secret", "pseudonyms", "node", "site.key")
DEFAULT_PASSWORDS = ("admin", "password", "changeme", "secret", "postgres", "wardround", "default")
PATIENT_DATA = ("cases.db", "ledger-head.json", "registry.db", "superlink.db")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    os.umask(0o022)  # what a careless machine has
    folder = tmp_path_factory.mktemp("exposure") / "here"
    with LocalFederation(
        folder, sites=("north",), task="toy", recipe=toy_recipe(), policy=POLICY, gateway=True
    ) as running:
        running.start()
        running.wait_ready()
        yield running


def listening(folder: Path) -> set[tuple[str, int]]:
    """Address and port of everything that a federation's processes listen on."""
    found = set()
    for process in processes_in(folder):
        for child in [process, *process.children(recursive=True)]:
            for connection in child.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found


def readable_by_others(folder: Path) -> list[Path]:
    """Secrets and patient data that another account of the machine could open."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and is_secret(path) and can_be_read(path, folder)
    ]


def is_secret(path: Path) -> bool:
    if path.name in (*SECRET_NAMES, *PATIENT_DATA):
        return True
    return any(mark in path.read_bytes() for mark in SECRET_MARKS)


def can_be_read(path: Path, top: Path) -> bool:
    """Whether its own mode and that of every folder above, up to ``top``, let others in."""
    if not stat.S_IMODE(path.stat().st_mode) & 0o044:
        return False
    folders = [parent for parent in path.parents if parent == top or top in parent.parents]
    return all(stat.S_IMODE(folder.stat().st_mode) & 0o011 for folder in folders)


def test_only_what_was_configured_listens_and_on_loopback_alone(
    federation: LocalFederation,
) -> None:
    coordinator, site = federation.coordinator, federation.site("north")
    found = listening(federation.folder)
    configured = {coordinator.gateway_port, coordinator.port, coordinator.superlink_port}
    configured |= {site.port, site.runtime_port}
    assert {port for _, port in found} == configured
    assert {address for address, _ in found} == {"127.0.0.1"}


def test_only_the_gateway_may_listen_beyond_loopback(federation: LocalFederation) -> None:
    """Flower's own processes are told loopback whatever the settings say."""
    for name in ("superlink", "coordinator"):
        assert not any("0.0.0.0" in word for word in _command(federation, name))


def test_no_secret_can_be_read_by_another_account(federation: LocalFederation) -> None:
    assert readable_by_others(federation.folder) == []


def test_secrets_are_closed_by_their_own_mode_too(federation: LocalFederation) -> None:
    """Folders may be moved: a secret must not rest on the folder above it."""
    secrets = [
        path
        for folder in (federation.coordinator.keys, federation.site("north").keys)
        for path in folder.rglob("*")
        if path.is_file() and is_secret(path)
    ]
    assert len(secrets) >= 8
    assert [path for path in secrets if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_the_check_can_fail(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "site.key").write_bytes(b"x")
    (tmp_path / "site.key").chmod(0o644)
    assert readable_by_others(tmp_path) == [tmp_path / "site.key"]


def test_no_default_password_stands_anywhere(federation: LocalFederation) -> None:
    for path in federation.folder.rglob("*.toml"):
        values = [line.partition("=")[2].strip().strip('"') for line in path.open()]
        assert not set(DEFAULT_PASSWORDS) & set(values), path
    for folder in (federation.coordinator.keys, federation.site("north").keys):
        for path in folder.rglob("*"):
            if path.is_file():
                assert path.read_bytes().strip().lower() not in {
                    word.encode() for word in DEFAULT_PASSWORDS
                }
                assert path.stat().st_size >= 32, f"{path} is too short for a secret"


def test_no_secret_stands_on_a_command_line(federation: LocalFederation) -> None:
    site = federation.site("north")
    secrets = [(site.keys / "pseudonyms").read_text()]
    for process in processes_in(federation.folder):
        words = " ".join([*process.cmdline(), *process.environ().values()])
        assert not any(secret in words for secret in secrets)


def test_nothing_is_left_after_the_end(federation: LocalFederation) -> None:
    """The module's last test: it stops the shared federation."""
    ports = [port for _, port in listening(federation.folder)]
    federation.stop()
    assert processes_in(federation.folder) == []
    assert all(is_refused(port) for port in ports)


def _command(federation: LocalFederation, name: str) -> list[str]:
    marks = {"superlink": "flower-superlink", "coordinator": "server.main"}
    for process in processes_in(federation.folder):
        if any(marks[name] in word for word in process.cmdline()):
            return process.cmdline()
    raise AssertionError(f"{name} does not run")
