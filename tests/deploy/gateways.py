"""A coordinator behind real nginx, and ways to speak to it that no well-behaved client has."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.connection import Connection
from client.settings import SiteSettings
from deploy import components
from deploy.enrolment import assign_ports
from deploy.gateway import configuration
from deploy.processes import Supervisor
from deploy.provision import provision
from server.settings import CoordinatorSettings

READY_SECONDS = 120.0
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None,
    reason="nginx is not installed (Debian: nginx-light)",
)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def by_gateway(self) -> bool:
        """Whether nginx itself answered, so that nothing went on to the coordinator."""
        return b"nginx" in self.body


@dataclass(frozen=True)
class Gateway:
    folder: Path
    coordinator: CoordinatorSettings
    supervisor: Supervisor

    def site(self, name: str) -> SiteSettings:
        return SiteSettings.read(self.folder / "sites" / name)

    def tls(self, name: str) -> ssl.SSLContext:
        return Connection.of(self.site(name)).tls()

    def connection(self, tls: ssl.SSLContext) -> http.client.HTTPSConnection:
        port = self.coordinator.gateway_port
        return http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=20)

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Answer:
        """Send one request with exactly this path; nothing is normalised on the way out."""
        connection = self.connection(tls or self.tls("north"))
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            connection.close()

    def logs(self) -> str:
        files = self.coordinator.folder.glob("logs/gateway*"), self.folder.glob("logs/gateway*")
        return "".join(path.read_text("utf-8") for found in files for path in found)


@contextmanager
def running_gateway(folder: Path, *sites: str) -> Iterator[Gateway]:
    """Run SuperLink, the coordinator's service and nginx; no site runs."""
    provision(folder, sites=sites, task="dermoscopy", gateway=True)
    kits = [SiteSettings.read(folder / "sites" / name) for name in sites]
    assign_ports(CoordinatorSettings.read(folder / "coordinator"), kits, gateway=True)
    coordinator = CoordinatorSettings.read(folder / "coordinator")
    configuration.render(coordinator)
    configuration.check(coordinator)
    with Supervisor() as supervisor:
        for make in (components.superlink, components.coordinator_service, components.gateway):
            supervisor.start(make(coordinator, folder / "logs"))
        supervisor.wait_ready(timeout=READY_SECONDS)
        yield Gateway(folder, coordinator, supervisor)


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
