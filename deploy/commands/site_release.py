"""`wardround site release list|accept|refuse|rollback`: which released model answers here."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deploy.commands.flags import AsJson, Site
from deploy.console import emit
from deploy.tables import Table

if TYPE_CHECKING:
    from client.releases.documents import ReleaseRow, SiteReleasesDocument

commands = typer.Typer(no_args_is_help=True, help="Which released model answers here.")

VersionArgument = Annotated[int, typer.Argument(help="The release's version.", min=1)]


@commands.command("list")
def list_releases(site: Site = Path(), as_json: AsJson = False) -> None:
    """List the releases that were decided about, with the figures on this site's holdout."""
    from client.releases import by_hand
    from client.settings import SiteSettings

    document = by_hand.list_releases(SiteSettings.read(site))
    emit(document, as_json=as_json, show=lambda console: _show(document, console))


@commands.command("accept")
def accept(version: VersionArgument, site: Site = Path(), as_json: AsJson = False) -> None:
    """Have a held, refused or left release answer, once it is loaded and self-tested."""
    from client.releases import by_hand
    from client.settings import SiteSettings

    document = by_hand.accept_release(SiteSettings.read(site), version, by=_person())
    emit(document, as_json=as_json, show=lambda console: _show(document, console))


@commands.command("refuse")
def refuse(version: VersionArgument, site: Site = Path(), as_json: AsJson = False) -> None:
    """Have a release never answer here, unless somebody accepts it later."""
    from client.releases import by_hand
    from client.settings import SiteSettings

    document = by_hand.refuse_release(SiteSettings.read(site), version, by=_person())
    emit(document, as_json=as_json, show=lambda console: _show(document, console))


@commands.command("rollback")
def rollback(site: Site = Path(), as_json: AsJson = False) -> None:
    """Have the release before answer again, until a newer one is accepted."""
    from client.releases import by_hand
    from client.settings import SiteSettings

    document = by_hand.roll_back(SiteSettings.read(site), by=_person())
    emit(document, as_json=as_json, show=lambda console: _show(document, console))


def _show(document: SiteReleasesDocument, console: Console) -> None:
    if not document.rows:
        console.print("This site has decided about no release yet.")
        return
    columns = ("release", "state", "why", "by", "at (UTC)", "AUROC here", "sensitivity here")
    table = Table(*columns, box=None, pad_edge=False)
    for row in document.rows:
        table.add_row(
            *(str(row.version), row.state, row.reason, row.by, f"{row.at:%Y-%m-%d %H:%M}"),
            *_figures(row),
        )
    console.print(table)
    if document.waiting is not None:
        said = f"Release {document.waiting} waits: `wardround site release accept` or `refuse`."
        console.print(said, highlight=False, soft_wrap=True)


def _figures(row: ReleaseRow) -> tuple[str, str]:
    shadow = row.figures
    if shadow is None:
        return "", ""
    return (
        f"{shadow.auroc_beside:.3f} -> {shadow.auroc:.3f} "
        f"[{shadow.auroc_lower:+.3f}, {shadow.auroc_upper:+.3f}]",
        f"{shadow.sensitivity_beside:.3f} -> {shadow.sensitivity:.3f} "
        f"[{shadow.sensitivity_lower:+.3f}, {shadow.sensitivity_upper:+.3f}]",
    )


def _person() -> str:
    """Return who types, in the letters that the audit log takes."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "unknown"
    return "console-" + (re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")[:40] or "unknown")
