"""Making a federation's folders: one for the coordinator, one start-up kit a site.

::

    FOLDER/coordinator/      keys, CA, TUF keys, registry (server.settings)
    FOLDER/sites/<name>/     the start-up kit: move it to the hospital (client.settings)

Running it again adds sites and changes nothing that is there: keys are never overwritten. Each
folder appears whole or not at all.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Protocol

from cryptography import x509
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from client.connection import is_loopback
from client.policy import SitePolicy
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.errors import ConfigurationError
from common.plan import Identifier
from common.recipe import Recipe
from deploy.certificates import (
    check_hosts,
    make_authority,
    make_node_key,
    make_server_certificate,
)
from deploy.federation_folder import refuse_strange_folder
from deploy.gateway.configuration import render
from deploy.pki import book, plan_keys
from server.coordinator_folder import create_coordinator_folder
from server.settings import CoordinatorSettings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
LOCK_SECONDS = 30.0

_identifier: TypeAdapter[str] = TypeAdapter(Identifier)


class SiteChoices(Protocol):
    """Gives the settings of a site that is about to be made, by its name."""

    def __call__(self, name: str) -> Mapping[str, object]:
        """Return fields of `SiteSettings`."""


class ProvisionedSite(BaseModel):
    """A site's kit; ``created`` is False where it was there before.

    ``handed_over`` is true where the site is known and its kit is not here any more: its folder
    does not exist, and nothing was made anew.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    folder: Path
    created: bool
    handed_over: bool = False


class Provisioned(BaseModel):
    """What stands after provisioning. Times are UTC."""

    model_config = ConfigDict(frozen=True)

    coordinator: Path
    coordinator_created: bool
    hosts: tuple[str, ...]
    authority_expires_at: datetime
    certificate_expires_at: datetime
    sites: tuple[ProvisionedSite, ...]


def provision(
    folder: Path,
    *,
    sites: Sequence[str],
    task: str,
    hosts: Sequence[str] = (),
    recipe: Recipe | None = None,
    policy: SitePolicy | None = None,
    coordinator_settings: Mapping[str, object] | None = None,
    site_settings: SiteChoices | None = None,
    gateway: bool | None = None,
) -> Provisioned:
    """Make what is missing of a federation's folders.

    Parameters
    ----------
    folder : Path
        Parent of ``coordinator`` and ``sites``.
    sites : sequence of str
        Names of sites to have; those that exist are left as they are.
    task : str
        Recipe that new sites train.
    recipe : Recipe, optional
        What new sites are to understand by ``task``, where it is not the installed recipe.
    hosts : sequence of str
        Names and addresses under which sites reach the coordinator; loopback is always added.
    policy : SitePolicy, optional
        For new sites; by default a commented file that allows ``task`` alone.
    coordinator_settings : mapping, optional
        Fields of `CoordinatorSettings`, if the coordinator is new.
    site_settings : callable, optional
        Further fields of `SiteSettings` for each new site.
    gateway : bool, optional
        Whether new sites are sent to the gateway; by default where the coordinator has a host
        beyond loopback, as nothing else of it can be reached from there.

    Raises
    ------
    ConfigurationError
        If a name or host is malformed, an existing coordinator has no certificate for a host, or
        a site was revoked (code ``site-revoked``), or ``folder`` is itself a coordinator's or a
        site's (code ``not-a-federation``), or holds other things (``folder-not-new``).
    """
    names = _checked_names(sites)
    folder = folder.resolve()
    check_hosts(hosts)
    _refuse_a_part(folder)
    refuse_strange_folder(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".provision.lock", timeout=LOCK_SECONDS):
            coordinator, made = _coordinator(folder / "coordinator", hosts, coordinator_settings)
            _complete_book(coordinator)
            kits = tuple(
                _kit(
                    folder / "sites" / name,
                    coordinator,
                    task=task,
                    recipe=recipe,
                    policy=policy,
                    further=site_settings(name) if site_settings is not None else {},
                    gateway=gateway,
                )
                for name in names
            )
            if _behind_gateway(coordinator, gateway):
                render(coordinator)
    except Timeout as error:
        raise ConfigurationError(
            f"Another process is provisioning {folder}.",
            action="Wait until it has ended, then run this again.",
        ) from error
    certificate = _certificate(coordinator, "server.crt")
    return Provisioned(
        coordinator=coordinator.folder,
        coordinator_created=made,
        hosts=_certified_hosts(certificate),
        authority_expires_at=_certificate(coordinator, "ca.crt").not_valid_after_utc,
        certificate_expires_at=certificate.not_valid_after_utc,
        sites=kits,
    )


def _refuse_a_part(folder: Path) -> None:
    """Refuse a coordinator's or a site's own folder: another CA would be made inside it."""
    whose = {"coordinator.toml": "the coordinator's", "site.toml": "a site's"}
    for file, of in whose.items():
        if not (folder / file).is_file():
            continue
        above = (folder.parent, folder.parent.parent)
        federation = next(
            (f for f in above if (f / "coordinator/coordinator.toml").is_file()), None
        )
        raise ConfigurationError(
            f"{folder} is {of} own folder, not the federation's.",
            action=f"Name {federation}."
            if federation is not None
            else "Name the folder that holds the federation's coordinator and sites folders.",
            code="not-a-federation",
        )


def _checked_names(sites: Sequence[str]) -> tuple[str, ...]:
    for name in sites:
        try:
            _identifier.validate_python(name)
        except ValidationError as error:
            raise ConfigurationError(
                f"{name!r} is no site name.",
                action="Use small letters, digits, dots and dashes, such as north-hospital.",
            ) from error
    if len(set(sites)) != len(sites):
        raise ConfigurationError("A site is named twice.", action="Give each site once.")
    return tuple(sites)


def _coordinator(
    folder: Path, hosts: Sequence[str], settings: Mapping[str, object] | None
) -> tuple[CoordinatorSettings, bool]:
    if (folder / "coordinator.toml").is_file():
        existing = CoordinatorSettings.read(folder)
        known = _certified_hosts(_certificate(existing, "server.crt"))
        missing = sorted(set(hosts) - set(known))
        if missing:
            raise ConfigurationError(
                f"The coordinator's certificate does not name {', '.join(missing)}.",
                action=(
                    f"Run `wardround pki renew-server --folder {folder.parent} --host NAME` first, "
                    "or leave --host out."
                ),
            )
        return existing, False
    far = [host for host in hosts if not is_loopback(host)]
    listens = {"gateway_host": "0.0.0.0"} if far else {}  # noqa: S104 - sites are elsewhere
    authority = make_authority()
    server = make_server_certificate(authority, hosts=list(dict.fromkeys([*hosts, *LOOPBACK])))
    made = create_coordinator_folder(
        folder,
        settings={**listens, **(settings or {})},
        private_files={
            "ca.key": authority.key,
            "server.key": server.key,
            "superexec.secret": secrets.token_bytes(32),
        },
        public_files={"ca.crt": authority.certificate, "server.crt": server.certificate},
    )
    return made, True


def _behind_gateway(coordinator: CoordinatorSettings, gateway: bool | None) -> bool:
    if gateway is not None:
        return gateway
    return not is_loopback(_certified_hosts(_certificate(coordinator, "server.crt"))[0])


def _complete_book(coordinator: CoordinatorSettings) -> None:
    """Write the first revocation list; a coordinator from before certificates gets one, too."""
    with book.opened(coordinator):
        if not book.revocation_list(coordinator).is_file():
            book.write_revocation_list(coordinator)


def _kit(
    folder: Path,
    coordinator: CoordinatorSettings,
    *,
    task: str,
    recipe: Recipe | None,
    policy: SitePolicy | None,
    further: Mapping[str, object],
    gateway: bool | None,
) -> ProvisionedSite:
    name = folder.name
    if (folder / "site.toml").is_file():
        existing = SiteSettings.read(folder)
        if existing.name != name:
            raise ConfigurationError(
                f"{folder} is the kit of {existing.name}, not of {name}.",
                action="Move it away, or name the site as it is named there.",
            )
        _know_node(coordinator, name, folder)
        return ProvisionedSite(name=name, folder=folder, created=False)
    book.refuse_revoked(coordinator, name)
    if (coordinator.pki / "nodes" / f"{name}.pub").is_file():
        # At its hospital by now. Another node key would take the place of the one that it has.
        return ProvisionedSite(name=name, folder=folder, created=False, handed_over=True)
    host = _certified_hosts(_certificate(coordinator, "server.crt"))[0]
    reached = "127.0.0.1" if host == "localhost" else host
    ports = (coordinator.port, coordinator.superlink_port)
    if _behind_gateway(coordinator, gateway):
        ports = (coordinator.gateway_port, coordinator.gateway_port)
    node = make_node_key(name)
    with book.opened(coordinator):
        certificate = book.issue(coordinator, name, node_public_key=None)
    create_site_folder(
        folder,
        name=name,
        task=task,
        plan_keys=plan_keys.public_keys(coordinator),
        policy=policy or policy_text(task),
        recipe=recipe,
        settings={
            "coordinator_url": f"https://{reached}:{ports[0]}",
            "superlink": f"{reached}:{ports[1]}",
            **further,
        },
        root_json=_first_root(coordinator),
        ca_certificate=(coordinator.keys / "ca.crt").read_bytes(),
        node_key=node,
        site_certificate=(certificate.certificate, certificate.key),
    )
    _know_node(coordinator, name, folder)
    return ProvisionedSite(name=name, folder=folder, created=True)


def _know_node(coordinator: CoordinatorSettings, name: str, kit: Path) -> None:
    """Write a site's node key into the book, once its kit stands: a crash before makes it anew."""
    key = kit / "keys" / "node.pub"
    with book.opened(coordinator):
        if key.is_file():
            book.keep_node(coordinator, name, key.read_bytes())


def policy_text(task: str) -> str:
    """Return the commented ``policy.toml`` of a new kit, which allows one recipe."""
    template = (resources.files("deploy") / "policy_template.toml").read_text("utf-8")
    return template.replace("@TASK@", task)


def _first_root(coordinator: CoordinatorSettings) -> bytes:
    return (coordinator.releases / "metadata" / "1.root.json").read_bytes()


def _certificate(coordinator: CoordinatorSettings, name: str) -> x509.Certificate:
    path = coordinator.keys / name
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The certificate {path} cannot be read.",
            action="Restore the coordinator's folder from backup.",
        ) from error


def _certified_hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(name.value) for name in names)
