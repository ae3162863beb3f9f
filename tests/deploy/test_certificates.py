import ipaddress
import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import ConfigurationError
from deploy.certificates import (
    Certificate,
    make_authority,
    make_node_key,
    make_server_certificate,
)


def handshake(folder: Path, authority: Certificate, server: Certificate, host: str) -> str:
    """Do a TLS handshake over a socket pair; return the protocol's version."""
    (folder / "server.crt").write_bytes(server.certificate)
    (folder / "server.key").write_bytes(server.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "server.crt", folder / "server.key")
    asking = ssl.create_default_context(cadata=authority.certificate.decode())
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            serving.wrap_socket(theirs, server_side=True).recv(1)
        except (ssl.SSLError, ConnectionError):
            theirs.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with asking.wrap_socket(ours, server_hostname=host) as secured:
            secured.send(b".")
            return secured.version() or ""
    finally:
        ours.close()
        thread.join(timeout=5)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "coordinator.example.org"])
def test_a_client_that_trusts_the_ca_accepts_the_server(tmp_path: Path, host: str) -> None:
    authority = make_authority()
    hosts = ["coordinator.example.org", "localhost", "127.0.0.1", "::1"]
    server = make_server_certificate(authority, hosts=hosts)
    assert handshake(tmp_path, authority, server, host) == "TLSv1.3"


def test_another_host_and_another_ca_are_refused(tmp_path: Path) -> None:
    authority = make_authority()
    server = make_server_certificate(authority, hosts=["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, authority, server, "elsewhere.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, make_authority(), server, "localhost")


def test_curves_names_and_life() -> None:
    authority = make_authority()
    server = make_server_certificate(authority, hosts=["h.example", "10.0.0.7"])
    certificate = x509.load_pem_x509_certificate(server.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["h.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.7")]
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert certificate.not_valid_before_utc < datetime.now(UTC) < server.expires_at
    assert server.expires_at < authority.expires_at


@pytest.mark.parametrize("host", ["", "a b", "héllo", "https://x", "x" * 254])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError):
        make_server_certificate(make_authority(), hosts=[host])


def test_node_keys_are_p384_in_openssh_format() -> None:
    pair = make_node_key("north")
    private = serialization.load_ssh_private_key(pair.private, password=None)
    public = serialization.load_ssh_public_key(pair.public)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert private.curve.name == "secp384r1"
    assert private.public_key() == public
    assert pair.public.endswith(b" north\n")
