"""A coordinator with two sites and an account of each role; nobody is signed in yet.

And one that a browser visits, with an approver's account, for all tests of a module.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser

from common.accounts.throttle import Throttle
from server.api.application import create_app
from server.api.services import CoordinatorServices
from server.registry.registry import Registry
from tests.chromium import launched
from tests.releases import Coordinator, register
from tests.server.api.serving import Service, serving
from tests.server.signed_in import BASE, account


@pytest.fixture
def registry(registry: Registry) -> Registry:
    register(registry, "north", "south")
    for name, role in (("vera", "viewer"), ("otto", "operator"), ("anna", "approver")):
        account(registry, name, role)  # type: ignore[arg-type]
    return registry


@pytest.fixture
def services(coordinator: Coordinator, registry: Registry) -> CoordinatorServices:
    still = Throttle(clock=lambda: 0.0)  # on a busy machine a wait of a second is soon over
    return CoordinatorServices(
        coordinator.settings, coordinator.publisher, registry, throttle=still
    )


@pytest.fixture
def client(services: CoordinatorServices) -> Iterator[TestClient]:
    with TestClient(create_app(services), base_url=BASE, follow_redirects=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as opened:
        yield opened


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("page") / "coordinator") as made:
        registry = made.services.registry
        for number, name in enumerate(("north", "south")):
            registry.register_site(name, node_id=number + 1, public_key="key")
        account(registry, "anna", "approver")
        yield made
