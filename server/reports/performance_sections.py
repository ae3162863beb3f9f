"""The sections of figures: discrimination, calibration, by site, by subgroup."""

from __future__ import annotations

from collections.abc import Iterable

from common.evaluation import Metrics, SiteEvaluation, metrics
from common.score_histogram import ScoreHistogram
from server.evaluation import macro_auroc_lower_bound
from server.reports.content import ReleaseReport
from server.reports.curves import (
    precision_recall_curve,
    rates_at,
    reliability,
    roc_curve,
)
from server.reports.document import Heatmap, LineChart, Paragraph, Part, Section, Series, Table
from server.reports.words import figure, percent

HARDLY = 0.005
"""An accuracy that is higher by no more than this is no better."""

NO_COUNTS = (
    "The registry holds no holdout counts of this model (it is of an older version, or no site's "
    "policy released any), so that no curve can be drawn."
)


def performance(report: ReleaseReport) -> Section:
    """Draw ROC, precision-recall and confusion, and say how sure the AUROC is."""
    title, found = "Discrimination", report.draft.metrics.candidate
    whole = Table(
        "All sites together, beside what always answering the most frequent class scores",
        ("", "model", "most frequent class"),
        (
            ("Macro AUROC", figure(found.macro_auroc), "0.500"),
            ("Balanced accuracy", figure(found.balanced_accuracy), _chance(report)),
            ("Accuracy", figure(found.accuracy), figure(found.majority_baseline)),
            ("Holdout cases", str(found.count), str(found.count)),
        ),
        widths=(0.4, 0.3, 0.3),
    )
    parts: list[Part] = [whole, *_no_better_than_majority(found), *_against_champion(report)]
    evaluation = report.evaluation
    if evaluation is None or not evaluation.cases:
        return Section("performance", title, (*parts, Paragraph(NO_COUNTS, notable=True)))
    parts += [
        _curves("ROC, each class against the rest", evaluation, roc=True),
        _curves("Precision-recall, each class against the rest", evaluation, roc=False),
        _by_class(evaluation),
        _confusion(evaluation),
        Paragraph(_certainty(evaluation)),
    ]
    return Section("performance", title, tuple(parts))


def _no_better_than_majority(found: Metrics) -> list[Part]:
    """Say so where the highest class says nothing, whatever the ranking is worth."""
    if found.accuracy is None or found.majority_baseline is None:
        return []
    if found.accuracy > found.majority_baseline + HARDLY:
        return []
    words = (
        "By accuracy the model is no better than always answering the most frequent class. What "
        "it is worth lies in its ranking (AUROC) and the operating threshold, not in the class "
        "with the highest probability."
    )
    return [Paragraph(words, notable=True)]


def _chance(report: ReleaseReport) -> str:
    present = sum(v is not None for v in report.draft.metrics.candidate.sensitivity)
    return figure(1 / present if present else None)


def _against_champion(report: ReleaseReport) -> list[Part]:
    old = report.draft.metrics.champion
    if old is None:
        return [Paragraph("There was no earlier release to compare with.")]
    new = report.draft.metrics.candidate
    base = report.draft.lineage.base_release
    return [
        Table(
            "Beside the release that it replaces, on the sites that scored both",
            ("", "this model", "earlier" if base is None else f"earlier (v{base})"),
            (
                ("Macro AUROC", figure(new.macro_auroc), figure(old.macro_auroc)),
                (
                    "Balanced accuracy",
                    figure(new.balanced_accuracy),
                    figure(old.balanced_accuracy),
                ),
                ("Accuracy", figure(new.accuracy), figure(old.accuracy)),
                ("Holdout cases", str(new.count), str(old.count)),
            ),
            widths=(0.4, 0.3, 0.3),
        )
    ]


def _curves(title: str, evaluation: SiteEvaluation, *, roc: bool) -> LineChart:
    series = []
    for name, positive, negative in _by_name(evaluation):
        points = (roc_curve if roc else precision_recall_curve)(positive, negative)
        if points:
            series.append(Series(name, points))
    if roc:
        return LineChart(title, "1 - specificity", "sensitivity", tuple(series), diagonal=True)
    return LineChart(title, "recall (sensitivity)", "precision", tuple(series))


def _by_class(evaluation: SiteEvaluation) -> Table:
    found = metrics(evaluation)
    rows = []
    for index, (name, positive, negative) in enumerate(_by_name(evaluation)):
        calibration = reliability(positive, negative)
        rows.append(
            (
                *(name, str(positive.total), figure(found.auroc[index])),
                figure(found.sensitivity[index]),
                figure(None if calibration is None else calibration.error),
            )
        )
    headings = ("class", "cases", "AUROC", "sensitivity (highest class)", "ECE")
    return Table("By class", headings, tuple(rows), widths=(0.24, 0.14, 0.16, 0.3, 0.16))


def _confusion(evaluation: SiteEvaluation) -> Heatmap:
    columns: tuple[str, ...] = evaluation.classes
    counts = evaluation.confusion
    if any(evaluation.unresolved):
        columns = (*columns, "not told")
        rest = zip(counts, evaluation.unresolved, strict=True)
        counts = tuple((*row, unresolved) for row, unresolved in rest)
    return Heatmap(
        "Confusion", "class with the highest probability", "confirmed class",
        columns, evaluation.classes, counts,
    )  # fmt: skip


def _certainty(evaluation: SiteEvaluation) -> str:
    bound = figure(macro_auroc_lower_bound(evaluation))
    words = (
        f"With 95 % confidence the macro AUROC is at least {bound} (standard errors of Hanley and "
        "McNeil 1982, added up as if the classes moved together). "
    )
    if evaluation.minimum_cell > 1:
        words += (
            f"Counts below {evaluation.minimum_cell} were suppressed at the sites: accuracy and "
            "sensitivity are lower bounds, and errors whose cells are too small stand under "
            "'not told'."
        )
    return words


def calibration(report: ReleaseReport) -> Section:
    """Draw how far probabilities can be taken at their word."""
    title, evaluation = "Calibration", report.evaluation
    if evaluation is None or not evaluation.cases:
        return Section("calibration", title, (Paragraph(NO_COUNTS, notable=True),), answers=False)
    curves = [(n, reliability(p, m)) for n, p, m in _by_name(evaluation)]
    known = [(name, found) for name, found in curves if found is not None]
    chart = LineChart(
        "Reliability, each class against the rest", "mean probability given", "observed share",
        tuple(Series(name, found.points, markers=True) for name, found in known), diagonal=True,
    )  # fmt: skip
    mean = sum(found.error for _, found in known) / len(known)
    words = (
        f"Mean expected calibration error over the classes: {figure(mean)} (ten bins of equal "
        "width). On the dotted line, probabilities are what they say. Points of few cases, which "
        "lie far to the right for rare classes, move by chance."
    )
    return Section("calibration", title, (chart, Paragraph(words)))


def threshold_rates(report: ReleaseReport) -> tuple[Paragraph | Table, ...]:
    """Return what each positive class's own probability would catch at the threshold."""
    evaluation = report.evaluation
    if evaluation is None or not evaluation.cases:
        return (Paragraph(NO_COUNTS, notable=True),)
    rows = []
    for name, positive, negative in _by_name(evaluation):
        if name not in report.recipe.decision.positive_classes:
            continue
        rates = rates_at(report.draft.threshold, positive, negative)
        told = ("–", "–") if rates is None else (figure(rates[0]), figure(rates[1]))
        rows.append((name, *told))
    at = percent(report.draft.threshold)
    words = (
        "The sites' counts hold each class's probability, not their sum: the table says what each "
        "class's own probability would do at the threshold. The verdict itself catches at least "
        "as many of each positive class, and calls at least as many others."
    )
    table = Table(
        f"Each positive class by its own probability, at {at}",
        ("class", "sensitivity", "specificity"),
        tuple(rows),
        widths=(0.4, 0.3, 0.3),
    )
    return (table, Paragraph(words))


def _by_name(
    evaluation: SiteEvaluation,
) -> Iterable[tuple[str, ScoreHistogram, ScoreHistogram]]:
    return zip(evaluation.classes, evaluation.positives, evaluation.negatives, strict=True)


def sites(_report: ReleaseReport) -> Section:
    """Tell each site's own performance."""
    words = (
        "This release has no evaluation by site: its registry holds the sum over the sites alone."
    )
    return Section("sites", "By site", (Paragraph(words, notable=True),), answers=False)


def subgroups(_report: ReleaseReport) -> Section:
    """Tell performance by age band and sex."""
    words = "This release has no evaluation by subgroup (age band, sex)."
    return Section("subgroups", "By subgroup", (Paragraph(words, notable=True),), answers=False)
