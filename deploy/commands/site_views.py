"""`wardround site views`: who looked at stored cases, and whether the log that says so is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from common.wording import number
from deploy.commands.flags import AsJson, Site
from deploy.console import EXIT_REFUSED, emit
from deploy.tables import Table


class ViewedEntry(BaseModel):
    """One look at a case: ``part`` is ``case`` (opinions and answers), ``picture``, ``history``."""

    model_config = ConfigDict(frozen=True)

    sequence: int
    written_at: str
    case: str
    part: str
    by: str


class ViewsDocument(BaseModel):
    """The document that ``--json`` prints.

    ``unaudited`` views could not be written down while the log was away; nobody knows whose they
    were. ``faults`` names what was changed in the log.
    """

    model_config = ConfigDict(frozen=True)

    site: str
    entries: tuple[ViewedEntry, ...]
    unaudited: int
    faults: tuple[str, ...]


def views(
    site: Site = Path(),
    case: Annotated[str | None, typer.Option(help="Of this case alone: its id.")] = None,
    by: Annotated[str | None, typer.Option(help="Of this account or key alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who looked at which stored case, oldest first.

    Exit code 3 when the audit log was changed or has lost lines.
    """
    document = read_views(site, case=case, by=by)
    emit(document, as_json=as_json, show=lambda console: _show(document, console))
    if document.faults:
        raise typer.Exit(EXIT_REFUSED)


def read_views(site: Path, *, case: str | None = None, by: str | None = None) -> ViewsDocument:
    """Read who looked at a site's cases, and verify its whole audit log.

    Raises
    ------
    ConfigurationError, StoreError
        If settings or database cannot be read.
    """
    from client.audit import open_site_audit
    from client.settings import SiteSettings
    from common.audit_entries import CaseViewed, Unaudited
    from deploy.commands.audit_reading import placed, verified_entries

    settings = SiteSettings.read(site)
    with open_site_audit(settings) as log:
        lines, faults = verified_entries(log, "case-viewed", "unaudited")
    return ViewsDocument(
        site=settings.name,
        entries=tuple(
            ViewedEntry.model_validate(placed(line, entry))
            for line, entry in lines
            if isinstance(entry, CaseViewed)
            and case in (None, entry.case)
            and by in (None, entry.by)
        ),
        unaudited=sum(entry.views for _, entry in lines if isinstance(entry, Unaudited)),
        faults=faults,
    )


def _show(document: ViewsDocument, console: Console) -> None:
    from deploy.commands.audit_reading import show_faults

    table = Table(title=f"Who looked at the cases of {document.site}")
    for heading in ("when (UTC)", "case", "what", "who"):
        table.add_column(heading)
    for entry in document.entries:
        when = entry.written_at[:19].replace("T", " ")
        table.add_row(when, entry.case, entry.part, entry.by)
    console.print(table)
    console.print(f"{number(len(document.entries), 'view', 'views')}.", highlight=False)
    if document.unaudited:
        console.print(
            f"{number(document.unaudited, 'view', 'views')} could not be written down while the "
            "log was away; whose is not known.",
            style="bold red",
            highlight=False,
        )
    show_faults(document.faults, console)
