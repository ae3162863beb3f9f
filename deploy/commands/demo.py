"""`wardround demo`: the main job, from first case to second release, on one machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.console import RECIPE_HELP, emit, progress, progress_console

if TYPE_CHECKING:
    from client.intake.source import CsvColumns
    from common.recipe import Recipe
    from deploy.demo.hospitals import Hospital
    from deploy.demo.report import DemoReport
    from deploy.local import LocalFederation

PHANTOM_RECIPE = "mammography"
PHANTOM_ROUNDS = 6


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of real images with a labels.csv; phantoms where absent."),
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
    patient_column: Annotated[
        str, typer.Option(help="Column of labels.csv that names the patient.")
    ] = "patient_id",
    split_column: Annotated[
        str, typer.Option(help="Column of labels.csv that fixes train or holdout.")
    ] = "split",
    folder: Annotated[
        Path | None, typer.Option(help="Where to run; must be new.  [default: runs/demo-TIME]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the phantoms.")] = 7,
    serve: Annotated[
        bool, typer.Option("--serve", help="Go on serving until Ctrl-C, and print the URLs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run a whole federation here: train, release, confirm new cases, train again, swap.

    Every process is real: Flower's SuperLink with TLS and node authentication, a SuperNode and an
    inference service a hospital, the coordinator's service. Nothing is left running.
    """
    from client.intake.source import CsvColumns
    from deploy.demo.journey import Demo, DemoChoices
    from deploy.demo.report import show

    chosen = _recipe(recipe, model, image_size, phantom=data is None)
    where = folder or Path("runs") / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    where.mkdir(parents=True, exist_ok=True)
    columns = CsvColumns(patient=patient_column, split=split_column)
    hospitals = _hospitals(data, where, chosen, columns, seed)
    choices = DemoChoices(
        recipe=chosen,
        epsilon=epsilon or chosen.privacy.epsilon,
        rounds=rounds or (PHANTOM_ROUNDS if data is None else chosen.federation.rounds),
        private=not no_privacy,
        compare=not no_privacy and (data is not None if compare is None else compare),
    )
    with progress(quiet=as_json) as display:
        journey = Demo(where, hospitals, choices, display)
        with journey.federation(private=choices.private) as federation:
            report = journey.run(federation)
            if serve:
                display.stop()
                _serve(federation, report)
        if choices.compare:
            report = journey.compare_without_privacy(report)
    emit(report, as_json=as_json, show=lambda console: show(report, console))


def _recipe(
    name: str | None, model: str | None, image_size: int | None, *, phantom: bool
) -> Recipe:
    from common.recipe import load_recipe
    from deploy.demo.phantom_defaults import for_phantoms

    recipe = load_recipe(name or PHANTOM_RECIPE)
    if phantom:
        recipe = for_phantoms(recipe)
    return recipe.with_changes(model=model, image_size=image_size)


def _hospitals(
    data: Path | None, folder: Path, recipe: Recipe, columns: CsvColumns, seed: int
) -> tuple[Hospital, ...]:
    from deploy.demo.hospitals import phantom_hospitals, real_hospitals

    if data is None:
        return phantom_hospitals(folder / "phantoms", recipe, seed=seed)
    return real_hospitals(data, recipe, columns=columns)


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
