"""When each site's certificate ends, read from the coordinator's own book (of `deploy.pki`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from server.revocations import revoked_sites

WARN_DAYS = 30


@dataclass(frozen=True)
class CertificateEnd:
    """A site's newest certificate; ``standing`` is valid, expiring, expired or revoked."""

    until: datetime
    days_left: int
    standing: str


def certificate_ends(pki: Path, now: datetime) -> Mapping[str, CertificateEnd]:
    """Return every site's newest certificate; what cannot be read is left out."""
    revoked = revoked_sites(pki)
    found = {}
    for folder in sorted((pki / "issued").glob("*")):
        ends = [end for path in folder.glob("*.crt") if (end := _end(path)) is not None]
        if ends:
            found[folder.name] = _standing(max(ends), now, revoked=folder.name in revoked)
    return found


def _standing(until: datetime, now: datetime, *, revoked: bool) -> CertificateEnd:
    days = (until - now).days
    standing = "expired" if until <= now else "expiring" if days < WARN_DAYS else "valid"
    return CertificateEnd(until, days, "revoked" if revoked else standing)


def _end(path: Path) -> datetime | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None
