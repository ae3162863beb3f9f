"""`wardround simulate`: the deployment's own server and client code, on one machine."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from common.errors import ConfigurationError
from common.recipe import AggregationName, AlgorithmName
from deploy.commands.campaign_flags import (
    BufferSize,
    LocalLayerNames,
    Mode,
    Quorum,
    Weights,
    chosen_layers,
)
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
from deploy.tables import Table

if TYPE_CHECKING:
    from common.recipe import Recipe
    from simulations.adversaries import Adversary
    from simulations.federation import Simulation
    from simulations.hospitals import SiteRule
    from simulations.report import SimulationReport
    from simulations.scoring import Scores
    from simulations.slow_sites import SlowSite
    from simulations.warned import Warned


PHANTOM_ROUNDS = 5


class Baseline(StrEnum):
    """What to compare the federation with."""

    none = "none"
    pooled = "pooled"


def simulate(
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            help=RECIPE_HELP,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of images with labels; or an .npz file, with --class-order and "
            "--sites-by hash:K.",
        ),
    ] = None,
    phantom: Annotated[
        bool,
        typer.Option(
            "--phantom",
            help="Synthetic hospitals, a tiny network and few rounds, instead of --data.",
        ),
    ] = False,
    hospitals: Annotated[int, typer.Option(min=2, max=100, help="With --phantom: hospitals.")] = 3,
    patients: Annotated[
        int, typer.Option(min=5, help="With --phantom: patients of each hospital.")
    ] = 200,
    sites_by: Annotated[
        str, typer.Option(help="column:NAME, hash:K or dirichlet:K:ALPHA.")
    ] = "column:site",
    split_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says train or test.",
            show_default="`split`, or a `fold` of train and test; drawn by patient without",
        ),
    ] = None,
    labels: LabelsFile = None,
    file_column: FileColumn = "file",
    label_column: LabelColumn = "label",
    patient_column: PatientColumn = "patient_id",
    label_alias: LabelAlias = None,
    class_order: ClassOrder = None,
    patient_pattern: PatientPattern = None,
    model: Annotated[
        str | None, typer.Option(help="Another timm network.", show_default="the recipe's")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Another image size in pixels.", show_default="the recipe's")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Another number of rounds.", show_default="the recipe's"),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Another epsilon, at each site.", show_default="the recipe's"),
    ] = None,
    no_privacy: Annotated[
        bool, typer.Option("--no-privacy", help="A study without differential privacy.")
    ] = False,
    aggregation: Annotated[
        AggregationName | None,
        typer.Option(help="How updates become one.", show_default="the recipe's"),
    ] = None,
    algorithm: Annotated[
        AlgorithmName | None,
        typer.Option(help="A published method.", show_default="the recipe's"),
    ] = None,
    local_layers: LocalLayerNames = None,
    mode: Mode = None,
    buffer_size: BufferSize = None,
    quorum: Quorum = None,
    weights: Weights = None,
    slow: Annotated[
        list[str] | None,
        typer.Option(help="SITE=SECONDS, and again for another: a site that takes longer."),
    ] = None,
    adversary: Annotated[
        list[str] | None,
        typer.Option(help="SITE=BEHAVIOUR, and again for another: a site that attacks."),
    ] = None,
    baseline: Annotated[
        Baseline, typer.Option(help="pooled: train on the union of the data, too.")
    ] = Baseline.none,
    seed: Annotated[int, typer.Option(help="Of the division and of the pooled training.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Sites at work at a time; 0 is one a CPU core.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder; runs/simulation-… by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a federation, and compare it with pooled training.

    Leaves a folder with report.md, metrics.json, metrics.csv and curves.
    """
    from client.intake.source import CsvColumns, ImportSource
    from common.recipe import load_recipe
    from deploy.demo.phantom_defaults import for_phantoms
    from server.campaigns import check_majority
    from simulations.adversaries import parse_adversary
    from simulations.federation import Simulation, nothing_left
    from simulations.hospitals import ByColumn, parse_site_rule
    from simulations.slow_sites import parse_slow_site
    from simulations.split_column import dividing_column

    if (data is None) == (not phantom):
        raise ConfigurationError(
            "Exactly one of --data and --phantom is needed.",
            action="Name a folder of images with --data, or give --phantom.",
            code="simulation-data",
        )
    attacking = tuple(parse_adversary(text) for text in adversary or ())
    slow_sites = tuple(parse_slow_site(text) for text in slow or ())
    chosen = load_recipe(recipe)
    if phantom:
        sgd = (algorithm or chosen.federation.algorithm) == "scaffold"
        chosen = for_phantoms(chosen, plain_sgd=sgd).with_changes(rounds=PHANTOM_ROUNDS)
    chosen = chosen.with_changes(
        model=model,
        image_size=image_size,
        rounds=rounds,
        epsilon=epsilon,
        aggregation=aggregation,
        algorithm=algorithm,
        local_layers=chosen_layers(local_layers),
        mode=mode,
        buffer_size=buffer_size,
        quorum=quorum,
    )
    check_majority(chosen, chosen.federation.quorum)
    folder = out or Path("runs") / f"simulation-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    rule = parse_site_rule(sites_by)
    if phantom:
        _check_phantoms(folder, rule, attacking, slow_sites, hospitals=hospitals)
    with nothing_left(folder, ("data",) if phantom else ()):
        if phantom:
            data = _phantom_data(chosen, folder, hospitals=hospitals, patients=patients, seed=seed)
        columns = CsvColumns(
            file=file_column,
            label=label_column,
            patient=patient_column,
            site=rule.column if isinstance(rule, ByColumn) else "site",
            split=split_column or dividing_column(labels or (data or Path()) / "labels.csv"),
        )
        source = ImportSource(
            data=data or Path(),
            labels=labels,
            columns=columns,
            aliases=aliases_of(label_alias),
            class_order=order_of(class_order),
            patient_pattern=patient_pattern,
        )
        simulation = Simulation(
            recipe=chosen,
            source=source,
            rule=rule,
            out=folder,
            private=not no_privacy,
            pooled=baseline is Baseline.pooled,
            seed=seed,
            workers=workers,
            adversaries=attacking,
            slow=slow_sites,
            weights=weights,
        )
        report = _run(simulation, quiet=as_json)
    emit(report, as_json=as_json, show=lambda console: show_report(report, folder, console))


def show_report(report: SimulationReport, folder: Path, console: Console) -> None:
    """Print a simulation's result for a person."""
    from simulations.report_words import figure, refused_in_words, rounds_in_words

    table = Table(title="All test patients")
    for heading in ("training", "images", "macro AUROC", "balanced accuracy", "accuracy"):
        table.add_column(heading, justify="left" if heading == "training" else "right")
    table.add_row("federated", *_figures(report.federated))
    if report.own is not None:
        table.add_row("federated, own layers", *_figures(report.own))
    if report.pooled is not None and report.gap is not None:
        table.add_row("pooled", *_figures(report.pooled))
        gap = report.gap
        table.add_row("gap", "", figure(gap.macro_auroc), figure(gap.balanced_accuracy), "")
    majority = figure(report.federated.majority_baseline)
    chance = f"{1 / len(report.classes):.3f}"
    table.add_row("always the most frequent class", "", "0.500", chance, majority)
    console.print(table)
    if report.adversaries:
        console.print(f"Attacked by {escape(', '.join(report.adversaries))}.", style="red")
    if report.refused_by_code:
        console.print(escape(refused_in_words(report)), style="yellow", highlight=False)
    sites = Table(title="Each hospital, federated")
    for heading in ("hospital", "training patients", "test images", "epsilon", "macro AUROC"):
        sites.add_column(heading, justify="left" if heading == "hospital" else "right")
    for hospital in report.hospitals:
        sites.add_row(
            escape(hospital.name),
            str(hospital.training_patients),
            str(hospital.federated.count),
            figure(hospital.epsilon, 2),
            figure(hospital.federated.macro_auroc),
        )
    console.print(sites)
    console.print(
        f"{rounds_in_words(report)}, {report.passes:.1f} passes, {report.campaign_seconds:.0f} s; "
        f"{report.seconds:.0f} s in all. Report: {escape(str(folder / 'report.md'))}",
        highlight=False,
        soft_wrap=True,
    )


def _figures(scores: Scores) -> tuple[str, ...]:
    from simulations.report_words import figure

    return (
        str(scores.count),
        figure(scores.macro_auroc),
        figure(scores.balanced_accuracy),
        figure(scores.accuracy),
    )


def _check_phantoms(
    folder: Path,
    rule: SiteRule,
    attacking: tuple[Adversary, ...],
    slow: tuple[SlowSite, ...],
    *,
    hospitals: int,
) -> None:
    """Refuse a folder in use, and hospitals that there will not be, before anything is drawn."""
    from simulations.adversaries import check_adversaries
    from simulations.federation import check_empty
    from simulations.hospitals import ByColumn, site_name
    from simulations.slow_sites import check_slow_sites

    check_empty(folder)
    count = hospitals if isinstance(rule, ByColumn) else rule.sites
    names = [site_name(index) for index in range(count)]
    check_adversaries(attacking, names)
    check_slow_sites(slow, names)


def _phantom_data(
    recipe: Recipe, folder: Path, *, hospitals: int, patients: int, seed: int
) -> Path:
    """Draw phantom hospitals into ``data/`` of the run's folder."""
    import numpy as np

    from simulations.hospitals import site_name
    from simulations.phantoms import scanner_for_site, write_phantom_folder

    for index in range(hospitals):
        name = site_name(index)
        write_phantom_folder(
            folder / "data",
            recipe,
            scanner_for_site(index),
            patients,
            np.random.default_rng([seed, index]),
            patient_prefix=f"{name}-",
            site=name,
        )
    return folder / "data"


def _run(simulation: Simulation, *, quiet: bool) -> SimulationReport:
    from simulations.engine import run_simulation

    with progress(quiet=quiet) as display:
        bars: dict[str, TaskID] = {}

        def on_stage(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = display.add_task(stage, total=total)
            display.update(bars[stage], completed=done, total=total)

        return run_simulation(simulation, on_stage=on_stage, on_warning=_say)


def _say(warned: Warned) -> None:
    progress_console.print(
        f"Warning: {warned.line()}", markup=False, highlight=False, soft_wrap=True
    )
