"""The sections that set sites and subgroups side by side."""

from __future__ import annotations

from server.reports.content import ReleaseReport
from server.reports.document import Estimate, IntervalChart, Paragraph, Part, Section, Table
from server.reports.scores import GroupScores, group_scores, with_interval
from server.reports.words import figure, listed

AXES = {"age": "age", "sex": "sex"}


def sites(report: ReleaseReport) -> Section:
    """Tell each site's own performance."""
    if not report.by_site:
        words = "The registry holds no evaluation by site of this model, but only the sum."
        return Section("sites", "By site", (Paragraph(words, notable=True),), answers=False)
    told = tuple(
        group_scores(site, counts, report.draft.threshold) for site, counts in report.by_site
    )
    words = (
        "Each site's own holdout patients. A class that a site lacks counts for nothing in its "
        "mean, so that means over different classes cannot be held against each other to the "
        "last digit."
    )
    parts = (Paragraph(words), *_not_evaluated(report), *_side_by_side("site", told, report))
    return Section("sites", "By site", parts)


def _not_evaluated(report: ReleaseReport) -> tuple[Part, ...]:
    """Name the sites that trained the model, and whose patients are in none of the figures."""
    evaluated = {site for site, _ in report.by_site}
    silent = tuple(p.site for p in report.sites if p.rounds and p.site not in evaluated)
    if not silent:
        return ()
    words = (
        f"No figure of this report is over patients of {listed(silent)}: trained there, the "
        "model was not evaluated there (the lineage says why, where that is known)."
    )
    return (Paragraph(words, notable=True),)


def subgroups(report: ReleaseReport) -> Section:
    """Tell performance by age band and sex."""
    found = () if report.evaluation is None else report.evaluation.subgroups
    if not found:
        words = (
            "No site released counts by subgroup (age band, sex), so that nothing is known of "
            "fairness between them."
        )
        return Section("subgroups", "By subgroup", (Paragraph(words, notable=True),), answers=False)
    told = tuple(
        group_scores(f"{AXES[part.axis]} {part.group}", part.counts, report.draft.threshold)
        for part in found
    )
    words = (
        "Over the sites that released them. Cases of unknown age or sex, and classes with too few "
        "cases in a subgroup, are left out, so that subgroups need not add up to the whole."
    )
    parts = (Paragraph(words), *_side_by_side("subgroup", told, report))
    return Section("subgroups", "By subgroup", parts)


def _side_by_side(
    what: str, told: tuple[GroupScores, ...], report: ReleaseReport
) -> tuple[Part, ...]:
    calibrated = any(group.calibration_error is not None for group in told)
    rows = tuple(
        (
            *(group.name, str(group.cases), with_interval(group.macro_auroc)),
            *(with_interval(group.sensitivity), with_interval(group.specificity)),
            *((figure(group.calibration_error),) if calibrated else ()),
        )
        for group in told
    )
    headings: tuple[str, ...] = (
        what,
        "cases",
        "macro AUROC (95 %)",
        "sensitivity (95 %)",
        "specificity (95 %)",
    )
    headings += ("ECE",) if calibrated else ()
    widths = (0.17, 0.09, 0.22, 0.22, 0.22, 0.08)[: len(headings)]
    caption = "Sensitivity and specificity are those of the decision at the operating threshold"
    table = Table(caption, headings, rows, widths=widths)
    estimates = tuple(
        Estimate(g.name, g.macro_auroc.value, g.macro_auroc.lower, g.macro_auroc.upper)
        for g in told
        if g.macro_auroc is not None
    )
    if not estimates:
        return (table,)
    whole = report.draft.metrics.candidate.macro_auroc
    chart = IntervalChart(
        f"Macro AUROC by {what}; the dotted line is that of all", "macro AUROC", estimates, whole
    )
    return (chart, table)
