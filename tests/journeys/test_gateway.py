"""Real hospitals behind the real gateway, one of them behind its own proxy, too."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import tomli_w

from client.releases.cache import ReleaseCache
from common.folders import write_public
from deploy.local import LocalFederation
from deploy.pki import renewal
from server.publishing.publisher import ReleasePublisher
from server.publishing.weights import read_weights
from server.registry.registry import Registry
from tests.client.rounds import fill
from tests.connect_proxy import ConnectProxy, connect_proxy
from tests.deploy.gateways import needs_nginx
from tests.journeys.test_local_federation import POLICY, toy_recipe

pytestmark = [pytest.mark.journey, needs_nginx]

SITES = ("north", "south")


@pytest.fixture(scope="module")
def proxy() -> Iterator[ConnectProxy]:
    with connect_proxy() as running:
        yield running


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory, proxy: ConnectProxy
) -> Iterator[LocalFederation]:
    folder = tmp_path_factory.mktemp("gateway") / "here"
    federation = LocalFederation(
        folder, sites=SITES, task="toy", recipe=toy_recipe(), policy=POLICY, gateway=True
    )
    path = federation.site("south").folder / "site.toml"
    write_public(path, tomli_w.dumps({"proxy": proxy.url}).encode() + path.read_bytes())
    with federation:
        federation.start()
        for name in SITES:
            fill(federation.site(name), 24, "train")
            fill(federation.site(name), 12, "holdout")
        federation.wait_ready()
        yield federation


def test_a_campaign_and_a_release_pass_the_gateway_and_a_proxy(
    federation: LocalFederation, proxy: ConnectProxy, record_property: Callable[[str, object], None]
) -> None:
    gateway = federation.coordinator.gateway_port
    for name in SITES:
        assert federation.site(name).superlink == f"127.0.0.1:{gateway}"
    begin = time.monotonic()
    identifier = federation.start_campaign(toy_recipe(), rounds=1, epsilon=4.0)
    assert federation.wait_campaign(identifier, timeout=120.0).state == "finished"
    record_property("seconds_for_a_round", round(time.monotonic() - begin, 1))
    registry = Registry.open(federation.coordinator)
    accepted = {c.site for c in registry.contributions(identifier) if c.outcome == "accepted"}
    (candidate, *_) = registry.candidates(campaign=identifier)
    registry.close()
    assert accepted == set(SITES)

    settings = federation.coordinator
    version = ReleasePublisher(settings).publish(
        candidate.draft, read_weights(settings.models, candidate)
    )
    deadline = time.monotonic() + 60
    caches = [ReleaseCache(federation.site(name)) for name in SITES]
    while not all(_version(cache) == version for cache in caches):
        assert time.monotonic() < deadline, "the release did not arrive"
        time.sleep(0.2)

    assert set(proxy.requests) == {("CONNECT", f"127.0.0.1:{gateway}")}
    assert len(proxy.requests) >= 2, "the node and the release watcher, each its own"
    assert not any(data.startswith((b"POST", b"GET")) for data in proxy.seen), "TLS alone"


def test_a_revoked_site_is_gone_and_the_others_stay(federation: LocalFederation) -> None:
    """The module's last test: south is shut out for good."""
    done = renewal.revoke_site(federation.folder, "south")
    assert done.gateway_reloaded
    assert done.node_removed
    time.sleep(15.0)  # the gateway gives open connections ten seconds
    log = federation.coordinator.folder / "logs" / "gateway-access.log"
    before = len(log.read_bytes())
    time.sleep(6.0)
    lines = [json.loads(line) for line in log.read_bytes()[before:].splitlines()]
    assert any(line["site"] == "CN=north" and line["status"] == 200 for line in lines)
    assert not [line for line in lines if line["site"] == "CN=south" and line["status"] != 400]
    assert federation.states()["north-node"] == "running"
    assert federation.states()["gateway"] == "running"


def _version(cache: ReleaseCache) -> int:
    current = cache.current()
    return 0 if current is None else current.version
