"""The gateway as real nginx before a real SuperLink: what a site, or a thief, can reach."""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from flwr.supercore.routers.runtime.router import router as runtime
from flwr.superlink.routers.control.router import router as control
from flwr.superlink.routers.fleet.router import router as fleet

from common.errors import ConfigurationError
from deploy.certificates import Certificate, make_authority, make_site_certificate
from deploy.gateway import configuration
from deploy.pki import book, renewal
from deploy.provision import provision
from server.settings import CoordinatorSettings
from tests.deploy.gateways import Gateway, needs_nginx, running_gateway

ACTIVATE = "/v1/fleet/activate-node"


def paths(router: object) -> list[str]:
    return [route.path for route in router.routes]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway") / "with a space"
    with running_gateway(folder, "north", "south", "gone") as running:
        yield running


def node_header(gateway: Gateway, site: str) -> dict[str, str]:
    key = serialization.load_ssh_public_key((gateway.site(site).keys / "node.pub").read_bytes())
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"flwr-public-key": base64.b64encode(pem).decode()}


def client_context(gateway: Gateway, folder: Path, shown: Certificate) -> ssl.SSLContext:
    (folder / "c.crt").write_bytes(shown.certificate)
    (folder / "c.key").write_bytes(shown.key)
    context = ssl.create_default_context(cafile=str(gateway.coordinator.keys / "ca.crt"))
    context.load_cert_chain(folder / "c.crt", folder / "c.key")
    return context


def is_shut(gateway: Gateway, tls: ssl.SSLContext) -> bool:
    """Whether the gateway turns this certificate away, before or at the first request."""
    try:
        answer = gateway.ask("/health/live", tls=tls)
    except (ssl.SSLError, ConnectionError, http.client.HTTPException):
        return True
    return answer.status == 400 and answer.by_gateway


def test_every_fleet_route_is_decided_upon() -> None:
    """A Flower upgrade that adds a route must be looked at before a site may use it."""
    decided = {*configuration.FLEET_ROUTES, *configuration.REFUSED_FLEET_ROUTES}
    assert {path.removeprefix("/v1/fleet/") for path in paths(fleet)} == decided


def test_without_nginx_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ConfigurationError, match="nginx is not installed") as caught:
        configuration.nginx()
    assert caught.value.code == "nginx-missing"


def test_a_path_cannot_write_configuration(tmp_path: Path) -> None:
    folder = tmp_path / 'a"; include "x'
    provision(folder, sites=["north"], task="dermoscopy")
    with pytest.raises(ConfigurationError) as caught:
        configuration.render(CoordinatorSettings.read(folder / "coordinator"))
    assert caught.value.code == "gateway-path"


@needs_nginx
@pytest.mark.parametrize("router", [control, runtime], ids=["control", "runtime"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_control_and_runtime_do_not_exist(gateway: Gateway, router: object, method: str) -> None:
    assert paths(router)
    for path in paths(router):
        answer = gateway.ask(path, method=method, headers=node_header(gateway, "north"))
        assert answer.status == 404, path
        assert answer.by_gateway, path


@needs_nginx
@pytest.mark.parametrize("route", configuration.REFUSED_FLEET_ROUTES)
def test_a_site_neither_registers_nor_removes_nodes(gateway: Gateway, route: str) -> None:
    headers = node_header(gateway, "north")
    answer = gateway.ask(f"/v1/fleet/{route}", method="POST", body=b"", headers=headers)
    assert answer.status == 404
    assert answer.by_gateway


@needs_nginx
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/campaigns",
        "/campaigns/1",
        "/metrics",
        "/openapi.json",
        "/releases",
        "/sign-in",
        "/sign-out",
        "/page/sites",
        "/page/live",
        "/page/releases/1/roll-back",
        "/static/page.css",
        "/releases/metadata/../../sign-in",
        "/releases/targets/..%2f..%2fpage%2fsites",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleet/activate-node/",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/activate-node/../../control/list-runs",
        "/v1/fleet/activate-node%2f..%2f..%2fcontrol%2flist-runs",
        "//v1//control/list-runs",
        "/V1/CONTROL/list-runs",
        "/releases/targets/../../campaigns",
        "/releases/metadata/..%2f..%2fcampaigns",
        "/releases/metadata/%2e%2e/%2e%2e/metrics",
        "/releases/targets/..;/..;/campaigns",
        "/releases/targets/%252e%252e/%252e%252e/campaigns",
        "/health/live/../../campaigns",
    ],
)
def test_no_spelling_of_a_path_reaches_anything_else(gateway: Gateway, path: str) -> None:
    answer = gateway.ask(path)
    assert answer.status in (400, 404), answer
    assert b"campaigns" not in answer.body
    assert b"password" not in answer.body


@needs_nginx
def test_absolute_and_foreign_hosts_change_nothing(gateway: Gateway) -> None:
    port = gateway.coordinator.superlink_port
    for path in (f"https://127.0.0.1:{port}/v1/control/list-runs", "http://x/campaigns"):
        assert gateway.ask(path).status in (400, 404)
    assert gateway.ask(
        "/campaigns", headers={"Host": "localhost", "X-Original-URL": "/"}
    ).by_gateway


@needs_nginx
def test_a_site_reaches_what_it_needs(gateway: Gateway) -> None:
    assert gateway.ask("/health/live").status == 200
    assert gateway.ask("/health/ready").status == 200
    assert b"timestamp" in gateway.ask("/releases/metadata/timestamp.json").body
    assert gateway.ask("/releases/metadata/1.root.json").status == 200
    for route in configuration.FLEET_ROUTES:
        headers = node_header(gateway, "north")
        answer = gateway.ask(f"/v1/fleet/{route}", method="POST", body=b"", headers=headers)
        assert not answer.by_gateway, (route, answer)


@needs_nginx
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/releases/metadata/timestamp.json", "/releases/targets/x", "/health/live"]
)
def test_reading_is_all_that_the_repository_allows(
    gateway: Gateway, method: str, path: str
) -> None:
    answer = gateway.ask(path, method=method, body=b"x")
    assert answer.status in (403, 405)
    assert answer.by_gateway


@needs_nginx
def test_no_foreign_or_dead_certificate_is_let_in(gateway: Gateway, tmp_path: Path) -> None:
    keys = gateway.coordinator.keys
    authority = book.authority(gateway.coordinator)
    server = Certificate((keys / "server.crt").read_bytes(), (keys / "server.key").read_bytes())
    wrong = {
        "another CA": make_site_certificate(make_authority(), site="north"),
        "the server's own": server,
        "ended": make_site_certificate(authority, site="north", days=0),
        "a CA": authority,
    }
    assert is_shut(gateway, ssl.create_default_context(cafile=str(keys / "ca.crt"))), "none"
    for name, shown in wrong.items():
        assert is_shut(gateway, client_context(gateway, tmp_path, shown)), name
    fresh = make_site_certificate(authority, site="north")
    assert not is_shut(gateway, client_context(gateway, tmp_path, fresh)), "the check can fail"


@needs_nginx
def test_a_certificate_opens_no_other_sites_node(gateway: Gateway) -> None:
    own = gateway.ask(ACTIVATE, method="POST", body=b"", headers=node_header(gateway, "north"))
    assert not own.by_gateway
    for headers in (node_header(gateway, "south"), {}, {"flwr-public-key": "x"}):
        answer = gateway.ask(ACTIVATE, method="POST", body=b"", headers=headers)
        assert (answer.status, answer.by_gateway) == (401, True)


@needs_nginx
@pytest.mark.parametrize(("route", "kilobytes"), [("push-object", 9000), ("get-run", 65)])
def test_what_is_too_large_is_not_taken(gateway: Gateway, route: str, kilobytes: int) -> None:
    headers = {**node_header(gateway, "north"), "Content-Length": str(kilobytes * 1024)}
    answer = gateway.ask(f"/v1/fleet/{route}", method="POST", headers=headers)
    assert (answer.status, answer.by_gateway) == (413, True)


@needs_nginx
def test_old_tls_is_not_spoken(gateway: Gateway) -> None:
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in (
        gateway.coordinator.gateway / "nginx.conf"
    ).read_text("utf-8")
    context = gateway.tls("north")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        gateway.ask("/health/live", tls=context)


@needs_nginx
def test_logs_name_the_site_and_never_a_query(gateway: Gateway) -> None:
    for path in ("/health/live", "/campaigns", "/releases/metadata/x", ACTIVATE):
        answer = gateway.ask(f"{path}?patient=Mustermann")
        assert "nginx/" not in answer.headers.get("Server", "")
    gateway.ask(
        f"{ACTIVATE}?patient=Mustermann", method="POST", headers={"Content-Length": "9999999"}
    )
    logs = gateway.logs()
    assert '"site":"CN=north"' in logs
    assert "/campaigns" in logs
    assert "Mustermann" not in logs


@needs_nginx
def test_a_flood_is_slowed_down(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "REQUESTS_PER_SECOND", 1)
    monkeypatch.setattr(configuration, "BURST", 1)
    assert configuration.reload(gateway.coordinator)
    try:
        deadline = time.monotonic() + 20
        connection = gateway.connection(gateway.tls("south"))
        statuses: set[int] = set()
        while 503 not in statuses and time.monotonic() < deadline:
            statuses |= set(_burst(gateway))
        connection.close()
        assert 503 in statuses
    finally:
        monkeypatch.undo()
        configuration.reload(gateway.coordinator)


def _burst(gateway: Gateway) -> list[int]:
    """Ask four times at once."""
    connections = [gateway.connection(gateway.tls("south")) for _ in range(4)]
    for connection in connections:
        connection.request("GET", "/health/live")
    statuses = [connection.getresponse().status for connection in connections]
    for connection in connections:
        connection.close()
    return statuses


@needs_nginx
def test_a_revoked_site_is_out_at_once_and_its_open_connection_too(gateway: Gateway) -> None:
    tls, other = gateway.tls("gone"), gateway.tls("north")
    assert not is_shut(gateway, tls)
    held = gateway.connection(tls)
    held.request("GET", "/health/live")
    assert held.getresponse().read()
    done = renewal.revoke_site(gateway.folder, "gone")
    assert done.gateway_reloaded
    assert done.node_removed
    _wait_until(lambda: is_shut(gateway, tls))
    assert not is_shut(gateway, other), "the others stay"
    assert _is_ended(held)
    with pytest.raises(ConfigurationError) as caught:
        renewal.renew_site(gateway.folder, "gone")
    assert caught.value.code == "site-revoked"


def _is_ended(connection: http.client.HTTPSConnection) -> bool:
    deadline = time.monotonic() + 15
    connection.auto_open = 0
    while time.monotonic() < deadline:
        try:
            connection.request("GET", "/health/live")
            connection.getresponse().read()
        except (http.client.HTTPException, OSError):
            return True
        time.sleep(0.2)
    return False


def _wait_until(holds: object) -> None:
    deadline = time.monotonic() + 15
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@needs_nginx
def test_a_renewed_certificate_is_let_in(gateway: Gateway) -> None:
    before = (gateway.site("south").keys / "site.crt").read_bytes()
    old = gateway.tls("south")
    renewal.renew_site(gateway.folder, "south")
    assert (gateway.site("south").keys / "site.crt").read_bytes() != before
    assert not is_shut(gateway, gateway.tls("south"))
    assert not is_shut(gateway, old), "the old one holds until it ends"
