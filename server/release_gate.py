"""The release gate: named checks on a candidate, each with its figure, its limit and a verdict.

A check that lacks its figure fails: no evidence, no release.

On the majority baseline: always answering the most frequent class has a macro AUROC of exactly
0.5 and a balanced accuracy of exactly one over the number of classes, however unequal the
classes are. A candidate is held to both, the first with 95 % confidence. Plain accuracy is held
to the majority's share where the recipe itself judges by accuracy (sets an ``accuracy_floor``):
a network that is trained to weigh a missed cancer more rightly trades accuracy away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from common.recipe import Recipe
from common.release import GateCheck
from common.update import Tensors
from server.evaluation import (
    BySite,
    balanced_accuracy_upper_bound,
    macro_auroc_lower_bound,
    merged,
    on_common_sites,
    pooled_metrics,
)
from server.registry.records import Contribution

ROUNDING = 1e-9


@dataclass(frozen=True)
class Evidence:
    """What the gate judges by.

    Attributes
    ----------
    recipe : Recipe
        Whose `ReleaseGateSpec` sets the limits.
    epsilon : float or None
        What the campaign asked for; None without privacy.
    tensors : mapping of str to ndarray
        The candidate's weights.
    candidate : mapping of str to SiteEvaluation
        Its evaluation by site.
    champion : mapping of str to SiteEvaluation or None
        The current release's, in the same campaign; None when there is no release.
    accepted : tuple of Contribution
        All updates that were taken in.
    """

    recipe: Recipe
    epsilon: float | None
    tensors: Tensors
    candidate: BySite
    champion: BySite | None
    accepted: tuple[Contribution, ...]


def judge(evidence: Evidence) -> tuple[GateCheck, ...]:
    """Return all verdicts, in a fixed order. Every one must pass."""
    checks = [
        _weights_finite(evidence.tensors),
        _minimum_sites(evidence),
        _evaluated_sites(evidence),
        _receipts_complete(evidence),
        *_against_majority(evidence),
        _macro_auroc_floor(evidence),
    ]
    if evidence.recipe.release.accuracy_floor is not None:
        checks += _accuracy(evidence, evidence.recipe.release.accuracy_floor)
    if evidence.champion is not None:
        checks.append(_non_inferiority(evidence, evidence.champion))
    return tuple(checks)


def _weights_finite(tensors: Tensors) -> GateCheck:
    faulty = sum(
        not np.isfinite(array).all()
        for array in tensors.values()
        if np.issubdtype(array.dtype, np.floating)
    )
    return GateCheck(
        name="weights-finite",
        passed=bool(tensors) and faulty == 0,
        figure=float(faulty),
        limit=0.0,
        explanation="Tensors that hold a value which is not finite.",
    )


def _minimum_sites(evidence: Evidence) -> GateCheck:
    sites = len({contribution.site for contribution in evidence.accepted})
    return _at_least(
        "minimum-sites",
        sites,
        evidence.recipe.release.minimum_sites,
        "Sites whose updates were taken in.",
    )


def _evaluated_sites(evidence: Evidence) -> GateCheck:
    sites = sum(evaluation.cases > 0 for evaluation in evidence.candidate.values())
    return _at_least(
        "evaluated-sites",
        sites,
        evidence.recipe.release.minimum_sites,
        "Sites that scored the candidate on their holdout patients.",
    )


def _receipts_complete(evidence: Evidence) -> GateCheck:
    incomplete = sum(not _complete(c, evidence.epsilon) for c in evidence.accepted)
    return GateCheck(
        name="receipts-complete",
        passed=bool(evidence.accepted) and incomplete == 0,
        figure=float(incomplete),
        limit=0.0,
        explanation="Updates without a receipt of what they cost in privacy.",
    )


def _complete(contribution: Contribution, epsilon: float | None) -> bool:
    receipt = contribution.receipt
    if receipt is None or receipt.update_digest is None:
        return False
    if epsilon is None:
        return True
    stated = (receipt.epsilon_life, receipt.delta, receipt.max_grad_norm, receipt.noise_multiplier)
    return (
        receipt.privacy_unit == "patient"
        and None not in stated
        and receipt.epsilon_campaign is not None
        and receipt.epsilon_campaign <= epsilon * (1 + 1e-6)
    )


def _against_majority(evidence: Evidence) -> tuple[GateCheck, GateCheck]:
    total = merged(evidence.candidate)
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    present = sum(value is not None for value in found.sensitivity)
    bound = None if total is None else macro_auroc_lower_bound(total)
    return (
        GateCheck(
            name="majority-auroc",
            passed=bound is not None and bound > 0.5,
            figure=bound,
            limit=0.5,
            explanation="Lower 95 % bound of macro AUROC; always the majority class has 0.5.",
        ),
        _at_least(
            "majority-balanced-accuracy",
            None if total is None else balanced_accuracy_upper_bound(total),
            1 / present if present else 1.0,
            "Balanced accuracy, cells too small to be told counted as right; the limit is that of "
            "always answering the majority class.",
        ),
    )


def _macro_auroc_floor(evidence: Evidence) -> GateCheck:
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    floor = evidence.recipe.release.macro_auroc_floor
    return _at_least("macro-auroc-floor", found.macro_auroc, floor, "Macro AUROC.")


def _accuracy(evidence: Evidence, floor: float) -> list[GateCheck]:
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    baseline = 1.0 if found.majority_baseline is None else found.majority_baseline
    return [
        _at_least("accuracy-floor", found.accuracy, floor, "Accuracy."),
        _at_least(
            "majority-accuracy",
            found.accuracy,
            baseline,
            "Accuracy; the limit is that of always answering the majority class.",
        ),
    ]


def _non_inferiority(evidence: Evidence, champion: BySite) -> GateCheck:
    new, old = on_common_sites(evidence.candidate, champion)
    before = pooled_metrics(old, evidence.recipe.classes).macro_auroc
    margin = evidence.recipe.release.non_inferiority_margin
    return _at_least(
        "champion-non-inferiority",
        pooled_metrics(new, evidence.recipe.classes).macro_auroc,
        1.0 if before is None else before - margin,
        f"Macro AUROC on the {len(new)} sites that scored both; the limit is the current "
        f"release's, less {margin:g}.",
    )


def _at_least(name: str, figure: float | None, limit: float, explanation: str) -> GateCheck:
    passed = figure is not None and math.isfinite(figure) and figure >= limit - ROUNDING
    return GateCheck(
        name=name,
        passed=passed,
        figure=None if figure is None else float(figure),
        limit=float(limit),
        explanation=explanation,
    )


def failures(checks: tuple[GateCheck, ...]) -> tuple[str, ...]:
    """Return the names of the checks that failed."""
    return tuple(check.name for check in checks if not check.passed)
