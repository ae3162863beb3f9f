"""Certificates that are about to end are seen where hospital IT looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from client.certificates import certificate_alarms, certificate_ends
from client.settings import SiteSettings
from tests.client.serving import FakeReleases, ServedSite, served_site, site_settings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def write_certificate(path: Path, *, starts: datetime, ends: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "st-elsewhere")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    with path.open("ab") as file:
        file.write(certificate.public_bytes(Encoding.PEM))


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    return site_settings(tmp_path)


@pytest.mark.parametrize(
    ("starts", "ends", "code"),
    [
        (-300, 31, None),
        (-300, 29, "certificate-expiring"),
        (-300, -1, "certificate-expired"),
        (2, 300, "certificate-not-yet-valid"),
    ],
)
def test_alarms(settings: SiteSettings, starts: int, ends: int, code: str | None) -> None:
    path = settings.keys / "site.crt"
    write_certificate(path, starts=NOW + timedelta(days=starts), ends=NOW + timedelta(days=ends))
    found = certificate_alarms(settings, now=NOW)
    assert [alarm.code for alarm in found] == ([] if code is None else [code])


def test_the_earliest_end_of_a_chain_counts(settings: SiteSettings) -> None:
    for days in (300, 10, 200):
        write_certificate(settings.trust / "ca.crt", starts=NOW, ends=NOW + timedelta(days=days))
    (end,) = certificate_ends(settings)
    assert (end.purpose, end.ends) == ("federation", NOW + timedelta(days=10))


def test_what_cannot_be_read_is_an_alarm_too(settings: SiteSettings) -> None:
    (settings.keys / "site.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nxx\n")
    assert [a.code for a in certificate_alarms(settings, now=NOW)] == ["certificate-unreadable"]


def test_a_site_without_certificates_has_no_alarm(settings: SiteSettings) -> None:
    assert certificate_alarms(settings, now=NOW) == ()


def test_health_metrics_and_page_tell(settings: SiteSettings) -> None:
    with served_site(settings, FakeReleases()) as site:
        _tells(site)


def _tells(site: ServedSite) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    path = site.services.settings.keys / "site.crt"
    write_certificate(path, starts=soon - timedelta(days=90), ends=soon)
    (alarm,) = site.call("GET", "/health/ready").json()["alarms"]
    assert alarm["code"] == "certificate-expiring"
    metrics = site.call("GET", "/metrics").text
    assert 'wardround_site_release_alarm{code="certificate-expiring"} 1.0' in metrics
    wanted = 'wardround_site_certificate_end_timestamp_seconds{purpose="site"} '
    (line,) = [line for line in metrics.splitlines() if line.startswith(wanted)]
    assert float(line.removeprefix(wanted)) == soon.timestamp()
    assert "The site&#39;s certificate for the gateway ends on" in site.call("GET", "/").text
