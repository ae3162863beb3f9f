"""`wardround audit verify` and `wardround audit export`: the logs of both ends, checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from common.errors import ConfigurationError
from common.wording import number
from deploy.account import SETTINGS, own_folder
from deploy.commands.flags import AsJson, Site
from deploy.commands.registry import coordinator_settings
from deploy.console import EXIT_REFUSED, emit
from deploy.tables import Table

if TYPE_CHECKING:
    from deploy.audit_report import AuditReport
    from deploy.audit_trace import Trace

commands = typer.Typer(no_args_is_help=True, help="Audit logs: verify, compare, trace, export.")


class Exported(BaseModel):
    """The document that ``--json`` prints after an export."""

    model_config = ConfigDict(frozen=True)

    site: str
    file: str
    entries: int


@commands.command("verify")
def verify(
    site: Annotated[
        list[Path] | None, typer.Option("--site", help="A site's folder; may be repeated.")
    ] = None,
    coordinator: Annotated[
        Path | None, typer.Option(help="The federation's or the coordinator's folder.")
    ] = None,
    export: Annotated[
        list[Path] | None,
        typer.Option(help="A file that a site exported, in place of its folder; repeatable."),
    ] = None,
    prediction: Annotated[
        str | None, typer.Option(help="The request id of an answer: show what it came from.")
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option("--folder", help="A site's or a coordinator's; which, it finds out itself."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify audit logs, and compare the sites' with the coordinator's.

    Exit code 3 when a log was changed, cut or reordered, or when the two ends contradict each
    other; each fault is a line.
    """
    from deploy.audit_report import audit

    sites, coordinators = _sorted(folder or [])
    sites = [*(site or ()), *sites]
    if coordinator is not None:
        coordinators.insert(0, coordinator)
    for named in (*sites, *coordinators):
        own_folder(named)
    coordinator = _the_one(coordinators)
    if not (sites or coordinator or export):
        raise ConfigurationError(
            "There is nothing to verify.",
            action="Name a folder with --site or --coordinator, or a file with --export.",
            code="usage",
        )
    report = audit(sites, coordinator, export or (), prediction=prediction)
    emit(report, as_json=as_json, show=lambda console: _show(report, console))
    if not report.whole:
        raise typer.Exit(EXIT_REFUSED)


@commands.command("export")
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    site: Site = Path(),
    as_json: AsJson = False,
) -> None:
    """Write what left a site into a file, for the coordinator to check its own log against."""
    from client.audit import open_site_audit
    from client.settings import SiteSettings
    from deploy.audit_export import export_left, write_export

    settings = SiteSettings.read(site)
    with open_site_audit(settings) as log:
        document = export_left(settings.name, log)
    write_export(document, output)
    done = Exported(site=settings.name, file=str(output), entries=len(document.lines))
    emit(
        done,
        as_json=as_json,
        show=lambda console: console.print(
            f"{number(done.entries, 'entry', 'entries')} of {done.site} "
            f"{'is' if done.entries == 1 else 'are'} in {done.file}.",
            highlight=False,
        ),
    )


def _sorted(folders: list[Path]) -> tuple[list[Path], list[Path]]:
    """Tell sites' folders from coordinators', by the settings in them.

    Raises
    ------
    ConfigurationError
        With code ``usage``, if one is neither: a log that was not read must not pass for whole.
    """
    sites = [folder for folder in folders if (folder / "site.toml").is_file()]
    others = [folder for folder in folders if folder not in sites]
    for folder in others:
        if not any((folder / name).is_file() for name in SETTINGS):
            raise ConfigurationError(
                f"{folder} is neither a site's nor a coordinator's folder.",
                action="Correct the path: it holds a site.toml or a coordinator.toml.",
                code="usage",
            )
    return sites, others


def _the_one(coordinators: list[Path]) -> Path | None:
    """Return the one coordinator that was named, if any; refuse several."""
    if len({coordinator_settings(folder).folder for folder in coordinators}) > 1:
        raise ConfigurationError(
            f"{', '.join(map(str, coordinators))} are different coordinators.",
            meaning="The sites' logs are compared with one.",
            action="Verify each coordinator with its own sites.",
            code="usage",
        )
    return coordinators[0] if coordinators else None


def _show(report: AuditReport, console: Console) -> None:
    table = Table("log", "of", "lines", "verdict")
    for log in report.logs:
        verdict = "[green]whole" if not log.faults else f"[red]{number(len(log.faults), 'fault')}"
        table.add_row(log.end, log.name, str(log.lines), verdict)
    console.print(table)
    for log in report.logs:
        for fault in log.faults:
            _line(console, f"{log.name}: {fault}", fault=True)
    for found in report.differences:
        where = f"{found.site}, {found.campaign}, round {found.round}"
        _line(console, f"{where}: {found.code}: {found.text}", fault=found.fault)
    if report.trace is not None:
        _show_trace(report.trace, console)
    if report.whole:
        console.print("Nothing was changed, nothing is missing.")


def _show_trace(trace: Trace, console: Console) -> None:
    made = trace.prediction
    _line(
        console,
        f"Prediction {made.request_id} at {made.site}, {made.answered_at}: release "
        f"v{made.version}, model {made.model_digest[:12]}, asked by {made.by or 'nobody named'}.",
    )
    for campaign in trace.campaigns:
        start = "random or public weights"
        if campaign.base_release is not None:
            start = f"release v{campaign.base_release}"
        _line(
            console,
            f"Release v{campaign.version} is of campaign {campaign.campaign}, from {start}.",
        )
        table = Table("round", "site", "update", "epsilon (campaign)", "epsilon (life)", "its log")
        for round_ in campaign.rounds:
            for told in round_.receipts:
                figures = (_figure(told.epsilon_campaign), _figure(told.epsilon_life))
                says = {None: "–", True: "[green]says so", False: "[red]does not"}
                update = (told.update_digest or "–")[:12]
                row = (str(round_.number), told.site, update, *figures)
                table.add_row(*row, says[told.site_confirms])
        console.print(table)
    for fault in trace.faults:
        _line(console, fault, fault=True)


def _line(console: Console, text: str, *, fault: bool = False) -> None:
    console.print(text, style="red" if fault else None, markup=False, soft_wrap=True)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
