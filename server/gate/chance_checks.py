"""Checks against always giving the same answer: above it, and surely so.

A model that answers with the most frequent class whatever it sees has a macro AUROC of exactly
0.5, a balanced accuracy of exactly one over the number of classes, and the majority's share as its
accuracy. To equal these is to know nothing, and one lucky case above them is no better: the lower
end of a 95 % interval must be above.

What counts as an answer is what a release answers with: the positive verdict at its operating
threshold, where the sites tell of it. A network that ranks well but whose highest probability is
always that of the frequent class (as after few private rounds) answers usefully at a threshold
that was chosen for a sensitivity; one whose scores are all alike does not at any. Where no site
tells of the verdict, it is the class with the highest probability.
"""

from __future__ import annotations

from common.release import GateCheck
from server.evaluation import (
    balanced_accuracy_lower_bound,
    macro_auroc_lower_bound,
    merged,
    pooled_metrics,
    verdict_lower_bound,
)
from server.evaluation_intervals import NORMAL_95, proportion
from server.gate.evidence import Evidence
from server.gate.operating_point import operating_threshold
from server.gate.verdicts import above, at_least


def against_majority(evidence: Evidence) -> tuple[GateCheck, GateCheck]:
    """Hold macro AUROC and balanced accuracy against those of a constant answer."""
    total = merged(evidence.candidate)
    return (
        above(
            "majority-auroc",
            None if total is None else macro_auroc_lower_bound(total),
            0.5,
            "Lower 95 % bound of macro AUROC; always the majority class has 0.5.",
        ),
        _balanced_accuracy(evidence),
    )


def _balanced_accuracy(evidence: Evidence) -> GateCheck:
    name, total = "majority-balanced-accuracy", merged(evidence.candidate)
    if total is not None and total.decision is not None:
        threshold = operating_threshold(evidence)
        bound = verdict_lower_bound(total.decision, threshold)
        if bound is not None:
            words = f"Lower 95 % bound of the verdict's balanced accuracy at {threshold:.4f}"
            return above(name, bound, 0.5, f"{words}; always the same verdict has 0.5.")
    present = 0 if total is None else sum(n > 0 for n in total.totals())
    return above(
        name,
        balanced_accuracy_lower_bound(evidence.candidate),
        1 / present if present else 1.0,
        "Lower 95 % bound of balanced accuracy, what small cells hide counted as right; it must be "
        "above that of always answering the majority class.",
    )


def accuracy_checks(evidence: Evidence, floor: float) -> list[GateCheck]:
    """Hold accuracy against its floor, and against the majority's share."""
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    sure = None
    if found.accuracy is not None:
        sure = proportion(found.accuracy * found.count, found.count, normal=NORMAL_95)
    return [
        at_least("accuracy-floor", found.accuracy, floor, "Accuracy."),
        above(
            "majority-accuracy",
            None if sure is None else sure.lower,
            1.0 if found.majority_baseline is None else found.majority_baseline,
            "Lower 95 % bound of accuracy; it must be above that of always answering the "
            "majority class.",
        ),
    ]
