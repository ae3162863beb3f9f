"""The coordinator's book of certificates, as files that are not secret.

::

    pki/issued/<site>/<serial>.crt   every client certificate that was ever issued to a site
    pki/nodes/<site>.pub             the node key that the site's certificate goes with
    pki/revoked.json                 sites that are shut out, and since when
    pki/crl.pem                      the revocation list that the gateway reads
    pki/plan-keys/<key id>.pem       public plan keys that sites should hold

The list is always written from the book, so that a crash between the two mends itself at the
next command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from filelock import FileLock, Timeout

from common.errors import ConfigurationError, StoreError
from common.folders import write_public
from deploy.certificates import Certificate, make_revocation_list, make_site_certificate
from server.settings import CoordinatorSettings

LOCK_SECONDS = 30.0


@contextmanager
def opened(settings: CoordinatorSettings) -> Iterator[None]:
    """Keep the book to one writer; make its folders.

    Raises
    ------
    ConfigurationError
        If another process holds it for longer than half a minute.
    """
    for folder in (settings.pki / "issued", settings.pki / "nodes", settings.pki / "plan-keys"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with FileLock(settings.pki / ".lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise ConfigurationError(
            f"Another process is changing {settings.pki}.", action="Try again when it is done."
        ) from error


def authority(settings: CoordinatorSettings) -> Certificate:
    """Read the federation's CA.

    Raises
    ------
    ConfigurationError
        If its key or certificate is not there (code ``key-missing``).
    """
    try:
        return Certificate(
            (settings.keys / "ca.crt").read_bytes(), (settings.keys / "ca.key").read_bytes()
        )
    except OSError as error:
        raise ConfigurationError(
            f"The federation's CA in {settings.keys} cannot be read.",
            meaning="Nothing can be issued or revoked without it.",
            action="Restore keys/ca.crt and keys/ca.key from backup.",
            code="key-missing",
        ) from error


def issue(
    settings: CoordinatorSettings, site: str, *, node_public_key: bytes | None
) -> Certificate:
    """Issue a client certificate, and write it down before anybody can have it.

    Parameters
    ----------
    settings : CoordinatorSettings
        The coordinator's; the book is open.
    site : str
        Becomes the certificate's common name.
    node_public_key : bytes or None
        The site's node key (OpenSSH), if this is its first certificate.
    """
    made = make_site_certificate(authority(settings), site=site)
    certificate = x509.load_pem_x509_certificate(made.certificate)
    folder = settings.pki / "issued" / site
    folder.mkdir(mode=0o700, exist_ok=True)
    write_public(folder / f"{certificate.serial_number:x}.crt", made.certificate)
    if node_public_key is not None:
        keep_node(settings, site, node_public_key)
    return made


def keep_node(settings: CoordinatorSettings, site: str, public_key: bytes) -> None:
    """Write down a site's node key (OpenSSH), unless it has one: that one is never changed."""
    path = settings.pki / "nodes" / f"{site}.pub"
    if not path.is_file():
        write_public(path, public_key)


def refuse_revoked(settings: CoordinatorSettings, site: str) -> None:
    """Refuse a site that is shut out.

    Raises
    ------
    ConfigurationError
        With code ``site-revoked``.
    """
    if site in revoked(settings):
        raise ConfigurationError(
            f"{site} was revoked.",
            meaning="Its node key is shut out for good, so a new certificate would not help.",
            action="Provision the hospital again under a new name.",
            code="site-revoked",
        )


def issued(settings: CoordinatorSettings) -> dict[str, tuple[x509.Certificate, ...]]:
    """Return every site's certificates, the oldest first.

    Raises
    ------
    StoreError
        If one cannot be read: what is not seen would be missing from the revocation list.
    """
    folder = settings.pki / "issued"
    try:
        sites = sorted(path for path in folder.iterdir() if path.is_dir())
        return {site.name: _certificates(site) for site in sites}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{getattr(error, 'filename', None) or folder} cannot be read ({error}).",
            meaning="It is not known which certificates the sites have.",
            action="Give the whole folder to the account that runs the coordinator (chown -R), or "
            "restore its pki folder from backup.",
        ) from error


def _certificates(folder: Path) -> tuple[x509.Certificate, ...]:
    # Not glob: that passes over a folder which it may not read, and says nothing.
    files = (path for path in folder.iterdir() if path.suffix == ".crt")
    found = [x509.load_pem_x509_certificate(path.read_bytes()) for path in files]
    return tuple(sorted(found, key=lambda certificate: certificate.not_valid_before_utc))


def nodes(settings: CoordinatorSettings) -> dict[str, bytes]:
    """Return the node keys (OpenSSH) of the sites that are not revoked."""
    shut_out = revoked(settings)
    keys = {path.stem: path for path in (settings.pki / "nodes").glob("*.pub")}
    return {site: path.read_bytes() for site, path in keys.items() if site not in shut_out}


def revoked(settings: CoordinatorSettings) -> dict[str, datetime]:
    """Return the sites that are shut out, and since when (UTC).

    Raises
    ------
    StoreError
        If the book cannot be read: nobody is let in on a guess.
    """
    path = settings.pki / "revoked.json"
    try:
        document = json.loads(path.read_text("utf-8"))
        return {site: datetime.fromisoformat(when) for site, when in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read.",
            meaning="It is not known which sites are shut out.",
            action="Restore the coordinator's pki folder from backup.",
        ) from error


def shut_out(settings: CoordinatorSettings, site: str) -> None:
    """Write down that a site is revoked; a second time changes nothing."""
    known = revoked(settings)
    known.setdefault(site, datetime.now(UTC).replace(microsecond=0))
    document = {name: when.isoformat() for name, when in sorted(known.items())}
    write_public(settings.pki / "revoked.json", json.dumps(document, indent=1).encode())
    write_revocation_list(settings)


def write_revocation_list(settings: CoordinatorSettings) -> None:
    """Write ``crl.pem`` from the book: every certificate of every site that is shut out."""
    since = revoked(settings)
    serials = {
        certificate.serial_number: since[site]
        for site, certificates in issued(settings).items()
        if site in since
        for certificate in certificates
    }
    data = make_revocation_list(authority(settings), serials)
    write_public(revocation_list(settings), data)


def revocation_list(settings: CoordinatorSettings) -> Path:
    """Return the path of the revocation list."""
    return settings.pki / "crl.pem"
