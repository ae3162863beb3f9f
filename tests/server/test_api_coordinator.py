"""The coordinator's HTTP edge: exact files, safe headers, honest health, no identifiers."""

from __future__ import annotations

import http.client
import os
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from common.errors import StoreError
from common.records import Receipt
from server.api.application import create_app
from server.api.releases import METADATA_NAME, TARGET_NAME
from server.api.services import CoordinatorServices
from server.publishing.publisher import ReleasePublisher
from server.registry.records import Contribution, Site
from server.registry.registry import Registry
from server.supervision import SupervisedTask
from tests.releases import Coordinator, approve, metrics, served
from tests.server.signed_in import BASE, bearer


@pytest.fixture
def coordinator(coordinator: Coordinator) -> Coordinator:
    coordinator.publish(1)
    return coordinator


@pytest.fixture
def services(coordinator: Coordinator, registry: Registry) -> CoordinatorServices:
    return CoordinatorServices(coordinator.settings, coordinator.publisher, registry)


@pytest.fixture
def client(services: CoordinatorServices, registry: Registry) -> Iterator[TestClient]:
    headers = bearer(registry)
    with TestClient(create_app(services), base_url=BASE, headers=headers) as opened:
        yield opened


def test_every_file_of_the_repository_is_served_byte_for_byte(
    client: TestClient, coordinator: Coordinator
) -> None:
    for folder in ("metadata", "targets"):
        files = list((coordinator.settings.releases / folder).iterdir())
        assert len(files) >= 3
        for path in files:
            answer = client.get(f"/releases/{folder}/{path.name}")
            assert (answer.status_code, answer.content) == (200, path.read_bytes())
            moving = path.name == "timestamp.json"
            assert ("immutable" in answer.headers["cache-control"]) != moving


def test_security_headers_are_on_every_answer_good_or_bad(client: TestClient) -> None:
    for path in ("/health/live", "/releases", "/nowhere", "/releases/targets/x", "/campaigns/none"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["strict-transport-security"]
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/releases/targets/",
        "/releases/metadata/",
        "/releases/metadata/2.root.json",
        "/releases/metadata/root.json",
        "/releases/metadata/.publisher.lock",
        "/releases/targets/%2e%2e/metadata/timestamp.json",
        "/releases/targets/..%2f..%2f..%2fkeys%2fplan.pem",
        "/releases/metadata/..%2f..%2f..%2fkeys%2fplan.pem",
        "/releases/targets//etc/passwd",
        "/releases/targets/%00",
        "/releases/targets/" + "a" * 64 + ".release-1.json",
        "/releases/targets/" + "a" * 64 + ".release-1.json%0a",
        "/releases/targets/" + "a" * 5000,
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "pem" not in answer.text
    assert "BEGIN" not in answer.text


def test_a_link_or_folder_by_a_good_name_is_not_served(
    client: TestClient, coordinator: Coordinator
) -> None:
    secret = coordinator.settings.keys / "plan.pem"
    (coordinator.metadata / "7.root.json").symlink_to(secret)
    (coordinator.metadata / "8.root.json").mkdir()
    for name in ("7.root.json", "8.root.json"):
        assert client.get(f"/releases/metadata/{name}").status_code == 404


@given(st.text(max_size=80))
def test_no_name_that_passes_can_leave_its_folder(name: str) -> None:
    for pattern in (METADATA_NAME, TARGET_NAME):
        if pattern.fullmatch(name):
            assert os.sep not in name
            assert not name.startswith(".")


def raw(coordinator: Coordinator, port: int, target: str, **tls: ssl.TLSVersion) -> bytes:
    """Send a request target as it is: clients tidy up ``..``, attackers do not."""
    ca = coordinator.settings.keys / "ca.crt"
    context = ssl.create_default_context(cafile=str(ca))
    for name, value in tls.items():
        setattr(context, name, value)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    try:
        connection.putrequest("GET", target, skip_host=False)
        connection.endheaders()
        return connection.getresponse().read()
    finally:
        connection.close()


def test_raw_traversal_over_tls_finds_nothing(coordinator: Coordinator) -> None:
    with served(coordinator) as port:
        for target in (
            "/releases/targets/../../../keys/plan.pem",
            "/releases/metadata/../../../keys/plan.pem",
            "/releases/targets/..%5c..%5ckeys",
            "//releases/../keys/plan.pem",
        ):
            assert b"PRIVATE" not in raw(coordinator, port, target)
        assert b"ok" in raw(coordinator, port, "/health/live")


def test_tls_older_than_1_2_is_refused(coordinator: Coordinator) -> None:
    old = ssl.TLSVersion.TLSv1_1
    with served(coordinator) as port, pytest.raises((ssl.SSLError, OSError)):
        raw(coordinator, port, "/health/live", minimum_version=ssl.TLSVersion.TLSv1, maximum_version=old)  # fmt: skip  # noqa: E501


def test_the_list_of_releases_is_newest_first(client: TestClient, coordinator: Coordinator) -> None:
    coordinator.publish(2)
    listed = client.get("/releases").json()
    assert [r["version"] for r in listed] == [2, 1]
    assert listed[0]["macro_auroc"] == 0.8
    assert listed[0]["majority_baseline"] == 0.6


def receipt(campaign: str) -> Receipt:
    return Receipt(
        site="north",
        campaign=campaign,
        round=1,
        nonce="1" * 64,
        base_digest="0" * 64,
        update_digest="2" * 64,
        privacy_unit="patient",
        epsilon_campaign=1.5,
        epsilon_life=2.5,
        delta=1e-5,
        max_grad_norm=1.0,
        noise_multiplier=1.1,
        sampling_rate=0.1,
        steps=4,
        public_patients=500,
        seconds=3.0,
    )


def running_campaign(coordinator: Coordinator, registry: Registry) -> str:
    campaign = approve(coordinator, registry, 5, approved=False).campaign
    registry.start_campaign(campaign)
    registry.start_round(campaign, 1, purpose="train", base_digest="0" * 64)
    registry.record_contribution(
        Contribution(campaign, 1, "north", 1, "accepted", receipt=receipt(campaign), seconds=3.0)
    )
    registry.record_contribution(Contribution(campaign, 1, "south", 1, "late", code="deadline"))
    registry.end_round(campaign, 1, metrics=metrics())
    return campaign


def test_a_campaigns_progress_by_round_and_site(
    client: TestClient, coordinator: Coordinator, registry: Registry
) -> None:
    campaign = running_campaign(coordinator, registry)
    (listed,) = client.get("/campaigns").json()
    assert (listed["id"], listed["state"], listed["rounds"]) == (campaign, "running", 3)
    shown = client.get(f"/campaigns/{campaign}").json()
    assert shown["campaign"] == listed
    (first,) = shown["rounds"]
    assert first["metrics"]["macro_auroc"] == 0.8
    north, south = first["sites"]
    assert (north["outcome"], north["epsilon_campaign"], north["delta"]) == ("accepted", 1.5, 1e-5)
    assert (south["outcome"], south["code"], south["epsilon_life"]) == ("late", "deadline", None)
    assert shown["candidates"][0]["checks"][0]["name"] == "above-majority"


def test_an_unknown_campaign_is_404_with_a_code(client: TestClient) -> None:
    answer = client.get("/campaigns/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_metrics_name_sites_and_tasks_and_nothing_else(
    client: TestClient, coordinator: Coordinator, registry: Registry
) -> None:
    campaign = running_campaign(coordinator, registry)
    client.get("/campaigns/secret-path")
    text = client.get("/metrics").text
    assert 'wardround_release_version{task="mammography"} 1.0' in text
    assert 'wardround_contributions{outcome="accepted",site="north"} 1.0' in text
    assert 'wardround_ready{check="registry"} 1.0' in text
    assert 'route="/campaigns/{identifier}",status="404"' in text
    assert campaign not in text
    assert "secret-path" not in text
    assert coordinator.publisher.manifest(1).model_digest not in text


def test_it_is_ready_when_registry_timestamp_and_tasks_are_well(
    services: CoordinatorServices,
) -> None:
    done = threading.Event()
    task = SupervisedTask("work", done.set, every_seconds=0.01)
    app = create_app(replaced(services, tasks=(task,)))
    with TestClient(app) as client:
        assert done.wait(10)
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert not task.health.alive  # the lifespan's end stopped it


def replaced(services: CoordinatorServices, **changes: object) -> CoordinatorServices:
    return CoordinatorServices(**{**vars(services), **changes})


def failing(client: TestClient) -> dict[str, str]:
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    return {c["name"]: c["code"] for c in answer.json()["checks"] if not c["ok"]}


def test_an_expired_timestamp_is_not_ready(services: CoordinatorServices) -> None:
    late = datetime.now(UTC) + timedelta(days=30)
    with TestClient(create_app(replaced(services, clock=lambda: late))) as client:
        assert failing(client) == {"timestamp": "timestamp-expired"}
        assert client.get("/health/live").status_code == 200


def test_a_damaged_repository_is_not_ready_and_its_listing_is_an_error_without_paths(
    client: TestClient, coordinator: Coordinator
) -> None:
    (coordinator.metadata / "timestamp.json").write_bytes(b"{}")
    assert failing(client) == {"timestamp": "repository-damaged"}
    answer = client.get("/releases")
    assert answer.status_code == 500
    assert answer.json()["code"] == "repository-damaged"
    assert str(coordinator.settings.folder) not in answer.text
    assert client.get("/metrics").status_code == 200


class LostRegistry(Registry):
    """A database that is gone."""

    def sites(self) -> tuple[Site, ...]:
        raise StoreError("no database")

    def campaigns(self, *, state: object = None, kind: object = None) -> tuple[()]:
        raise StoreError("no database at /secret/place")


def test_a_lost_registry_is_not_ready_and_a_503(
    services: CoordinatorServices, registry: Registry
) -> None:
    lost = LostRegistry(registry._engine)
    headers = bearer(registry)
    app = create_app(replaced(services, registry=lost))
    with TestClient(app, base_url=BASE, headers=headers) as client:
        assert failing(client) == {"registry": "store"}
        answer = client.get("/campaigns")
        assert (answer.status_code, answer.json()["code"]) == (503, "store")
        assert "secret" not in answer.text
        text = client.get("/metrics").text
        assert 'wardround_ready{check="registry"} 0.0' in text


def test_a_failing_task_is_not_ready(services: CoordinatorServices) -> None:
    tried = threading.Semaphore(0)

    def broken() -> None:
        tried.release()
        raise StoreError("disk", code="disk")

    task = SupervisedTask("publish", broken, every_seconds=0.01)
    with TestClient(create_app(replaced(services, tasks=(task,)))) as client:
        assert tried.acquire(timeout=10)
        assert tried.acquire(timeout=10)
        assert failing(client) == {"task-publish": "disk"}


class ExplodingPublisher(ReleasePublisher):
    """A bug."""

    def releases(self) -> tuple[()]:
        raise RuntimeError("secret detail")


def test_a_bug_is_a_500_without_its_text(services: CoordinatorServices) -> None:
    exploding = ExplodingPublisher(services.settings)
    headers, app = bearer(services.registry), create_app(replaced(services, publisher=exploding))
    with TestClient(app, base_url=BASE, headers=headers) as client:
        answer = client.get("/releases")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
