"""Keys and certificates of a federation: a CA, its certificates and CRL, node identities.

Curves are P-256 for TLS (RFC 8446, section 9.1) and P-384 for Flower's node identities, which
Flower reads in OpenSSH format.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
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
SITE_DAYS = 397
REVOCATION_DAYS = 397
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
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    alternatives = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    return _end_certificate(authority, hosts[0][:64], SERVER_DAYS, (usage, alternatives))


def make_site_certificate(
    authority: Certificate, *, site: str, days: int = SITE_DAYS
) -> Certificate:
    """Make a P-256 client certificate with the subject ``CN=<site>``, signed by the CA.

    Its extended key usage is clientAuth alone, so that no site can pose as the coordinator.
    """
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return _end_certificate(authority, site, days, (usage,))


def make_revocation_list(
    authority: Certificate, revoked: Mapping[int, datetime], *, days: int = REVOCATION_DAYS
) -> bytes:
    """Make a CRL (RFC 5280, section 5) in PEM, of serial numbers and when each was revoked.

    nginx refuses EVERY site once the list is past its ``nextUpdate``; `wardround pki status`
    warns before that.
    """
    issuer, key = _issuer(authority)
    begin = datetime.now(UTC) - BACKDATED
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(begin)
        .next_update(begin + timedelta(days=days))
        .add_extension(_authority_identifier(issuer), critical=False)
    )
    for serial, when in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


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


def _end_certificate(
    authority: Certificate, name: str, days: int, extensions: Sequence[x509.ExtensionType]
) -> Certificate:
    issuer, issuer_key = _issuer(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(subject, issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(_authority_identifier(issuer), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Certificate(_pem(builder.sign(issuer_key, hashes.SHA256())), _private_pem(key))


def _issuer(authority: Certificate) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError("The CA's key is no EC key.")
    return x509.load_pem_x509_certificate(authority.certificate), key


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def check_hosts(hosts: Sequence[str]) -> None:
    """Raise ConfigurationError for a host that no certificate can name."""
    for host in hosts:
        _general_name(host)


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
