"""When the site's certificates run out, so that hospital IT hears of it before a round fails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509

from client.releases.watcher import Alarm
from client.settings import SiteSettings

WARN_DAYS = 30

Purpose = Literal["federation", "site", "service"]


@dataclass(frozen=True)
class CertificateEnd:
    """Of what use a certificate is to the site, and when it ends.

    Attributes
    ----------
    purpose : str
        ``federation``: the CA that the site trusts; ``site``: what it shows the gateway;
        ``service``: what its own page is served with.
    path : Path
        Where it lies.
    starts, ends : datetime or None
        Of its validity; None if it cannot be read.
    """

    purpose: Purpose
    path: Path
    starts: datetime | None
    ends: datetime | None


def certificate_ends(settings: SiteSettings) -> tuple[CertificateEnd, ...]:
    """Look at each certificate that the site has; read anew each time, as they are renewed."""
    places: tuple[tuple[Purpose, Path | None], ...] = (
        ("federation", settings.trust / "ca.crt"),
        ("site", settings.keys / "site.crt"),
        ("service", settings.tls_certificate),
    )
    present = ((purpose, path) for purpose, path in places if path is not None and path.exists())
    return tuple(_end(purpose, path) for purpose, path in present)


def certificate_alarms(settings: SiteSettings, *, now: datetime | None = None) -> tuple[Alarm, ...]:
    """Return an alarm for each certificate that has ended, ends soon or cannot be read."""
    moment = now or datetime.now(UTC)
    found = (_alarm(end, moment) for end in certificate_ends(settings))
    return tuple(alarm for alarm in found if alarm is not None)


def _end(purpose: Purpose, path: Path) -> CertificateEnd:
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return CertificateEnd(purpose, path, None, None)
    starts = max(one.not_valid_before_utc for one in chain)
    return CertificateEnd(purpose, path, starts, min(one.not_valid_after_utc for one in chain))


_WHAT: dict[Purpose, str] = {
    "federation": "The federation's CA certificate",
    "site": "The site's certificate for the gateway",
    "service": "The certificate of this service",
}


def _alarm(end: CertificateEnd, now: datetime) -> Alarm | None:
    what = _WHAT[end.purpose]
    renew = "Ask the coordinator for a new one." if end.purpose != "service" else "Renew it."
    if end.starts is None or end.ends is None:
        return Alarm("certificate-unreadable", f"{what} cannot be read.", now)
    if now < end.starts:
        text = f"{what} is valid from {end.starts:%Y-%m-%d %H:%M} UTC only. Check the clock."
        return Alarm("certificate-not-yet-valid", text, now)
    if now >= end.ends:
        text = f"{what} ended on {end.ends:%Y-%m-%d}. {renew}"
        return Alarm("certificate-expired", text, end.ends)
    begun = end.ends - timedelta(days=WARN_DAYS)
    if now < begun:
        return None
    text = f"{what} ends on {end.ends:%Y-%m-%d}. {renew}"
    return Alarm("certificate-expiring", text, begun)
