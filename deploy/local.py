"""A whole federation on one machine, as the real processes that hospitals would run.

::

    FOLDER/coordinator/      as `wardround provision` makes it
    FOLDER/sites/<name>/     as above; the site's cases and ledger live here
    FOLDER/logs/             one file a process

Everything speaks TLS and knows its peers exactly as between hospitals; only the addresses are
loopback. Nothing survives the process that started it, however that ends (`deploy.processes`).
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from client.policy import SitePolicy
from client.settings import SiteSettings
from common.errors import ConfigurationError, NotFound
from common.recipe import Recipe
from deploy import components
from deploy.campaigns import OnProgress, launch_campaign, watch_campaign
from deploy.enrolment import assign_ports, enrol, forget_cut_enrolment
from deploy.federation_folder import where_inside
from deploy.gateway import configuration
from deploy.gateway.configuration import nginx
from deploy.pki import book
from deploy.processes import State, Supervisor
from deploy.provision import provision
from deploy.superlink_database import forget_cut_migration, note_opened
from server.registry.records import Campaign
from server.settings import CoordinatorSettings

log = logging.getLogger(__name__)

SUPERLINK_SECONDS = 60.0
READY_SECONDS = 180.0
RELEASE_POLL_SECONDS = 1.0


class LocalFederation:
    """A coordinator and its sites; use it as a context manager.

    Making one provisions what is missing of the folder; `start` runs the processes.

    Parameters
    ----------
    folder : Path
        New, or an earlier federation's.
    sites : sequence of str
        Sites to have; those that are in the folder already stay, too.
    task : str
        Recipe of new sites; may be empty where no site is new.
    recipe : Recipe, optional
        What new sites are to understand by ``task``, where it is not the installed recipe.
    policy : SitePolicy, optional
        For new sites; by default the start-up kit's own, which allows ``task`` alone.
    site_settings : mapping, optional
        Further fields of `SiteSettings` for new sites.
    gateway : bool
        Let the sites come in through the gateway, as they do between hospitals; needs nginx.

    Raises
    ------
    ConfigurationError
        If the folder has no site and none is named, a name is malformed, or nginx is not
        installed (code ``nginx-missing``).
    """

    def __init__(
        self,
        folder: Path,
        *,
        sites: Sequence[str] = (),
        task: str = "",
        recipe: Recipe | None = None,
        policy: SitePolicy | None = None,
        site_settings: Mapping[str, object] | None = None,
        gateway: bool = False,
    ) -> None:
        if gateway:
            nginx()
        self.folder = folder.resolve()
        self._gateway = gateway
        names = sorted({*sites, *_kits(self.folder)})
        if not names:
            raise ConfigurationError(
                f"{folder} has no site.",
                action=where_inside(self.folder) or "Name some with --site.",
            )
        threads = max(1, (os.cpu_count() or 1) // len(names))
        defaults = {
            "threads": threads,
            "access": "open",
            "release_poll_seconds": RELEASE_POLL_SECONDS,
            # One machine: a network's graph is made once, not once a site.
            "inference": {"graphs": str(self.folder / "graphs")},
        }
        provision(
            self.folder,
            sites=names,
            task=task,
            recipe=recipe,
            policy=policy,
            site_settings=lambda _name: {**defaults, **(site_settings or {})},
        )
        self._names = tuple(names)
        self._supervisor = Supervisor()
        self._lock = FileLock(self.folder / ".running.lock", timeout=0)

    def __enter__(self) -> LocalFederation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def site_names(self) -> tuple[str, ...]:
        """The sites, by name."""
        return self._names

    @property
    def logs(self) -> Path:
        """Folder of every process's log."""
        return self.folder / "logs"

    @property
    def coordinator(self) -> CoordinatorSettings:
        """The coordinator's settings, as they are on disk now."""
        return CoordinatorSettings.read(self.folder / "coordinator")

    def site(self, name: str) -> SiteSettings:
        """Return a site's settings, as they are on disk now.

        Raises
        ------
        NotFound
            If there is no such site.
        """
        if name not in self._names:
            raise NotFound(
                f"There is no site {name!r}.", action=f"Known: {', '.join(self._names)}."
            )
        return SiteSettings.read(self.folder / "sites" / name)

    @property
    def coordinator_url(self) -> str:
        """Base URL of the coordinator's service (its CA is ``coordinator/keys/ca.crt``)."""
        return f"https://127.0.0.1:{self.coordinator.port}"

    def site_url(self, name: str) -> str:
        """Return the base URL of a site's inference service."""
        return components.site_url(self.site(name))

    def start(self) -> None:
        """Start every process, and return when the sites' nodes are registered and started.

        Raises
        ------
        ConfigurationError
            With code ``federation-running``, if the folder is in use.
        ProcessError
            If a process does not come up; everything is stopped then.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ConfigurationError(
                f"A federation is running in {self.folder} already.",
                action="Stop it first, or name another folder.",
                code="federation-running",
            ) from error
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until every process is ready and every node connected.

        From then on a process that ends by itself is started again, until it ends too often.

        Raises
        ------
        ProcessError
            If one ends or the time is over; it names the log.
        """
        self._supervisor.wait_ready(timeout=timeout)
        self._supervisor.keep_alive()

    def states(self) -> dict[str, State]:
        """Return the state of every process by name."""
        return self._supervisor.states()

    def check(self) -> None:
        """Raise ProcessError if a process ended by itself and is not started again."""
        self._supervisor.check()

    def pid(self, name: str) -> int:
        """Return the process id of a process; for tests of failure."""
        return self._supervisor.pid(name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill a process by its name (see `deploy.components`); for tests of failure."""
        self._supervisor.kill(name, number)

    def restart(self, name: str) -> None:
        """Start a process again that was killed or has failed."""
        self._supervisor.restart(name)

    def start_campaign(
        self,
        recipe: Recipe,
        *,
        rounds: int | None = None,
        epsilon: float | None = None,
        private: bool = True,
        quorum: int | None = None,
        **further: Any,
    ) -> str:
        """Create a campaign, start its Flower run, and return the campaign's id.

        See `deploy.campaigns.launch_campaign`.
        """
        return launch_campaign(
            self.coordinator,
            recipe,
            rounds=rounds,
            epsilon=epsilon,
            private=private,
            quorum=quorum
            if quorum is not None
            else min(recipe.federation.quorum, len(self._names)),
            **further,
        )

    def wait_campaign(
        self, campaign: str, on_progress: OnProgress | None = None, *, timeout: float | None = None
    ) -> Campaign:
        """Wait for a campaign's end; raise if it fails or a process dies meanwhile.

        See `deploy.campaigns.watch_campaign`.
        """
        return watch_campaign(
            self.coordinator, campaign, on_progress, check=self.check, timeout=timeout
        )

    def stop(self) -> None:
        """Stop everything in order, within about ten seconds; may be called twice."""
        sites = [f"{name}-{part}" for name in self._names for part in ("service", "node", "runner")]
        self._supervisor.stop([["keeper"], ["superexec"], sites])
        self._lock.release()

    @property
    def _first(self) -> list[str]:
        """What must be ready before a node can start."""
        return ["superlink", "gateway"] if self._gateway else ["superlink"]

    def _start(self) -> None:
        everyone = [self.site(name) for name in self._names]
        assign_ports(self.coordinator, everyone, gateway=self._gateway)
        coordinator = self.coordinator
        shut_out = book.revoked(coordinator)
        sites = [self.site(name) for name in self._names if name not in shut_out]
        forget_cut_enrolment(coordinator)
        forget_cut_migration(coordinator)
        start = self._supervisor.start
        start(components.superlink(coordinator, self.logs))
        start(components.superexec(coordinator, self.logs))
        start(components.coordinator_service(coordinator, self.logs))
        start(components.keeper(coordinator, self.logs))
        if self._gateway:
            configuration.render(coordinator)
            configuration.check(coordinator)
            start(components.gateway(coordinator, self.logs))
        for site in sites:
            start(components.site_runner(site, self.logs))
            start(components.site_service(site, self.logs))
        self._supervisor.wait_ready(self._first, timeout=SUPERLINK_SECONDS)
        note_opened(coordinator)
        enrol(coordinator, sites)
        for site in sites:
            start(components.site_node(site, self.logs))
        log.info("event=federation-started sites=%d", len(sites))


def _kits(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.glob("sites/*/site.toml")]
