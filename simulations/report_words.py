"""A simulation's report in words: a page to read, and what a console says of it."""

from __future__ import annotations

from simulations.report import HospitalReport, SimulationReport
from simulations.scoring import Scores


def as_markdown(report: SimulationReport) -> str:
    """Return the report as a page of Markdown."""
    privacy = (
        f"differential privacy, epsilon {report.epsilon:g}" if report.private else "no privacy"
    )
    attacked = f" ATTACKED by {', '.join(report.adversaries)}." if report.adversaries else ""
    lines = [
        f"# Simulation of {report.recipe}",
        "",
        f"{report.architecture} at {report.image_size} px, {len(report.hospitals)} hospitals, "
        f"{rounds_in_words(report)}, {report.passes:.1f} passes over the images, {privacy}, "
        f"aggregated by {report.aggregation}{_method(report)}.{attacked} "
        f"Rounds took {report.campaign_seconds:.0f} s, all together {report.seconds:.0f} s.",
        "",
        setup_in_words(report),
        *([f"\n{refused_in_words(report)}"] if report.refused_by_code else []),
        "",
        "## All test patients",
        "",
        "| training | images | macro AUROC | balanced accuracy | accuracy |",
        "|---|---|---|---|---|",
        _score_line("federated", report.federated),
    ]
    if report.own is not None:
        lines.append(_score_line("federated, each hospital with its own layers", report.own))
    if report.pooled is not None and report.gap is not None:
        lines.append(_score_line("pooled", report.pooled))
        gap = f"{figure(report.gap.macro_auroc)} | {figure(report.gap.balanced_accuracy)}"
        lines.append(f"| gap (pooled - federated) | | {gap} | |")
    baseline = figure(report.federated.majority_baseline)
    lines += [
        f"| always the most frequent class | {report.federated.count} | 0.500 | "
        f"{1 / len(report.classes):.3f} | {baseline} |",
        "",
        "## Each hospital's test patients",
        "",
        "| hospital | training patients | test images | epsilon | macro AUROC | "
        "balanced accuracy | accuracy | majority |",
        "|---|---|---|---|---|---|---|---|",
        *(_hospital_line(hospital) for hospital in report.hospitals),
        "",
        "![Curves](curves.svg)",
        "",
    ]
    if report.warnings:
        lines += ["## Warnings", "", *(f"- {warned.line()}" for warned in report.warnings), ""]
    return "\n".join(lines)


def figure(value: float | None, digits: int = 3) -> str:
    """Return a figure as text; a dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"


def refused_in_words(report: SimulationReport) -> str:
    """Return which rows of the data were refused, by code; empty where none was."""
    codes = ", ".join(f"{count} x {code}" for code, count in report.refused_by_code.items())
    return f"Refused rows of the data: {codes}." if codes else ""


def setup_in_words(report: SimulationReport) -> str:
    """Return what was chosen beside the recipe."""
    told = [f"Seed {report.seed}", f"divided by `{report.sites_by}`"]
    if report.weights is not None:
        told.append(f"started from {report.weights} (SHA-256 {report.weights_digest})")
    if report.slow:
        told.append(f"slow: {', '.join(report.slow)}")
    return f"{', '.join(told)}."


def rounds_in_words(report: SimulationReport) -> str:
    """Return how many rounds there were, and whether they ended before their time."""
    if report.planned_rounds is None or report.rounds >= report.planned_rounds:
        return f"{report.rounds} rounds"
    return f"{report.rounds} rounds (stopped early, of {report.planned_rounds})"


def _method(report: SimulationReport) -> str:
    told = [
        f"algorithm {report.algorithm}" if report.algorithm else "",
        f"{report.mode} rounds" if report.mode != "synchronous" else "",
        f"local layers {', '.join(report.local_layers)}" if report.local_layers else "",
    ]
    return "".join(f", {part}" for part in told if part)


def _score_line(name: str, scores: Scores) -> str:
    return (
        f"| {name} | {scores.count} | {figure(scores.macro_auroc)} | "
        f"{figure(scores.balanced_accuracy)} | {figure(scores.accuracy)} |"
    )


def _hospital_line(hospital: HospitalReport) -> str:
    scores = hospital.federated
    return (
        f"| {hospital.name} | {hospital.training_patients} | {scores.count} | "
        f"{figure(hospital.epsilon, 2)} | {figure(scores.macro_auroc)} | "
        f"{figure(scores.balanced_accuracy)} | {figure(scores.accuracy)} | "
        f"{figure(scores.majority_baseline)} |"
    )
