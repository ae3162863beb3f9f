"""Evaluations of many sites as one: sums, metrics, and what they are surely above."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from common.evaluation import Metrics, SiteEvaluation, evaluate_predictions, merge, metrics
from common.evaluation_counts import DecisionCounts
from common.evaluation_figures import rates_at
from server.evaluation_intervals import NORMAL_95, Estimate, proportion

logger = logging.getLogger(__name__)

BySite = Mapping[str, SiteEvaluation]


def merged(evaluations: BySite) -> SiteEvaluation | None:
    """Return the sum over sites; None when no site reported a case.

    A site whose counts no sum can hold (a cell of more than a thousand million cases) is left
    out, and the log names it: one report ends no campaign.
    """
    told = {site: one for site, one in evaluations.items() if one.cases}
    if not told:
        return None
    try:
        return merge(list(told.values()))
    except ValidationError:
        return _one_by_one(told)


def _one_by_one(told: BySite) -> SiteEvaluation | None:
    total: SiteEvaluation | None = None
    for site, one in told.items():
        try:
            total = one if total is None else merge([total, one])
        except ValidationError:
            logger.warning("evaluation-left-out site=%s", site)
    return total


def pooled_metrics(evaluations: BySite, classes: tuple[str, ...]) -> Metrics:
    """Return the metrics of the sum; all None and a count of 0 when there is none."""
    total = merged(evaluations)
    if total is None:
        nobody = np.zeros((0, len(classes)))
        total = evaluate_predictions(nobody, np.zeros(0, dtype=np.int64), classes, minimum_cell=1)
    return metrics(total)


@dataclass(frozen=True)
class Compared:
    """Macro AUROCs of two models, ``new`` and ``old``, over the classes that have one in both.

    A class's AUROC is defined or not by its cases, not by the model, and classes are not alike
    easy: means over different classes say nothing of the models. Both are None where nothing can
    be compared, and ``new`` where it ``lacks`` classes that the old one has: what became of these
    is not known.
    """

    new: float | None
    old: float | None
    lacks: tuple[str, ...]


def compared(new: BySite, old: BySite, classes: tuple[str, ...]) -> Compared:
    """Compare pooled macro AUROCs; give the sites that are in both (`on_common_sites`)."""
    here, there = (pooled_metrics(one, classes).auroc for one in (new, old))
    pairs = list(zip(classes, here, there, strict=True))
    both = [(a, b) for _, a, b in pairs if a is not None and b is not None]
    lacks = tuple(name for name, a, b in pairs if a is None and b is not None)
    if not both:
        return Compared(None, None, lacks)
    after, before = (sum(column) / len(both) for column in zip(*both, strict=True))
    return Compared(None if lacks else after, before, lacks)


def on_common_sites(first: BySite, second: BySite) -> tuple[BySite, BySite]:
    """Restrict two evaluations to the sites that reported cases in both.

    Only then do they speak of the same holdout patients.
    """
    common = {
        site for site in first.keys() & second.keys() if first[site].cases and second[site].cases
    }
    return {s: first[s] for s in sorted(common)}, {s: second[s] for s in sorted(common)}


def macro_auroc_lower_bound(evaluation: SiteEvaluation) -> float | None:
    """Return the one-sided 95 % lower confidence bound of the macro AUROC.

    Each class's standard error is that of Hanley and McNeil 1982
    (doi:10.1148/radiology.143.1.7063747). The classes share their cases, so their AUROCs depend
    on each other in a way that the counts do not tell: the mean of the standard errors is the
    largest that the standard error of the mean can be.
    """
    found = metrics(evaluation)
    if found.macro_auroc is None:
        return None
    errors = [
        _standard_error(area, positive.total, negative.total)
        for area, positive, negative in zip(
            found.auroc, evaluation.positives, evaluation.negatives, strict=True
        )
        if area is not None
    ]
    return found.macro_auroc - NORMAL_95 * sum(errors) / len(errors)


def most_correct(evaluation: SiteEvaluation) -> tuple[int, ...]:
    """Return how many answers of each class one site may have got right, whatever it hides.

    ``unresolved`` answers are errors that were pooled, and right answers that were hidden with
    them. How many of these there can be follows from `common.evaluation_suppression.suppress_row`:
    where right answers are told, at most ``minimum_cell`` - 1 were taken from them, and only to
    raise the errors to ``minimum_cell``; where none are told, there were fewer than twice as many.
    """
    minimum, found = evaluation.minimum_cell, []
    for index, (row, unresolved) in enumerate(
        zip(evaluation.confusion, evaluation.unresolved, strict=True)
    ):
        if row[index]:
            hidden = minimum - 1 if unresolved == minimum else 0
        else:
            hidden = min(unresolved, max(0, 2 * minimum - 2))
        found.append(row[index] + hidden)
    return tuple(found)


def balanced_accuracy_lower_bound(evaluations: BySite) -> float | None:
    """Return the one-sided 95 % lower bound of the balanced accuracy; None without a case.

    What suppression hides is taken to be right (`most_correct`): with few holdout patients a site
    most answers are hidden, and otherwise every model would be refused. Each class's sensitivity
    has Wilson's bound; cases of different classes are different draws, so the distances to the
    bounds add up as squares (MOVER: Zou and Donner 2008, doi:10.1002/sim.3095).
    """
    told = [one for one in evaluations.values() if one.cases]
    if not told:
        return None
    right = np.array([most_correct(one) for one in told]).sum(axis=0)
    cases = np.array([one.totals() for one in told]).sum(axis=0)
    found = [
        proportion(hits, n, normal=NORMAL_95)
        for hits, n in zip(right.tolist(), cases.tolist(), strict=True)
    ]
    return _mean_lower_bound([part for part in found if part is not None])


def verdict_lower_bound(counts: DecisionCounts, threshold: float) -> float | None:
    """Return the same bound of the mean of sensitivity and specificity at a threshold."""
    rates = rates_at(counts, threshold)
    sides = (
        (rates.sensitivity, counts.positives.total),
        (rates.specificity, counts.negatives.total),
    )
    parts = [
        proportion(share * cases, cases, normal=NORMAL_95)
        for share, cases in sides
        if share is not None
    ]
    both = [part for part in parts if part is not None]
    return _mean_lower_bound(both) if len(both) == 2 else None


def _mean_lower_bound(parts: Sequence[Estimate]) -> float:
    middle = sum(part.value for part in parts) / len(parts)
    slack = math.sqrt(sum((part.value - part.lower) ** 2 for part in parts)) / len(parts)
    return max(0.0, middle - slack)


def _standard_error(area: float, positives: int, negatives: int) -> float:
    # A perfect ranking of very few cases is no certainty: half a pair is taken as wrong.
    area = min(area, 1 - 0.5 / (positives * negatives))
    first = area / (2 - area)
    second = 2 * area**2 / (1 + area)
    spread = (
        area * (1 - area)
        + (positives - 1) * (first - area**2)
        + (negatives - 1) * (second - area**2)
    )
    return math.sqrt(max(spread, 0.0) / (positives * negatives))
