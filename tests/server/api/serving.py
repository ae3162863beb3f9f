"""The coordinator's service for tests: real uvicorn, real TLS, in a thread of this process."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uvicorn

from server.api.services import CoordinatorServices
from server.main import server_for
from server.registry.registry import Registry
from tests.releases import Coordinator
from tests.server.signed_in import account

PATIENCE = 20.0


@dataclass
class Service:
    coordinator: Coordinator
    services: CoordinatorServices
    server: uvicorn.Server
    thread: threading.Thread

    @property
    def port(self) -> int:
        found: int = self.server.servers[0].sockets[0].getsockname()[1]
        return found

    def session(self, name: str = "vera", *, life: float = 3600) -> str:
        accounts = self.services.registry.accounts
        (found,) = (one for one in accounts.all() if one.name == name)
        return accounts.open_session(found, life=timedelta(seconds=life))

    def connect(self) -> http.client.HTTPSConnection:
        trusted = ssl.create_default_context(
            cadata=self.coordinator.authority.certificate.decode("ascii")
        )
        return http.client.HTTPSConnection(
            "localhost", self.port, timeout=PATIENCE, context=trusted
        )

    def end(self) -> float:
        began = time.monotonic()
        self.services.ending.set()
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return time.monotonic() - began


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    """Serve a new coordinator with an account ``vera`` that may look."""
    coordinator = Coordinator.create(folder, port=0)
    registry = Registry.open(coordinator.settings)
    account(registry, "vera", "viewer")
    services = CoordinatorServices(coordinator.settings, coordinator.publisher, registry)
    server = server_for(services)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    made = Service(coordinator, services, server, thread)
    yield made
    made.end()
    registry.close()
