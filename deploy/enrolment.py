"""Bringing a coordinator and its sites together on one machine: addresses and identities."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tomli_w

from client.settings import SiteSettings
from common.folders import write_public
from deploy import flower_run
from deploy.pki import book
from deploy.ports import claim, free_port
from deploy.superlink_database import forget_database
from server.registry.registry import Registry
from server.settings import CoordinatorSettings

log = logging.getLogger(__name__)

REGISTRATIONS_AT_ONCE = 4
MARK = ".enrolling"


def assign_ports(
    coordinator: CoordinatorSettings, sites: Sequence[SiteSettings], *, gateway: bool = False
) -> None:
    """Keep the ports that are free, choose others for the rest, and tell every settings file.

    The files stay the one truth, so that a command in another terminal finds the federation.
    With ``gateway`` the sites are sent there instead of to the coordinator's own ports.
    """
    taken: set[int] = set()

    def port(current: int) -> int:
        chosen = current if current not in taken and claim(current) else free_port(taken)
        taken.add(chosen)
        return chosen

    superlink, service = port(coordinator.superlink_port), port(coordinator.port)
    ports = {"superlink_port": superlink, "port": service}
    if gateway:
        ports["gateway_port"] = superlink = service = port(coordinator.gateway_port)
    _change(coordinator.folder / "coordinator.toml", ports)
    for site in sites:
        changes = {
            "coordinator_url": f"https://127.0.0.1:{service}",
            "superlink": f"127.0.0.1:{superlink}",
            "port": port(site.port),
            "runtime_port": port(site.runtime_port),
        }
        _change(site.folder / "site.toml", changes)


def forget_cut_enrolment(coordinator: CoordinatorSettings) -> None:
    """Throw the stopped SuperLink's database away, if a crash cut an enrolment off.

    Flower registers a public key once, for ever, and does not tell which node has it; a node
    that the registry never heard of would lock its site out. Campaigns are in the registry.
    """
    if (coordinator.data / MARK).exists():
        log.warning("event=superlink-database-forgotten reason=enrolment-was-cut-off")
        forget_database(coordinator)


def enrol(coordinator: CoordinatorSettings, sites: Sequence[SiteSettings]) -> None:
    """Make every site's node known to the running SuperLink and to the registry.

    Raises
    ------
    ProcessError
        If the SuperLink refuses a node.
    """
    _enrol(coordinator, {site.name: site.keys / "node.pub" for site in sites})


def enrol_nodes(coordinator: CoordinatorSettings, names: Sequence[str]) -> None:
    """As `enrol`, for sites whose kits need not be on this machine any more.

    Raises
    ------
    ProcessError
        If the SuperLink refuses a node.
    """
    _enrol(coordinator, {name: coordinator.pki / "nodes" / f"{name}.pub" for name in names})


def _enrol(coordinator: CoordinatorSettings, keys: Mapping[str, Path]) -> None:
    """Register the public keys; a mark on the disk says meanwhile that it is under way."""
    registry = Registry.open(coordinator)
    try:
        remembered = {site.name: site.node_id for site in registry.sites()}
        known = {node.node_id for node in flower_run.registered_nodes(coordinator)}
        mark = coordinator.data / MARK
        mark.touch()
        shut_out = book.revoked(coordinator)
        missing = [name for name in keys if remembered.get(name) not in known]
        new = [name for name in missing if name not in shut_out]

        def register(name: str) -> int:
            return flower_run.register_node(coordinator, keys[name], name)

        with ThreadPoolExecutor(max_workers=REGISTRATIONS_AT_ONCE) as pool:
            identities = list(pool.map(register, new))
        for name, node_id in zip(new, identities, strict=True):
            public_key = keys[name].read_text("utf-8")
            registry.register_site(name, node_id=node_id, public_key=public_key)
        mark.unlink()
    finally:
        registry.close()


def _change(path: Path, changes: Mapping[str, object]) -> None:
    before = tomllib.loads(path.read_text("utf-8"))
    after = {**before, **changes}
    if after != before:
        write_public(path, tomli_w.dumps(after).encode())
