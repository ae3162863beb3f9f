"""`wardround coordinator release report`: the model card and report of a release, as files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from common.errors import ConfigurationError
from deploy.commands.flags import AsJson, Folder
from deploy.console import emit


class ReportFormat(StrEnum):
    """Which files to write."""

    html = "html"
    pdf = "pdf"
    both = "both"


class WrittenReport(BaseModel):
    """The document that ``--json`` prints; ``version`` is None for a candidate."""

    model_config = ConfigDict(frozen=True)

    version: int | None
    campaign: str
    files: tuple[str, ...]


def report(
    version: Annotated[
        int | None, typer.Argument(help="The release's version.", min=1, show_default=False)
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(help="In place of a version: a campaign, for the report of its candidate."),
    ] = None,
    folder: Folder = Path(),
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html and report.pdf.")] = (
        Path()
    ),
    kind: Annotated[ReportFormat, typer.Option("--format", help="Which to write.")] = (
        ReportFormat.both
    ),
    as_json: AsJson = False,
) -> None:
    """Write the model card and report of a release, or of a candidate before it is one.

    The coordinator makes each release's by itself: data/reports/VERSION/.
    """
    from server.registry.registry import Registry
    from server.reports.content import candidate_report, release_report
    from server.reports.store import write_report
    from server.settings import CoordinatorSettings

    if (version is None) == (candidate is None):
        raise ConfigurationError(
            "Exactly one of a version and --candidate is needed.",
            action="Name the release's version, or a campaign with --candidate.",
            code="report-of-what",
        )
    registry = Registry.open(CoordinatorSettings.find(folder))
    try:
        found = (
            release_report(registry, version)
            if version is not None
            else candidate_report(registry, candidate or "")
        )
        files = write_report(found, out, kind=kind.value)
    finally:
        registry.close()
    document = WrittenReport(
        version=found.version, campaign=found.campaign.id, files=tuple(map(str, files))
    )

    def show(console: Console) -> None:
        for path in files:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)

    emit(document, as_json=as_json, show=show)
