"""`wardround site backup` and `wardround site restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from common.wording import number
from deploy.commands.flags import AsJson, Site
from deploy.console import emit, progress_console

if TYPE_CHECKING:
    from client.backup.making import BackupMade
    from client.backup.restoring import Restored


def backup(
    to: Annotated[Path, typer.Option("--to", help="Where the backups lie: another disk.")],
    site: Site = Path(),
    keep: Annotated[int, typer.Option(min=0, help="So many stay there; 0: all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Copy a site's cases, ledger, audit log and settings, while its services run. Never its keys.

    Exit code 1 when images could not be read.
    """
    from client.backup.making import make_backup
    from client.settings import SiteSettings

    settings = SiteSettings.read(site)
    made = make_backup(settings, to, keep=keep)
    if to.stat().st_dev == settings.data.stat().st_dev:
        _say(progress_console, "It lies on the site's own disk: what destroys one destroys both.")
    emit(made, as_json=as_json, show=lambda console: _show_made(made, console))
    if made.missing:
        raise typer.Exit(1)


def restore(
    source: Annotated[Path, typer.Option("--from", help="One backup's folder.")],
    keys: Annotated[Path, typer.Option(help="The site's keys, which were kept apart.")],
    site: Annotated[Path, typer.Option("--site", help="A new folder for the site.")],
    as_json: AsJson = False,
) -> None:
    """Make a site of a backup. It is paused until `wardround site resume --after-restore`.

    Rows of PostgreSQL go into the database that WARDROUND_SITE_DATABASE_URL names, or else
    site.toml; it must be empty.
    """
    from client.backup.restoring import restore_backup

    made = restore_backup(source, site, keys=keys)
    emit(made, as_json=as_json, show=lambda console: _show_restored(made, console))


def _show_made(made: BackupMade, console: Console) -> None:
    _say(console, f"{made.folder}: {number(made.images, 'image')}, {made.bytes / 1e6:,.1f} MB.")
    if made.missing:
        _say(console, f"{number(made.missing, 'image')} could not be read, or are damaged.")
    if made.removed:
        _say(console, f"Removed: {', '.join(made.removed)}.")
    _say(console, "The keys are not in it: keep a sealed copy of keys/ elsewhere.")


def _show_restored(made: Restored, console: Console) -> None:
    when = f"{made.backup_of:%Y-%m-%d %H:%M} UTC"
    _say(console, f"{made.folder} is {made.site} as it was on {when}. Training is paused.")
    _say(console, "Before `wardround site resume --after-restore`:")
    _say(console, f"1. Withdraw again every patient who withdrew after {when}.")
    _say(
        console,
        "2. Ask the coordinator which rounds this site answered since then, and lower epsilon_life "
        "in policy.toml by what their receipts say: this ledger does not know of them.",
    )
    _say(
        console,
        "Before anybody may use it: users and keys that were removed since are back "
        "(`wardround site user list`, `wardround site key list`).",
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
