"""`wardround coordinator up` and `wardround site up`: one command a machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigurationError
from deploy.commands.flags import Folder, Site
from deploy.console import progress_console, result_console
from deploy.interruption import interruptible

if TYPE_CHECKING:
    from deploy.processes import State, Supervisor

WATCH_SECONDS = 1.0
ENROL_SECONDS = 10.0


def coordinator_up(
    folder: Folder,
    gateway: Annotated[
        bool,
        typer.Option(
            "--gateway/--no-gateway",
            help="Run nginx before it, through which alone hospitals come in.",
        ),
    ] = True,
) -> None:
    """Run the coordinator's processes on this machine until Ctrl-C or SIGTERM.

    Sites that `wardround provision` adds meanwhile are let in within ten seconds.
    """
    from deploy.components import coordinator_page
    from deploy.services import CoordinatorProcesses, enrol_quietly, running
    from server.settings import CoordinatorSettings

    _refuse_other_database("WARDROUND_COORDINATOR_DATABASE_URL", file="coordinator.toml")
    settings = CoordinatorSettings.find(folder)
    processes = CoordinatorProcesses(settings, gateway=gateway)
    starting = progress_console.status("Starting the coordinator…")
    with interruptible(), starting as status, running(processes):
        status.stop()
        console = result_console()
        console.print(f"The coordinator runs; its page is {coordinator_page(settings)}.")
        if gateway:
            console.print(f"Hospitals come in at port {settings.gateway_port} (gateway).")
        console.print(f"Logs: {processes.logs}. Ctrl-C stops it.", soft_wrap=True)
        watch, due = _Watch(processes.supervisor, processes.logs), time.monotonic()
        while True:
            watch.look()
            if time.monotonic() >= due:
                for name in enrol_quietly(processes):
                    console.print(f"Site {name} is let in.")
                due = time.monotonic() + ENROL_SECONDS
            time.sleep(WATCH_SECONDS)


def site_up(
    site: Site = Path(),
) -> None:
    """Run this hospital's processes until Ctrl-C or SIGTERM: rounds, model and page.

    Everything else goes on while the coordinator cannot be reached.
    """
    from client.settings import SiteSettings
    from deploy.commands.site_access import hint_of_first_user, nobody
    from deploy.components import site_url
    from deploy.services import SiteProcesses, running

    _refuse_other_database("WARDROUND_SITE_DATABASE_URL", file="site.toml")
    settings = SiteSettings.read(site)
    processes = SiteProcesses(settings)
    starting = progress_console.status("Starting the site…")
    with interruptible(), starting as status, running(processes):
        status.stop()
        console = result_console()
        console.print(f"Site {settings.name} runs; its page is {site_url(settings)}.")
        if nobody(site):
            console.print(hint_of_first_user(settings.name, settings.folder), soft_wrap=True)
        console.print(f"Logs: {processes.logs}. Ctrl-C stops it.", soft_wrap=True)
        watch = _Watch(processes.supervisor, processes.logs)
        while True:
            watch.look()
            time.sleep(WATCH_SECONDS)


def _refuse_other_database(variable: str, *, file: str) -> None:
    """Refuse a database that is named in the environment, which single commands obey.

    It does not reach the processes: those would quietly use another one.

    Raises
    ------
    ConfigurationError
        With code ``database-in-environment``.
    """
    if variable in os.environ:
        raise ConfigurationError(
            f"The environment sets {variable}.",
            meaning="Single commands use that database; the processes started here would not.",
            action=f"Write it into {file} as database_url, and unset it here.",
            code="database-in-environment",
        )


class _Watch:
    """Says when a process ends; it is started again, or the others go on without it."""

    def __init__(self, supervisor: Supervisor, logs: Path) -> None:
        self._supervisor = supervisor
        self._logs = logs
        self._reported: dict[str, State] = {}

    def look(self) -> None:
        for name, state in self._supervisor.states().items():
            if state == self._reported.get(name, "running"):
                continue
            self._reported[name] = state
            log = self._logs / f"{name}.log"
            if state == "restarting":
                progress_console.print(f"{name} ended; it is started again. See {log}.")
            elif state == "failed":
                progress_console.print(f"{name} ended too often; read {log}.")
