"""Renewing, revoking and rotating: each step safe to repeat after a crash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from pydantic import BaseModel, ConfigDict

from common.errors import NotFound, ProcessError, StoreError
from common.folders import write_private, write_public
from deploy import flower_run
from deploy.certificates import Certificate, make_server_certificate
from deploy.gateway import configuration
from deploy.pki import book
from server.registry.registry import Registry
from server.settings import CoordinatorSettings


class Renewed(BaseModel):
    """A certificate was renewed; ``folder`` holds the files, laid out as in the start-up kit."""

    model_config = ConfigDict(frozen=True)

    subject: str
    folder: Path
    gateway_reloaded: bool


class Revoked(BaseModel):
    """A site was shut out. ``node_removed`` is False where the SuperLink could not be asked."""

    model_config = ConfigDict(frozen=True)

    site: str
    certificates: int
    gateway_reloaded: bool
    node_removed: bool


def renew_site(folder: Path, site: str) -> Renewed:
    """Issue a new certificate to a site; the old one stays valid until it ends by itself.

    It goes into the site's kit, if that is still in the federation's folder, and otherwise into
    ``renewals/<site>``, from where it is to be copied over the site's own folder.

    Raises
    ------
    NotFound
        If the federation has no such site.
    ConfigurationError
        If the site was revoked (code ``site-revoked``).
    """
    settings = CoordinatorSettings.find(folder)
    kit = folder / "sites" / site
    with book.opened(settings):
        book.refuse_revoked(settings, site)
        node = _node_key(settings, kit, site)
        made = book.issue(settings, site, node_public_key=node)
        book.write_revocation_list(settings)
    target = kit if (kit / "site.toml").is_file() else folder / "renewals" / site
    (target / "keys").mkdir(mode=0o700, parents=True, exist_ok=True)
    # Between the two, key and certificate do not match: a site reads them when it connects.
    write_private(target / "keys" / "site.key", made.key)
    write_public(target / "keys" / "site.crt", made.certificate)
    return Renewed(subject=site, folder=target, gateway_reloaded=configuration.reload(settings))


def revoke_site(folder: Path, site: str) -> Revoked:
    """Shut a site out: its certificates, then its node at the SuperLink; repeatable.

    The gateway refuses it from its next connection on, and ends those that are open.

    Raises
    ------
    NotFound
        If the federation has no such site.
    StoreError
        If a certificate of the book cannot be read, or a site that is not revoked yet has none
        in it (code ``certificates-missing``): those that it holds would go on being let in.
    """
    settings = CoordinatorSettings.find(folder)
    with book.opened(settings):
        certificates = book.issued(settings).get(site, ())
        if not certificates and site not in book.revoked(settings):
            if (settings.pki / "nodes" / f"{site}.pub").is_file():
                raise _without_certificates(settings, site)
            raise _unknown(settings, site)
        book.shut_out(settings, site)
    reloaded = configuration.reload(settings)
    return Revoked(
        site=site,
        certificates=len(certificates),
        gateway_reloaded=reloaded,
        node_removed=_remove_node(settings, site),
    )


def renew_server(folder: Path, hosts: Sequence[str] = ()) -> Renewed:
    """Issue a new server certificate for the hosts of the old one and ``hosts``.

    Those that are given come first: new kits are sent to the first.
    The gateway takes it up at once; SuperLink and coordinator's service at their next start.
    """
    settings = CoordinatorSettings.find(folder)
    with book.opened(settings):
        old = x509.load_pem_x509_certificate((settings.keys / "server.crt").read_bytes())
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = [str(name.value) for name in names]
        made = make_server_certificate(
            book.authority(settings), hosts=list(dict.fromkeys([*hosts, *known]))
        )
        _write_pair(settings.keys, made)
        book.write_revocation_list(settings)
    return Renewed(
        subject="server", folder=settings.keys, gateway_reloaded=configuration.reload(settings)
    )


def _write_pair(keys: Path, made: Certificate) -> None:
    write_private(keys / "server.key", made.key)
    write_public(keys / "server.crt", made.certificate)


def _node_key(settings: CoordinatorSettings, kit: Path, site: str) -> bytes | None:
    if (settings.pki / "nodes" / f"{site}.pub").is_file():
        return None
    try:
        return (kit / "keys" / "node.pub").read_bytes()  # a kit from before certificates
    except OSError as error:
        raise _unknown(settings, site) from error


def _remove_node(settings: CoordinatorSettings, site: str) -> bool:
    registry = Registry.open(settings)
    try:
        ids = [known.node_id for known in registry.sites() if known.name == site]
    finally:
        registry.close()
    try:
        registered = {node.node_id for node in flower_run.registered_nodes(settings)}
        for node_id in ids:
            if node_id in registered:
                flower_run.unregister_node(settings, node_id)
    except ProcessError:
        return False
    return True


def _without_certificates(settings: CoordinatorSettings, site: str) -> StoreError:
    return StoreError(
        f"The book has no certificate of {site} in {settings.pki / 'issued' / site}.",
        meaning="Nothing was revoked: the gateway would go on letting in those that it has.",
        action=f"Restore the coordinator's pki folder from backup. If {site} never had one, "
        "`wardround pki renew` makes it; then revoke it.",
        code="certificates-missing",
    )


def _unknown(settings: CoordinatorSettings, site: str) -> NotFound:
    known = ", ".join(sorted(book.issued(settings))) or "none"
    return NotFound(f"There is no site {site!r} in this federation.", action=f"Known: {known}.")
