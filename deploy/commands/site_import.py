"""`wardround site import`: bring cases into a site's store, and say what was kept and what not."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from common.errors import ConfigurationError
from common.wording import number
from deploy.commands.flags import AsJson, Site
from deploy.commands.import_flags import (
    ClassOrder,
    FileColumn,
    LabelAlias,
    LabelColumn,
    LabelsFile,
    PatientColumn,
    PatientPattern,
    aliases_of,
    order_of,
)
from deploy.console import EXIT_USAGE, emit, progress, progress_console
from deploy.tables import Table

if TYPE_CHECKING:
    from client.intake.source import ImportSource
    from client.intake.summary import ImportSummary

_SHOWN_ROWS = 5
_SHOWN_REASONS = 20


class LayoutOption(StrEnum):
    """How the data lie on disk."""

    csv = "csv"
    tree = "tree"
    npz = "npz"
    dicom = "dicom"


def import_command(
    data: Annotated[Path, typer.Option("--data", help="The images' folder, or an .npz file.")],
    site: Site = Path(),
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe; the site's own task by default.")
    ] = None,
    labels: LabelsFile = None,
    layout: Annotated[
        LayoutOption | None, typer.Option("--layout", help="Found out by itself by default.")
    ] = None,
    file_column: FileColumn = "file",
    label_column: LabelColumn = "label",
    patient_column: PatientColumn = "patient_id",
    site_column: Annotated[str, typer.Option(help="Column of the hospital.")] = "site",
    age_column: Annotated[str, typer.Option(help="Column of the age.")] = "age",
    sex_column: Annotated[str, typer.Option(help="Column of the sex.")] = "sex",
    split_column: Annotated[
        str, typer.Option(help="Column of the split: train, val, test, holdout.")
    ] = "split",
    site_filter: Annotated[
        str | None, typer.Option(help="Keep only the rows of this hospital.")
    ] = None,
    label_alias: LabelAlias = None,
    class_order: ClassOrder = None,
    patient_pattern: PatientPattern = None,
    show_files: Annotated[
        bool, typer.Option("--show-files", help="Name the files of refused rows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Import cases from a folder with a labels CSV, class folders, a MedMNIST npz, or DICOM files.

    Nothing that names a patient is stored. Importing again adds nothing twice. Exit code 2 when
    no row could be stored.
    """
    from client.intake.source import CsvColumns, ImportSource

    columns = CsvColumns(
        file=file_column,
        label=label_column,
        patient=patient_column,
        site=site_column,
        age=age_column,
        sex=sex_column,
        split=split_column,
    )
    source = ImportSource(
        data=data,
        labels=labels,
        layout=layout.value if layout else None,
        columns=columns,
        site=site_filter,
        aliases=aliases_of(label_alias),
        class_order=order_of(class_order),
        patient_pattern=patient_pattern,
        show_files=show_files,
    )
    summary = run_import(site, recipe, source, quiet=as_json)
    emit(summary, as_json=as_json, show=lambda console: show_summary(summary, console))
    if not summary.kept + summary.already_present + summary.duplicates:
        progress_console.print(nothing_stored(summary), highlight=False, markup=False)
        raise typer.Exit(EXIT_USAGE)


def run_import(
    site: Path, recipe: str | None, source: ImportSource, *, quiet: bool = False
) -> ImportSummary:
    """Import into a site's folder, with a progress bar on stderr.

    Raises
    ------
    ConfigurationError, InputRefused, StoreError
        If the site, the recipe or the source as a whole cannot be used.
    """
    from client.intake.importer import import_cases
    from client.settings import SiteSettings
    from client.site_recipes import own_recipe
    from common.recipe import load_recipe

    settings = SiteSettings.read(site)
    chosen = load_recipe(recipe) if recipe else own_recipe(settings, settings.task)
    if chosen is None:
        raise ConfigurationError(
            f"There is no recipe {settings.task}.",
            action=f"Put {settings.task}.toml into {settings.recipes}.",
        )
    if chosen.name != settings.task:
        raise ConfigurationError(
            f"The recipe {chosen.name} is not this site's task, {settings.task}.",
            meaning="Its cases would never be trained on here.",
            action="Leave --recipe out, or change `task` in site.toml.",
        )
    with progress(quiet=quiet) as display:
        bar = display.add_task("Importing", total=None)
        return import_cases(
            settings,
            chosen,
            source,
            progress=lambda done, total: display.update(bar, completed=done, total=total),
        )


def nothing_stored(summary: ImportSummary) -> str:
    """Say why an import stored nothing."""
    if not summary.rows:
        why = "the source has no row below its header"
    elif summary.left_out == summary.rows:
        why = "all of its rows belong to other sites"
    else:
        codes = ", ".join(f"{count} x {code}" for code, count in summary.refused_by_code.items())
        why = f"every row was refused ({codes})"
        if summary.left_out:
            why = f"every row of this site was refused ({codes})"
    return f"nothing-stored: No case was stored, for {why}."


def show_summary(summary: ImportSummary, console: Console) -> None:
    """Print an import's summary for a person."""
    console.print(
        f"{number(summary.rows, 'row')} read: [bold]{summary.kept} kept[/], "
        f"{summary.already_present} already present, {number(summary.duplicates, 'duplicate')}, "
        f"{summary.refused_count} refused, {summary.left_out} of other sites. "
        f"{number(summary.patients, 'named patient')}.",
        highlight=False,
    )
    _show_refused(summary, console)
    table = Table(title=f"Cases of {summary.recipe} at this site")
    for heading in ("class", "train", "holdout"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for line in summary.class_balance:
        table.add_row(escape(line.label), str(line.train), str(line.holdout))
    console.print(table)
    if summary.majority_baseline is not None:
        side = "holdout" if any(line.holdout for line in summary.class_balance) else "training set"
        console.print(
            f"Always answering {summary.majority_class!r} is right in "
            f"{summary.majority_baseline:.1%} of the {side}: "
            "an accuracy says something only above that.",
            highlight=False,
        )
    console.print(
        f"Patients in two splits: {summary.patients_in_two_splits}. "
        f"Near-duplicates across the split: {_or_unknown(summary.near_duplicates)}.",
        highlight=False,
    )
    if summary.training_patients:
        console.print(
            f"{number(summary.training_patients, 'patient')} may be trained on. Private rounds "
            "need a public, round number near that in policy.toml, such as "
            f"[bold]declared_patients = {summary.suggested_declaration}[/].",
            highlight=False,
        )
    for warning in summary.warnings:
        console.print(f"[bold yellow]Warning[/] {escape(warning.message)}", highlight=False)


def _show_refused(summary: ImportSummary, console: Console) -> None:
    groups: dict[tuple[str, str], list[str]] = {}
    for line in summary.refused:
        row = str(line.row) + (f" ({line.file})" if line.file else "")
        groups.setdefault((line.code, line.message), []).append(row)
    for (code, message), rows in list(groups.items())[:_SHOWN_REASONS]:
        some = ", ".join(rows[:_SHOWN_ROWS]) + (", …" if len(rows) > _SHOWN_ROWS else "")
        console.print(
            f"[bold]refused[/] {len(rows)} x {code}: {escape(message)} [dim]row {escape(some)}[/]",
            highlight=False,
            soft_wrap=True,
        )
    if len(groups) > _SHOWN_REASONS or summary.refused_count > len(summary.refused):
        totals = ", ".join(f"{count} {code}" for code, count in summary.refused_by_code.items())
        console.print(f"refused in all: {totals}", highlight=False)


def _or_unknown(count: int | None) -> str:
    return "too many images to compare" if count is None else str(count)
