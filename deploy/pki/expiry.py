"""What runs out when: every certificate and list of a federation, or of one site's folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from pydantic import BaseModel, ConfigDict

from common.errors import ConfigurationError
from deploy.pki import book
from server.settings import CoordinatorSettings

WARN_DAYS = 30

Standing = Literal["valid", "expiring", "expired", "revoked"]


class CertificateState(BaseModel):
    """One certificate or list; ``days_left`` is rounded down and negative after the end."""

    model_config = ConfigDict(frozen=True)

    what: str
    subject: str
    path: Path
    expires_at: datetime
    days_left: int
    state: Standing


class PkiStatus(BaseModel):
    """All of them; ``attention`` is True where one is about to end or has ended."""

    model_config = ConfigDict(frozen=True)

    certificates: tuple[CertificateState, ...]
    attention: bool


def status(folder: Path, *, now: datetime | None = None) -> PkiStatus:
    """Look at a federation's folder, a coordinator's or a site's.

    Raises
    ------
    ConfigurationError
        If the folder is none of these, or a certificate cannot be read.
    """
    now = now or datetime.now(UTC)
    if (folder / "site.toml").is_file():
        found = _site(folder, now)
    else:
        found = _coordinator(CoordinatorSettings.find(folder), now)
    attention = any(one.state in ("expiring", "expired") for one in found)
    return PkiStatus(certificates=tuple(found), attention=attention)


def _site(folder: Path, now: datetime) -> list[CertificateState]:
    found = [_certificate("CA", folder / "trust" / "ca.crt", now)]
    if (folder / "keys" / "site.crt").is_file():
        found.append(_certificate("site", folder / "keys" / "site.crt", now))
    return found


def _coordinator(settings: CoordinatorSettings, now: datetime) -> list[CertificateState]:
    found = [
        _certificate("CA", settings.keys / "ca.crt", now),
        _certificate("server", settings.keys / "server.crt", now),
    ]
    shut_out = book.revoked(settings)
    for site, certificates in book.issued(settings).items():
        if not certificates:  # a crash came before its first was written
            continue
        newest = certificates[-1]
        path = settings.pki / "issued" / site / f"{newest.serial_number:x}.crt"
        state = _certificate("site", path, now)
        revoked = {"state": "revoked"} if site in shut_out else {}
        found.append(state.model_copy(update=revoked))
    path = book.revocation_list(settings)
    if path.is_file():
        found.append(_revocation_list(path, now))
    return found


def _certificate(what: str, path: Path, now: datetime) -> CertificateState:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The certificate {path} cannot be read.", action="Restore it from backup."
        ) from error
    subject = certificate.subject.rfc4514_string()
    return _state(what, subject, path, certificate.not_valid_after_utc, now)


def _revocation_list(path: Path, now: datetime) -> CertificateState:
    revocations = x509.load_pem_x509_crl(path.read_bytes())
    until = revocations.next_update_utc or revocations.last_update_utc
    return _state("revocation list", revocations.issuer.rfc4514_string(), path, until, now)


def _state(what: str, subject: str, path: Path, until: datetime, now: datetime) -> CertificateState:
    days = (until - now).days
    state: Standing = "expired" if until <= now else "expiring" if days < WARN_DAYS else "valid"
    return CertificateState(
        what=what, subject=subject, path=path, expires_at=until, days_left=days, state=state
    )
