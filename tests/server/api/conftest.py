"""A coordinator with two sites and an account of each role; nobody is signed in yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from common.accounts.throttle import Throttle
from server.api.application import create_app
from server.api.services import CoordinatorServices
from server.registry.registry import Registry
from tests.releases import Coordinator, register
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
