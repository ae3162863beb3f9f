"""What the demo says at its end: one document for scripts, one table for people."""

from __future__ import annotations

import shlex
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from deploy.federation_folder import FEDERATION
from deploy.tables import Table
from simulations.warned import Warned


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class SiteReport(_Part):
    """One hospital's line.

    ``epsilon_rdp`` is what the site's ledger says it spent; ``epsilon_prv`` is recomputed from the
    ledger's rows with another accountant (PRV). Both are None without privacy. ``auroc_*`` are
    macro AUROC on the site's own holdout patients, None where a class is missing there.
    ``model_*`` are None where the gate refused every model.
    """

    site: str
    cases: int
    training_patients: int
    holdout_patients: int
    epsilon_rdp: float | None
    epsilon_prv: float | None
    auroc_v1: float | None
    auroc_v2: float | None
    model_version: int | None
    model_digest: str | None
    answered_during_swap: int
    failed_during_swap: int
    url: str


class PooledMetrics(_Part):
    """Figures over the holdout patients of all hospitals, from mergeable counts."""

    macro_auroc: float | None
    balanced_accuracy: float | None
    accuracy: float | None
    majority_baseline: float | None


class DemoReport(_Part):
    """The whole demo. ``epsilon`` is each site's bound for life; times are in seconds.

    ``warnings`` are what the imports, the first model and the number of hospitals gave cause for.
    """

    recipe: str
    model: str
    image_size: int
    private: bool
    epsilon: float | None
    rounds: tuple[int, ...]
    sites: tuple[SiteReport, ...]
    v1: PooledMetrics
    v2: PooledMetrics | None
    v1_refused_by: tuple[str, ...] = ()
    v2_refused_by: tuple[str, ...]
    without_privacy: PooledMetrics | None
    warnings: tuple[Warned, ...] = ()
    seconds: float
    folder: str


def show(report: DemoReport, console: Console) -> None:
    """Draw the report for a person."""
    table = Table(
        title=f"{report.recipe} · {report.model} · {report.image_size} px", title_style="bold"
    )
    for heading in ("hospital", "cases", "ε (by PRV)", "AUROC v1→v2", "serves"):
        table.add_column(heading, no_wrap=True)
    table.add_column("answered/ failed")
    for site in report.sites:
        table.add_row(
            site.site,
            str(site.cases),
            f"{_figure(site.epsilon_rdp, 2)} ({_figure(site.epsilon_prv, 2)})",
            f"{_figure(site.auroc_v1, 3)}→{_figure(site.auroc_v2, 3)}",
            f"v{site.model_version} {site.model_digest[:8]}" if site.model_digest else "nothing",
            f"{site.answered_during_swap}/{site.failed_during_swap}",
        )
    console.print(table)
    console.print(_comparison(report))
    for name, refused_by in (("v1", report.v1_refused_by), ("v2", report.v2_refused_by)):
        if refused_by:
            console.print(f"{name} was refused by the release gate: {', '.join(refused_by)}.")
    for warned in report.warnings:
        console.print(f"Warning: {warned.line()}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{report.seconds:.0f} s. {_left(Path(report.folder))}", soft_wrap=True)
    federation = Path(report.folder) / FEDERATION
    console.print(
        f"Its federation is {federation}, which other commands take as --folder; "
        f"`wardround local up --folder {shlex.quote(str(federation))}` starts it again.",
        soft_wrap=True,
    )


def _left(folder: Path) -> str:
    """Say what stays on the disk; sparse and hard-linked files count as their own length."""
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    return (
        f"Images, logs and databases ({size / 1e6:.0f} MB) stay in {folder}; "
        f"`rm -r {shlex.quote(str(folder))}` removes them."
    )


def _comparison(report: DemoReport) -> Table:
    table = Table(title="All hospitals' holdout patients", title_style="bold")
    for heading in ("model", "macro AUROC", "balanced acc.", "accuracy", "majority"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    name = f"ε ≤ {report.epsilon:g}" if report.private else "without privacy"
    rows = [(f"v1, {name}", report.v1), (f"v2, {name}", report.v2)]
    rows.append(("the same without privacy", report.without_privacy))
    for label, metrics in rows:
        if metrics is not None:
            table.add_row(
                label,
                _figure(metrics.macro_auroc, 3),
                _figure(metrics.balanced_accuracy, 3),
                _figure(metrics.accuracy, 3),
                _figure(metrics.majority_baseline, 3),
            )
    return table


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
