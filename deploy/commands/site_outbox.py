"""`wardround site outbox`: what left a site, and whether the log that says so is whole."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from deploy.commands.flags import AsJson, Site
from deploy.console import EXIT_REFUSED, emit
from deploy.tables import Table


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class LeftEntry(_Document):
    """One reply that left. Epsilons are upper bounds after it, as on its receipt."""

    sequence: int
    written_at: str
    contents: tuple[str, ...]
    destination: str
    campaign: str | None
    round: int | None
    nonce: str | None
    code: str | None
    bytes: int
    sha256: str
    update_digest: str | None
    epsilon_campaign: float | None
    epsilon_life: float | None


class OutboxTotals(_Document):
    """How many replies, updates, evaluations and refusals left, and bytes in all."""

    replies: int
    updates: int
    evaluations: int
    refusals: int
    bytes: int


class OutboxDocument(_Document):
    """The document that ``--json`` prints; ``faults`` names what was changed in the log."""

    site: str
    entries: tuple[LeftEntry, ...]
    totals: OutboxTotals
    faults: tuple[str, ...]


def outbox(
    site: Site = Path(),
    as_json: AsJson = False,
) -> None:
    """Show everything that left this site: when, what, to which campaign, how much.

    Exit code 3 when the audit log was changed or has lost lines.
    """
    document = read_outbox(site)
    emit(document, as_json=as_json, show=lambda console: _show(document, console))
    if document.faults:
        raise typer.Exit(EXIT_REFUSED)


def read_outbox(site: Path) -> OutboxDocument:
    """Read what left a site, and verify its whole audit log.

    Raises
    ------
    ConfigurationError, StoreError
        If settings or database cannot be read.
    """
    from client.audit import open_site_audit
    from client.settings import SiteSettings
    from common.audit_entries import Left
    from deploy.commands.audit_reading import placed, verified_entries

    settings = SiteSettings.read(site)
    with open_site_audit(settings) as log:
        lines, faults = verified_entries(log, "left")
    entries = [
        LeftEntry.model_validate(placed(line, entry))
        for line, entry in lines
        if isinstance(entry, Left)
    ]
    return OutboxDocument(
        site=settings.name,
        entries=tuple(entries),
        totals=OutboxTotals(
            replies=len(entries),
            updates=_count(entries, "update"),
            evaluations=_count(entries, "evaluation"),
            refusals=_count(entries, "refusal"),
            bytes=sum(entry.bytes for entry in entries),
        ),
        faults=faults,
    )


def _count(entries: list[LeftEntry], content: str) -> int:
    return sum(content in entry.contents for entry in entries)


def _show(document: OutboxDocument, console: Console) -> None:
    from deploy.commands.audit_reading import show_faults

    table = Table(title=f"What left {document.site}")
    for heading in ("when (UTC)", "what", "campaign", "round", "bytes", "sha256", "epsilon"):
        right = heading in ("round", "bytes", "epsilon")
        table.add_column(heading, justify="right" if right else "left")
    for entry in document.entries:
        what = ", ".join(entry.contents) + (f" ({entry.code})" if entry.code else "")
        spent = "–" if entry.epsilon_campaign is None else f"{entry.epsilon_campaign:.3f}"
        number = "–" if entry.round is None else str(entry.round)
        table.add_row(
            *(entry.written_at[:19].replace("T", " "), what, entry.campaign or "–", number),
            *(f"{entry.bytes:,}", entry.sha256[:12], spent),
        )
    console.print(table)
    totals = document.totals
    console.print(
        f"{totals.replies} replies, {totals.bytes:,} bytes: {totals.updates} updates, "
        f"{totals.evaluations} evaluations, {totals.refusals} refusals.",
        highlight=False,
    )
    show_faults(document.faults, console)
