"""Keys and certificates of a federation: a CA, the coordinator's certificate, node identities.

Curves are P-256 for TLS (RFC 8446, section 9.1) and P-384 for Flower's node identities, which
Flower reads in OpenSSH format.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client.site_folder import NodeKey
from common.errors import ConfigurationError

CA_DAYS = 3650
SERVER_DAYS = 825
BACKDATED = timedelta(minutes=5)
"""Certificates begin a little in the past, for clocks that run slow."""


@dataclass(frozen=True)
class Certificate:
    """A PEM certificate with its PEM private key (PKCS#8, unencrypted: keep it at mode 0600)."""

    certificate: bytes
    key: bytes

    @property
    def expires_at(self) -> datetime:
        """End of validity, UTC."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


def make_authority(*, federation: str = "Wardround") -> Certificate:
    """Make a self-signed P-256 CA that may sign end certificates only (path length 0)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} CA")])
    builder = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Certificate(_pem(builder.sign(key, hashes.SHA256())), _private_pem(key))


def make_server_certificate(authority: Certificate, *, hosts: Sequence[str]) -> Certificate:
    """Make a P-256 server certificate whose subjectAltName lists ``hosts``, signed by the CA.

    Parameters
    ----------
    authority : Certificate
        As `make_authority` made it.
    hosts : sequence of str
        DNS names and IP addresses under which sites reach the coordinator; at least one.

    Raises
    ------
    ConfigurationError
        If a host is neither a DNS name nor an IP address.
    """
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError("The CA's key is no EC key.")
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(name, issuer.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(alternatives, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    return Certificate(_pem(builder.sign(issuer_key, hashes.SHA256())), _private_pem(key))


def make_node_key(site: str) -> NodeKey:
    """Make a SuperNode's identity: EC P-384, OpenSSH format (Flower refuses Ed25519 here)."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return NodeKey(private=private, public=public + f" {site}\n".encode())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    label = host.replace("-", "").replace(".", "")
    if not (host.isascii() and label.isalnum() and len(host) <= 253):
        raise ConfigurationError(
            f"{host!r} is neither a DNS name nor an IP address.",
            action="Give --host as sites will reach the coordinator.",
        )
    return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    begin = datetime.now(UTC) - BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
