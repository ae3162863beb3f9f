"""The figures that a report gives of any set of holdout cases: all, a site's, a subgroup's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.evaluation_counts import CalibrationCounts, Counts, DecisionCounts
from common.evaluation_figures import calibration_bins, calibration_error, rates_at
from server.calibration_interval import calibration_estimate
from server.evaluation_intervals import (
    Estimate,
    auroc_estimate,
    average_precision_estimate,
    mean_estimate,
    proportion,
)
from server.reports.words import NOTHING, figure

SEED = 20240
"""Of the bootstrap: the same counts give the same report, to the byte."""


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest."""

    name: str
    cases: int
    auroc: Estimate | None
    precision: Estimate | None


@dataclass(frozen=True)
class GroupScores:
    """A set of cases. The rates are the decision's at the operating threshold."""

    name: str
    cases: int
    macro_auroc: Estimate | None
    sensitivity: Estimate | None
    specificity: Estimate | None
    calibration_error: float | None


def class_scores(counts: Counts) -> tuple[ClassScores, ...]:
    """Return each class's ranking, with bootstrap intervals."""
    generator = np.random.default_rng(SEED)
    sides = zip(counts.classes, counts.positives, counts.negatives, strict=True)
    return tuple(
        ClassScores(
            name,
            positive.total,
            auroc_estimate(positive, negative, generator),
            average_precision_estimate(positive, negative, generator),
        )
        for name, positive, negative in sides
    )


def group_scores(name: str, counts: Counts, threshold: float) -> GroupScores:
    """Return the figures of a site or a subgroup."""
    generator = np.random.default_rng(SEED)
    sides = zip(counts.positives, counts.negatives, strict=True)
    areas = tuple(auroc_estimate(positive, negative, generator) for positive, negative in sides)
    rates = decision_rates(counts.decision, threshold)
    told = counts.calibration
    return GroupScores(
        name=name,
        cases=counts.cases,
        macro_auroc=mean_estimate(areas),
        sensitivity=rates[0],
        specificity=rates[1],
        calibration_error=None if told is None else calibration_error(calibration_bins(told)),
    )


def decision_rates(
    decision: DecisionCounts | None, threshold: float
) -> tuple[Estimate | None, Estimate | None]:
    """Return sensitivity and specificity at a threshold, with Wilson's intervals."""
    if decision is None:
        return None, None
    rates = rates_at(decision, threshold)
    positives, negatives = decision.positives.total, decision.negatives.total
    return (
        proportion((rates.sensitivity or 0.0) * positives, positives),
        proportion((rates.specificity or 0.0) * negatives, negatives),
    )


def calibration_interval(counts: CalibrationCounts) -> Estimate | None:
    """Return the expected calibration error of the answer, with its bootstrap interval."""
    return calibration_estimate(counts, np.random.default_rng(SEED))


def with_interval(estimate: Estimate | None) -> str:
    """Return ``0.812 (0.790 to 0.834)``, a dash where there is none."""
    if estimate is None:
        return NOTHING
    return f"{figure(estimate.value)} ({figure(estimate.lower)} to {figure(estimate.upper)})"
