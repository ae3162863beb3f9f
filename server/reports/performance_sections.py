"""The sections of figures over all sites: discrimination, calibration, the operating threshold."""

from __future__ import annotations

from collections.abc import Iterable

from common.evaluation import Metrics, SiteEvaluation, metrics
from common.evaluation_figures import calibration_bins
from common.score_histogram import ScoreHistogram
from server.evaluation_intervals import mean_estimate, proportion
from server.reports.content import ReleaseReport
from server.reports.curves import precision_recall_curve, reliability, roc_curve
from server.reports.document import Heatmap, LineChart, Paragraph, Part, Section, Series, Table
from server.reports.scores import (
    ClassScores,
    calibration_interval,
    class_scores,
    decision_rates,
    with_interval,
)
from server.reports.words import figure, listed, percent

COMPARED = "champion-non-inferiority"
"""The gate's check on the sites that scored both models."""
HARDLY = 0.005
"""An accuracy that is higher by no more than this is no better."""

NO_COUNTS = (
    "The registry holds no holdout counts of this model (it is of an older version, or no site's "
    "policy released any), so that no curve can be drawn."
)


def performance(report: ReleaseReport) -> Section:
    """Draw ROC, precision-recall and confusion, and say how sure the figures are."""
    title, found, evaluation = "Discrimination", report.draft.metrics.candidate, report.evaluation
    if evaluation is None or not evaluation.cases:
        parts: list[Part] = [_whole(found, ()), *_no_better_than_majority(found)]
        parts += [*_against_champion(report), Paragraph(NO_COUNTS, notable=True)]
        return Section("performance", title, tuple(parts), answers=False)
    scores = class_scores(evaluation)
    parts = [_whole(found, scores), *_no_better_than_majority(found), *_against_champion(report)]
    parts += [
        _curves("ROC, each class against the rest", evaluation, roc=True),
        _curves("Precision-recall, each class against the rest", evaluation, roc=False),
        _by_class(evaluation, scores),
        _confusion(evaluation),
        Paragraph(_certainty(report)),
    ]
    return Section("performance", title, tuple(parts))


def _whole(found: Metrics, scores: tuple[ClassScores, ...]) -> Table:
    area = mean_estimate(tuple(score.auroc for score in scores))
    precision = mean_estimate(tuple(score.precision for score in scores))
    accuracy = proportion((found.accuracy or 0.0) * found.count, found.count)
    present = sum(value is not None for value in found.sensitivity)
    rows = [
        ("Macro AUROC", with_interval(area) if area else figure(found.macro_auroc), "0.500"),
        ("Balanced accuracy", figure(found.balanced_accuracy),
         figure(1 / present if present else None)),
        ("Accuracy", with_interval(accuracy), figure(found.majority_baseline)),
        ("Holdout cases", str(found.count), str(found.count)),
    ]  # fmt: skip
    if precision is not None:
        shares = [score.cases / found.count for score in scores if score.precision is not None]
        chance = figure(sum(shares) / len(shares))
        rows.insert(1, ("Macro average precision", with_interval(precision), chance))
    return Table(
        "All sites together (95 % interval), beside always answering the most frequent class",
        ("", "model", "most frequent class"),
        tuple(rows),
        widths=(0.34, 0.38, 0.28),
    )


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


def _against_champion(report: ReleaseReport) -> list[Part]:
    old = report.draft.metrics.champion
    new, base = report.draft.metrics.candidate, report.draft.lineage.base_release
    earlier = "earlier" if base is None else f"earlier (v{base})"
    if old is None or not old.count:
        return [_not_compared(report)]
    pairs = (
        ("Macro AUROC", new.macro_auroc, old.macro_auroc),
        ("Balanced accuracy", new.balanced_accuracy, old.balanced_accuracy),
        ("Accuracy", new.accuracy, old.accuracy),
    )
    rows = tuple((name, figure(ours), figure(theirs)) for name, ours, theirs in pairs)
    return [
        Table(
            "Beside the release that it replaces: this model on all sites that scored it, the "
            "earlier one on the sites that scored both",
            ("", "this model, all sites", f"{earlier}, common sites"),
            (*rows, ("Holdout cases", str(new.count), str(old.count))),
            widths=(0.3, 0.34, 0.36),
        ),
        *_same_patients(report),
    ]


def _not_compared(report: ReleaseReport) -> Paragraph:
    """Tell a first release from one whose forerunner has no scores: the gate knows."""
    base = report.draft.lineage.base_release
    if base is None and all(check.name != COMPARED for check in report.draft.gate):
        return Paragraph("There was no earlier release to compare with.")
    earlier = "release" if base is None else f"release (v{base})"
    words = (
        f"Nobody scored the earlier {earlier} on the sites that scored this model, so that nothing "
        "is known of how it does beside it."
    )
    return Paragraph(words, notable=True)


def _same_patients(report: ReleaseReport) -> list[Part]:
    """Say what the gate compared: both models on the patients that both were scored on."""
    check = next((c for c in report.draft.gate if c.name == COMPARED), None)
    if check is None:
        return []
    words = (
        f"The gate compared them on the sites that scored both: this model's macro AUROC is "
        f"{figure(check.figure)} there, the limit {figure(check.limit)}. {check.explanation}"
    )
    return [Paragraph(words)]


def _curves(title: str, evaluation: SiteEvaluation, *, roc: bool) -> LineChart:
    draw = roc_curve if roc else precision_recall_curve
    curves = ((name, draw(positive, rest)) for name, positive, rest in _by_name(evaluation))
    series = tuple(Series(name, points) for name, points in curves if points)
    if roc:
        return LineChart(title, "1 - specificity", "sensitivity", series, diagonal=True)
    return LineChart(title, "recall (sensitivity)", "precision", series)


def _by_class(evaluation: SiteEvaluation, scores: tuple[ClassScores, ...]) -> Table:
    right = metrics(evaluation).sensitivity
    rows = tuple(
        (score.name, str(score.cases), with_interval(score.auroc),
         with_interval(score.precision), figure(right[index]))
        for index, score in enumerate(scores)
    )  # fmt: skip
    headings = ("class", "cases", "AUROC (95 %)", "average precision (95 %)", "sensitivity")
    caption = "By class; sensitivity is that of the class with the highest probability"
    return Table(caption, headings, rows, widths=(0.17, 0.1, 0.29, 0.29, 0.15))


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


def _certainty(report: ReleaseReport) -> str:
    words = (
        "Intervals are 95 % bootstrap intervals over the sites' score histograms (accuracy: "
        "Wilson), with the patients as units; for a mean over classes they are the widest that "
        "they can be. They say nothing of other hospitals. "
    )
    suppressed = report.suppressed
    if suppressed is not None:
        words += (
            f"{suppressed} were suppressed: accuracy and sensitivity are lower bounds, and errors "
            "whose cells are too small stand under 'not told'."
        )
    return words


def calibration(report: ReleaseReport) -> Section:
    """Draw how far probabilities can be taken at their word."""
    title, evaluation = "Calibration", report.evaluation
    if evaluation is None or not evaluation.cases:
        return Section("calibration", title, (Paragraph(NO_COUNTS, notable=True),), answers=False)
    curves = [(name, reliability(own, rest)) for name, own, rest in _by_name(evaluation)]
    known = [(name, found) for name, found in curves if found is not None]
    chart = LineChart(
        "Reliability, each class against the rest", "mean probability given", "observed share",
        tuple(Series(name, found.points, markers=True) for name, found in known), diagonal=True,
    )  # fmt: skip
    mean = sum(found.error for _, found in known) / len(known)
    errors = listed(tuple(f"{name} {figure(found.error)}" for name, found in known))
    words = (
        f"Expected calibration error of each class against the rest: {errors}; mean "
        f"{figure(mean)}. On the dotted line, probabilities are what they say; points of few "
        "cases move by chance."
    )
    return Section("calibration", title, (*_top_class(evaluation), chart, Paragraph(words)))


def _top_class(evaluation: SiteEvaluation) -> tuple[Part, ...]:
    told = evaluation.calibration
    if told is None or not told.cases:
        return (
            Paragraph("No site released the calibration of the answer with the highest "
                      "probability.", notable=True),
        )  # fmt: skip
    bins = calibration_bins(told)
    chart = LineChart(
        "Reliability of the answer", "highest probability given", "share that was right",
        (Series("answer", tuple((b.confidence, b.accuracy) for b in bins), markers=True),),
        diagonal=True,
    )  # fmt: skip
    words = (
        "Expected calibration error of the answer (the class with the highest probability): "
        f"{with_interval(calibration_interval(told))}, {len(bins)} of 15 bins hold cases, "
        f"{told.cases} cases in all."
    )
    return (chart, Paragraph(words))


def threshold(report: ReleaseReport) -> Section:
    """Say at which probability the verdict changes, and what follows from it."""
    recipe, at = report.recipe, percent(round(report.draft.threshold, 4))
    positive = listed(recipe.decision.positive_classes)
    words = f"A case is called positive when the probability of {positive} sums to {at} or more. "
    words += _how_chosen(report)
    return Section(
        "threshold", "Operating threshold", (Paragraph(words), *_rates(report.evaluation, report))
    )


def _how_chosen(report: ReleaseReport) -> str:
    operating = report.draft.metrics.operating
    if operating is None or operating.wanted_sensitivity is None:
        return "The threshold is the recipe's own."
    return (
        f"The threshold was chosen for a sensitivity of {figure(operating.wanted_sensitivity)} on "
        "the same holdout patients that the rates below are of: they are a little better than on "
        "new ones."
    )


def _rates(evaluation: SiteEvaluation | None, report: ReleaseReport) -> tuple[Part, ...]:
    decision = None if evaluation is None else evaluation.decision
    if decision is None or not decision.cases:
        words = (
            "No site released where the summed probability of its cases falls, so that "
            "sensitivity and specificity at the threshold are not known."
        )
        return (Paragraph(words, notable=True),)
    sensitivity, specificity = decision_rates(decision, report.draft.threshold)
    positives, negatives = decision.positives.total, decision.negatives.total
    table = Table(
        "At the threshold (95 % interval by Wilson)",
        ("", "cases", "figure"),
        (
            ("Sensitivity", str(positives), with_interval(sensitivity)),
            ("Specificity", str(negatives), with_interval(specificity)),
        ),
        widths=(0.4, 0.2, 0.4),
    )
    if sensitivity is None or specificity is None:
        return (table,)
    curve = Series("all thresholds", roc_curve(decision.positives, decision.negatives))
    here = Series("operating threshold", ((1 - specificity.value, sensitivity.value),), True)
    chart = LineChart(
        "ROC of the decision", "1 - specificity", "sensitivity", (curve, here), diagonal=True
    )
    return (table, chart)


def _by_name(
    evaluation: SiteEvaluation,
) -> Iterable[tuple[str, ScoreHistogram, ScoreHistogram]]:
    return zip(evaluation.classes, evaluation.positives, evaluation.negatives, strict=True)
