"""A simulation's report as files: the document, a table of its rounds, a page to read, curves."""

from __future__ import annotations

import csv
from pathlib import Path

from simulations.report import RoundReport, SimulationReport
from simulations.report_words import as_markdown


def write_report(report: SimulationReport, folder: Path) -> None:
    """Write ``metrics.json``, ``metrics.csv`` (a row a round), ``report.md`` and the curves.

    The curves are ``curves.svg`` and ``curves.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(RoundReport.model_fields))
        writer.writeheader()
        writer.writerows(line.model_dump() for line in report.curve)
    (folder / "report.md").write_text(as_markdown(report), "utf-8")
    _draw(report, folder)


def _draw(report: SimulationReport, folder: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots()
    for name, title, colour in (
        ("macro_auroc", "macro AUROC", "tab:blue"),
        ("balanced_accuracy", "balanced accuracy", "tab:orange"),
    ):
        points = [(r.number - 1, getattr(r, name)) for r in report.curve]
        if report.last is not None:
            points.append((report.rounds, getattr(report.last, name)))
        known = [(x, y) for x, y in points if y is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], color=colour, label=title)
        union = getattr(report.pooled, name) if report.pooled is not None else None
        if union is not None:
            axes.axhline(union, color=colour, linestyle="--", label=f"{title}, pooled")
    axes.set(xlabel="rounds", ylabel="on test patients", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    drawing.savefig(folder / "curves.svg")
    drawing.savefig(folder / "curves.png", dpi=120)
