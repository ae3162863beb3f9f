"""`wardround demo`: the main job, from first case to second release, on one machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.campaign_flags import Weights
from deploy.commands.flags import AsJson
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
from deploy.console import RECIPE_HELP, emit, progress, progress_console
from deploy.interruption import interruptible

if TYPE_CHECKING:
    from client.intake.source import ImportSource
    from common.recipe import Recipe
    from deploy.demo.hospitals import Hospital
    from deploy.demo.journey import DemoChoices
    from deploy.demo.report import DemoReport
    from deploy.local import LocalFederation

PHANTOM_RECIPE = "mammography"
PHANTOM_ROUNDS = 6


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real images with a labels.csv, or an .npz file (--class-order); "
            "phantoms where absent. The column `site` names the hospitals; without one the "
            "patients are dealt out to four."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=RECIPE_HELP,
            show_default="mammography, for phantoms",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another timm network.", show_default="the recipe's")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels.", show_default="the recipe's")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rounds of the first campaign; the second has half.",
            show_default="the recipe's",
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Bound on each site's epsilon, both campaigns.",
            show_default="the recipe's",
        ),
    ] = None,
    no_privacy: Annotated[
        bool, typer.Option("--no-privacy", help="A study without differential privacy.")
    ] = False,
    compare: Annotated[
        bool | None,
        typer.Option(
            "--compare/--no-compare",
            help="Also run the first campaign without privacy.  [default: with --data]",
        ),
    ] = None,
    weights: Weights = None,
    labels: LabelsFile = None,
    file_column: FileColumn = "file",
    label_column: LabelColumn = "label",
    patient_column: PatientColumn = "patient_id",
    label_alias: LabelAlias = None,
    class_order: ClassOrder = None,
    patient_pattern: PatientPattern = None,
    split_column: Annotated[
        str, typer.Option(help="Column of labels.csv that fixes train or holdout.")
    ] = "split",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where to run: a new or empty folder; it stays.  [default: runs/demo-TIME]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the phantoms.")] = 7,
    serve: Annotated[
        bool, typer.Option("--serve", help="Go on serving until Ctrl-C, and print the URLs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a whole federation here: train, release, confirm new cases, train again, swap.

    Every process is real: Flower's SuperLink with TLS and node authentication, a SuperNode and an
    inference service a hospital, the coordinator's service. Nothing is left running. On phantoms
    it takes about four minutes on two idle cores.
    """
    from client.intake.source import CsvColumns, ImportSource
    from common.model_files import keeping_batch_norm
    from deploy.demo.checks import check_folder, check_network, make_folder
    from deploy.demo.hospitals import PHANTOM_HOSPITALS
    from deploy.demo.journey import DemoChoices
    from deploy.demo.recipes import for_hospitals
    from deploy.demo.report import show

    chosen = _recipe(recipe, model, image_size, phantom=data is None)
    where = folder or Path("runs") / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    check_folder(where)
    chosen = keeping_batch_norm(chosen, weights)
    source = ImportSource(
        data=data or Path(),
        labels=labels,
        columns=CsvColumns(
            file=file_column, label=label_column, patient=patient_column, split=split_column
        ),
        aliases=aliases_of(label_alias),
        class_order=order_of(class_order),
        patient_pattern=patient_pattern,
    )
    hospitals = None if data is None else _real_hospitals(source, chosen)
    count = len(PHANTOM_HOSPITALS) if hospitals is None else len(hospitals)
    chosen, warnings = for_hospitals(chosen, count)
    check_network(chosen, weights)
    make_folder(where, named=folder is not None)
    choices = DemoChoices(
        recipe=chosen,
        epsilon=epsilon or chosen.privacy.epsilon,
        rounds=rounds or (PHANTOM_ROUNDS if data is None else chosen.federation.rounds),
        private=not no_privacy,
        compare=not no_privacy and (data is not None if compare is None else compare),
        weights=weights,
        warnings=warnings,
    )
    report = _run(where, hospitals, choices, seed=seed, serve=serve, quiet=as_json)
    emit(report, as_json=as_json, show=lambda console: show(report, console))


def _run(
    where: Path,
    hospitals: tuple[Hospital, ...] | None,
    choices: DemoChoices,
    *,
    seed: int,
    serve: bool,
    quiet: bool,
) -> DemoReport:
    """Run the journey; phantoms are drawn where there are no hospitals yet."""
    from deploy.demo.hospitals import phantom_hospitals
    from deploy.demo.journey import Demo
    from deploy.demo.stages import Stages

    with interruptible() as hear_again, progress(quiet=quiet) as display:
        stages = Stages(display, None if quiet else progress_console)
        if hospitals is None:
            with stages.step("drawing phantoms"):
                hospitals = phantom_hospitals(where / "phantoms", choices.recipe, seed=seed)
        journey = Demo(where, hospitals, choices, stages)
        with journey.federation(private=choices.private) as federation:
            report = journey.run(federation)
            if serve:
                display.stop()
                _serve(federation, report)
                hear_again()
        if choices.compare:
            report = journey.compare_without_privacy(report)
    return report


def _recipe(
    name: str | None, model: str | None, image_size: int | None, *, phantom: bool
) -> Recipe:
    from common.recipe import load_recipe
    from deploy.demo.phantom_defaults import for_phantoms

    recipe = load_recipe(name or PHANTOM_RECIPE)
    if phantom:
        recipe = for_phantoms(recipe)
    return recipe.with_changes(model=model, image_size=image_size)


def _real_hospitals(source: ImportSource, recipe: Recipe) -> tuple[Hospital, ...]:
    from deploy.demo.checks import check_data
    from deploy.demo.hospitals import real_hospitals

    check_data(source.data)
    return real_hospitals(source, recipe)


def _serve(federation: LocalFederation, report: DemoReport) -> None:
    for site in report.sites:
        progress_console.print(f"{site.site}: {site.url}")
    progress_console.print(f"coordinator: {federation.coordinator_url}\nCtrl-C ends the demo.")
    try:
        while True:
            federation.check()
            time.sleep(1.0)
    except KeyboardInterrupt:
        progress_console.print("Stopping.")
