"""`wardround local up`: a whole federation on this machine, until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.recipe import load_recipe
from deploy.account import own_folder
from deploy.commands.site_access import hint_of_first_user, nobody
from deploy.console import progress_console, result_console
from deploy.interruption import interruptible
from deploy.tables import Table

if TYPE_CHECKING:
    from deploy.local import LocalFederation
    from deploy.processes import State

commands = typer.Typer(no_args_is_help=True, help="A whole federation on this machine.")

WATCH_SECONDS = 1.0


@commands.callback()
def local() -> None:
    """Run a whole federation on this machine, as the real processes of a real one."""


@commands.command("up")
def up(
    folder: Annotated[
        Path,
        typer.Option(callback=own_folder, help="A new folder, or an earlier federation's."),
    ],
    site: Annotated[
        list[str] | None, typer.Option(help="A site to have; may repeat. Known sites stay.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe of new sites; needed where a site is new.")
    ] = None,
    gateway: Annotated[
        bool,
        typer.Option("--gateway", help="Put nginx before the coordinator, as between hospitals."),
    ] = False,
) -> None:
    """Start a coordinator and its sites, say where they are, and run until Ctrl-C."""
    from deploy.local import LocalFederation

    chosen = load_recipe(recipe) if recipe is not None else None
    task = chosen.name if chosen is not None else ""
    made = LocalFederation(folder, sites=site or (), task=task, recipe=chosen, gateway=gateway)
    with interruptible(), made as federation:
        with progress_console.status("Starting the processes…"):
            federation.start()
            federation.wait_ready()
        console = result_console()
        _show(federation, console)
        _say_who_may_use_it(federation, console)
        console.print(f"Logs: {federation.logs}. Press Ctrl-C to stop.", soft_wrap=True)
        try:
            _watch(federation)
        finally:
            progress_console.print("Stopping…")


def _watch(federation: LocalFederation) -> None:
    """Wait for ever, and say when a process ends; it is started again, or the others go on."""
    reported: dict[str, State] = {}
    while True:
        time.sleep(WATCH_SECONDS)
        for name, state in federation.states().items():
            if state == reported.get(name, "running"):
                continue
            reported[name] = state
            log = federation.logs / f"{name}.log"
            if state == "restarting":
                progress_console.print(f"[bold]{name}[/] ended; it is started again. See {log}.")
            elif state == "failed":
                progress_console.print(f"[bold red]{name}[/] ended too often; read {log}.")


def _show(federation: LocalFederation, console: Console) -> None:
    states = federation.states()
    table = Table(title="Federation", title_style="bold")
    for heading in ("process", "state", "where"):
        table.add_column(heading)
    places = {"coordinator": federation.coordinator_url}
    places |= {f"{n}-service": federation.site_url(n) for n in federation.site_names}
    places["superlink"] = f"127.0.0.1:{federation.coordinator.superlink_port}"
    places["gateway"] = f"127.0.0.1:{federation.coordinator.gateway_port}"
    for name, state in states.items():
        colour = "green" if state == "running" else "red"
        table.add_row(name, f"[{colour}]{state}[/]", places.get(name, ""))
    console.print(table)


def _say_who_may_use_it(federation: LocalFederation, console: Console) -> None:
    sites = [federation.site(name) for name in federation.site_names]
    if any(site.access == "open" for site in sites):
        console.print(
            'Whoever is on this machine may use the pages of sites with access = "open" '
            "(site.toml), which new sites here are.",
            soft_wrap=True,
        )
    for site in sites:
        if nobody(site.folder):
            console.print(hint_of_first_user(site.name, site.folder), soft_wrap=True)
