"""`wardround pki …`: what runs out when; renewing, revoking and rotating."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.errors import ConfigurationError
from deploy.account import own_folder
from deploy.commands.flags import AsJson
from deploy.console import EXIT_EXPIRING, emit
from deploy.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.pki.renewal import Renewed

commands = typer.Typer(
    no_args_is_help=True, help="Certificates and plan keys: status, renewal, revocation, rotation."
)

Folder = Annotated[
    Path,
    typer.Option(callback=own_folder, help="The federation's folder, as `provision` made it."),
]
COLOURS = {"valid": "green", "expiring": "yellow", "expired": "red", "revoked": "red"}


@commands.command("status")
def status(
    folder: Annotated[
        Path, typer.Option(help="A federation's folder, a coordinator's or one site's.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show every certificate and how many days it has left.

    Exits with 4 if one has ended or ends within 30 days.
    """
    from deploy.pki import expiry

    found = expiry.status(folder)

    def show(console: Console) -> None:
        table = Table(title=f"Certificates in {folder}", title_style="bold")
        for heading in ("what", "subject", "ends", "days left", "state"):
            table.add_column(heading)
        for one in found.certificates:
            state = f"[{COLOURS[one.state]}]{one.state}[/]"
            ends = f"{one.expires_at:%Y-%m-%d}"
            table.add_row(one.what, one.subject, ends, str(one.days_left), state)
        console.print(table)

    emit(found, as_json=as_json, show=show)
    if found.attention:
        raise typer.Exit(EXIT_EXPIRING)


@commands.command("renew")
def renew(
    folder: Folder,
    site: Annotated[str, typer.Option(help="The site.")],
    as_json: AsJson = False,
) -> None:
    """Issue a new certificate to a site; the old one stays valid until it ends."""
    from deploy.pki import renewal

    done = renewal.renew_site(folder, site)

    def advise(console: Console) -> None:
        console.print(
            f"Copy {done.folder}/keys/site.crt and site.key into the site's keys folder over a "
            "channel that you trust, delete them here, and restart the site's node and service.",
            soft_wrap=True,
        )

    _show_renewed(done, advise, as_json=as_json)


@commands.command("renew-server")
def renew_server(
    folder: Folder,
    host: Annotated[
        list[str] | None, typer.Option(help="A further name or address; may repeat.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Issue a new server certificate, for the names of the old one and those given."""
    from deploy.pki import renewal

    done = renewal.renew_server(folder, host or ())

    def advise(console: Console) -> None:
        console.print("Restart SuperLink, SuperExec and the coordinator's service to use it.")

    _show_renewed(done, advise, as_json=as_json)


@commands.command("revoke")
def revoke(
    folder: Folder,
    site: Annotated[str, typer.Option(help="The site to shut out, for good.")],
    as_json: AsJson = False,
) -> None:
    """Shut a site out: its certificates and its node. It cannot be undone."""
    from deploy.pki import renewal

    done = renewal.revoke_site(folder, site)

    def show(console: Console) -> None:
        console.print(f"{site} is shut out; {done.certificates} certificates were revoked.")
        if not done.gateway_reloaded:
            console.print("No gateway runs here: copy pki/crl.pem and gateway/ to it, reload it.")
        if not done.node_removed:
            console.print(
                "[yellow]The SuperLink could not be asked to forget the node.[/] "
                "Run this again when it runs.",
                soft_wrap=True,
            )

    emit(done, as_json=as_json, show=show)


@commands.command("rotate-plan-key")
def rotate_plan_key(
    folder: Folder,
    activate: Annotated[
        bool, typer.Option("--activate", help="Sign with the announced key from now on.")
    ] = False,
    retire: Annotated[
        bool, typer.Option("--retire", help="Afterwards: forget the old public key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rotate the key that signs round plans, in three steps.

    Without an option a new key is made, and its public half must be brought to every site. With
    --activate the coordinator signs with it; both keys are valid until --retire.
    """
    from deploy.pki import plan_keys

    if activate and retire:
        raise ConfigurationError(
            "--activate and --retire are two steps.",
            action="Activate first; retire when every site has the new key.",
            code="usage",
        )
    step = plan_keys.activate if activate else plan_keys.retire if retire else plan_keys.announce
    done = step(folder)

    def show(console: Console) -> None:
        console.print(f"Plans are signed with {done.signing}.")
        if done.announced is not None:
            console.print(
                f"Announced: {done.announced}. Run again with --activate when all have it."
            )
        console.print("Every site's trust/plan-keys must hold:")
        for path in done.public_keys:
            console.print(f"  {path}", soft_wrap=True)

    emit(done, as_json=as_json, show=show)


def _show_renewed(done: Renewed, advise: Callable[[Console], None], *, as_json: bool) -> None:
    def show(console: Console) -> None:
        console.print(f"{done.subject}: a new certificate is in {done.folder}.", soft_wrap=True)
        advise(console)

    emit(done, as_json=as_json, show=show)
