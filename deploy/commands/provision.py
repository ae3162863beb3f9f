"""`wardround provision`: the folders of a federation, with every key in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.recipe import load_recipe
from deploy.account import own_folder
from deploy.commands.flags import AsJson
from deploy.console import RECIPE_HELP, emit
from deploy.tables import Table


def provision(
    folder: Annotated[
        Path, typer.Option(callback=own_folder, help="Where the federation's folders go.")
    ],
    site: Annotated[list[str], typer.Option(help="A site's name; give it once a site.")],
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "--task",  # its name until 0.1; still understood
            help=f"What new sites train. {RECIPE_HELP}",
        ),
    ],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which sites reach the coordinator; may repeat."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a coordinator folder and a start-up kit for each site.

    Running it again with more sites adds them; what is there, keys above all, stays as it is. A
    site whose kit was handed over and deleted here keeps its keys, too: `wardround pki renew`
    gives it a new certificate.
    """
    from deploy import provision as provisioning

    chosen = load_recipe(recipe)
    done = provisioning.provision(
        folder, sites=site, task=chosen.name, recipe=chosen, hosts=host or ()
    )

    def show(console: Console) -> None:
        table = Table(title=f"Federation in {folder}", title_style="bold")
        for heading in ("folder", "", "of"):
            table.add_column(heading)
        table.add_row(str(done.coordinator), _made(done.coordinator_created), "the coordinator")
        for kit in done.sites:
            table.add_row(str(kit.folder), _made(kit.created, kit.handed_over), f"site {kit.name}")
        console.print(table)
        console.print(f"The certificate names {', '.join(done.hosts)}.")
        console.print(
            f"It expires on {done.certificate_expires_at:%Y-%m-%d}, "
            f"the CA on {done.authority_expires_at:%Y-%m-%d}.",
            highlight=False,
        )
        console.print(
            "Hand each kit to its hospital over a channel that you trust, and delete it here: "
            "it holds that site's keys. Keep coordinator/keys in a backup.",
            soft_wrap=True,
        )

    emit(done, as_json=as_json, show=show)


def _made(created: bool, handed_over: bool = False) -> str:
    if handed_over:
        return "handed over before; nothing made"
    return "[green]made[/]" if created else "was there"
