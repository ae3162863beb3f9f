"""The processes of one machine: a coordinator's, or a hospital's, until they are stopped.

What `deploy.local` is to a whole federation on one machine, these are to a real one: one command
a machine, to be run by systemd or by hand. Nothing survives the command, however it ends, and
what ends by itself is started again (`deploy.processes`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from client.settings import SiteSettings
from common.errors import ConfigurationError, WardroundError
from deploy import components
from deploy.enrolment import enrol_nodes, forget_cut_enrolment
from deploy.gateway import configuration
from deploy.pki import book
from deploy.ports import require_ports
from deploy.processes import Supervisor
from deploy.superlink_database import forget_cut_migration, note_opened, superlink_database
from server.registry.registry import Registry
from server.settings import CoordinatorSettings

log = logging.getLogger(__name__)

READY_SECONDS = 120.0


class CoordinatorProcesses:
    """SuperLink, SuperExec, keeper, the coordinator's service and, by default, the gateway.

    Parameters
    ----------
    settings : CoordinatorSettings
        Of the coordinator's folder; logs go into its ``logs``.
    gateway : bool, default True
        Whether nginx runs before them; without it, no other machine reaches them.
    """

    def __init__(self, settings: CoordinatorSettings, *, gateway: bool = True) -> None:
        if gateway:
            configuration.nginx()
        self.settings = settings
        self.logs = settings.folder / "logs"
        self.supervisor = Supervisor()
        self._gateway = gateway

    def require_ports(self) -> None:
        """Raise ConfigurationError, code ``port-in-use``, where a port is another program's."""
        settings = self.settings
        wanted = {
            "superlink_port": ("127.0.0.1", settings.superlink_port),
            "port": (settings.host, settings.port),
        }
        if self._gateway:
            wanted["gateway_port"] = (settings.gateway_host, settings.gateway_port)
        require_ports(wanted, settings.folder / settings.file_name)

    def start(self) -> None:
        """Start everything, and return when it is ready and all provisioned sites are enrolled.

        Raises
        ------
        ProcessError
            If a process does not come up.
        """
        forget_cut_enrolment(self.settings)
        forget_cut_migration(self.settings)
        anew = not superlink_database(self.settings).exists()
        start = self.supervisor.start
        for describe in (components.superlink, components.superexec, components.keeper):
            start(describe(self.settings, self.logs))
        start(components.coordinator_service(self.settings, self.logs))
        if self._gateway:
            configuration.render(self.settings)
            configuration.check(self.settings)
            start(components.gateway(self.settings, self.logs))
        self.supervisor.wait_ready(timeout=READY_SECONDS)
        note_opened(self.settings)
        if anew:  # what the registry remembers of the sites' nodes, this SuperLink has never seen
            enrol_nodes(self.settings, sorted(book.nodes(self.settings)))
        self.enrol_new()
        self.supervisor.keep_alive()

    def enrol_new(self) -> tuple[str, ...]:
        """Let in the sites that were provisioned since; return their names.

        Raises
        ------
        ProcessError
            If the SuperLink refuses one, or cannot be reached.
        """
        registry = Registry.open(self.settings)
        try:
            known = {site.name for site in registry.sites()}
        finally:
            registry.close()
        new = sorted(book.nodes(self.settings).keys() - known)
        if new:
            enrol_nodes(self.settings, new)
            configuration.reload(self.settings)
        return tuple(new)

    def stop(self) -> None:
        """Stop everything in order; may be called twice."""
        self.supervisor.stop([["keeper"], ["superexec"], ["gateway"]])


class SiteProcesses:
    """A site's runner, inference service and SuperNode, its one connection to the rounds.

    Where ``[dicom]`` of site.toml names a caller, or ``[dicomweb]`` a PACS, the DICOM process, too.

    Parameters
    ----------
    settings : SiteSettings
        Of the site's folder; logs go into its ``logs``.
    """

    def __init__(self, settings: SiteSettings) -> None:
        self.settings = settings
        self.logs = settings.folder / "logs"
        self.supervisor = Supervisor()

    def require_ports(self) -> None:
        """Raise ConfigurationError, code ``port-in-use``, where a port is another program's."""
        settings = self.settings
        wanted = {
            "port": (settings.host, settings.port),
            "runtime_port": ("127.0.0.1", settings.runtime_port),
        }
        if settings.dicom.callers:
            wanted["[dicom] port"] = (settings.dicom.host, settings.dicom.port)
        require_ports(wanted, settings.folder / settings.file_name)

    def start(self) -> None:
        """Start everything, and return when the page answers and the runner waits.

        The node connects when the coordinator can be reached, now or later.

        Raises
        ------
        ProcessError
            If a process does not come up.
        """
        for describe in (components.site_runner, components.site_service):
            self.supervisor.start(describe(self.settings, self.logs))
        self.supervisor.wait_ready(timeout=READY_SECONDS)
        self.supervisor.start(components.site_node(self.settings, self.logs))
        if self.settings.dicom.callers or self.settings.dicomweb.url is not None:
            self.supervisor.start(components.site_dicom(self.settings, self.logs))
        self.supervisor.keep_alive()

    def stop(self) -> None:
        """Stop everything; may be called twice."""
        self.supervisor.stop()


@contextmanager
def running(processes: CoordinatorProcesses | SiteProcesses) -> Iterator[None]:
    """Run the processes of a folder, which nobody else may run meanwhile.

    Raises
    ------
    ConfigurationError
        With code ``already-running``, or ``port-in-use``; nothing was started then.
    ProcessError
        If a process does not come up.
    """
    folder: Path = processes.settings.folder
    lock = FileLock(folder / ".up.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigurationError(
            f"The processes of {folder} are running already.",
            meaning="Two of them would write into the same database.",
            action="Stop the others first.",
            code="already-running",
        ) from error
    try:
        processes.require_ports()
        processes.start()
        yield
    finally:
        processes.stop()
        lock.release()


def enrol_quietly(processes: CoordinatorProcesses) -> tuple[str, ...]:
    """Enrol what is new; a failure is logged, for the next look may succeed."""
    try:
        return processes.enrol_new()
    except WardroundError as error:
        log.warning("event=enrolment-failed code=%s", error.code)
        return ()
