"""Checks on what a candidate scored: against chance, floors, the champion, sites and subgroups."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.evaluation import Counts
from common.evaluation_figures import calibration_bins, calibration_error, rates_at, threshold_for
from common.release import GateCheck
from server.evaluation import (
    balanced_accuracy_upper_bound,
    macro_auroc_lower_bound,
    merged,
    on_common_sites,
    pooled_metrics,
)
from server.evaluation_intervals import (
    Estimate,
    auroc_estimate,
    difference_lower_bound,
    mean_estimate,
)
from server.gate.evidence import Evidence
from server.gate.verdicts import at_least, at_most, verdict


def performance_checks(evidence: Evidence) -> list[GateCheck]:
    """Return the verdicts, in a fixed order."""
    limits = evidence.limits
    checks = [*_against_majority(evidence), _macro_auroc_floor(evidence)]
    if limits.accuracy_floor is not None:
        checks += _accuracy(evidence, limits.accuracy_floor)
    if limits.wanted_sensitivity is not None or limits.sensitivity_floor is not None:
        checks.append(_sensitivity(evidence))
    if limits.calibration_error_ceiling is not None:
        checks.append(_calibration(evidence))
    if limits.worst_site_auroc_floor is not None:
        checks.append(_worst_site(evidence))
    if limits.worst_subgroup_auroc_floor is not None:
        checks.append(_worst_subgroup(evidence))
    return checks


def operating_threshold(evidence: Evidence) -> float:
    """Return the threshold that the candidate would be released with.

    The highest that reaches ``wanted_sensitivity`` on all holdouts that told of it; the recipe's
    where none is wanted, or it cannot be told (then the gate's check on it fails).
    """
    wanted, total = evidence.limits.wanted_sensitivity, merged(evidence.candidate)
    if wanted is not None and total is not None and total.decision is not None:
        chosen = threshold_for(total.decision, wanted)
        if chosen is not None:
            return chosen
    return evidence.recipe.decision.threshold


def champion_checks(evidence: Evidence) -> list[GateCheck]:
    """Return the verdicts beside the current release; none where there is no release."""
    if evidence.champion is None:
        return []
    limits = evidence.limits
    new, old = on_common_sites(evidence.candidate, evidence.champion)
    before = pooled_metrics(old, evidence.recipe.classes).macro_auroc
    margin = limits.non_inferiority_margin
    checks = [
        at_least(
            "champion-non-inferiority",
            pooled_metrics(new, evidence.recipe.classes).macro_auroc,
            1.0 if before is None else before - margin,
            f"Macro AUROC on the {len(new)} sites that scored both; the limit is the current "
            f"release's, less {margin:g}.",
        )
    ]
    if limits.interval_margin is not None:
        after, earlier = merged(new), merged(old)
        figure = None
        if after is not None and earlier is not None:
            figure = difference_lower_bound(
                after, earlier, correlation=limits.champion_correlation, generator=_generator()
            )
        checks.append(
            at_least(
                "champion-interval",
                figure,
                -limits.interval_margin,
                "Lower 95 % bound of the gain in macro AUROC over the current release, on the "
                f"same patients (correlation {limits.champion_correlation:g} assumed).",
                limits,
            )
        )
    return checks


def _against_majority(evidence: Evidence) -> tuple[GateCheck, GateCheck]:
    total = merged(evidence.candidate)
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    present = sum(value is not None for value in found.sensitivity)
    bound = None if total is None else macro_auroc_lower_bound(total)
    return (
        verdict(
            "majority-auroc",
            bound,
            0.5,
            bound is not None and bound > 0.5,
            "Lower 95 % bound of macro AUROC; always the majority class has 0.5.",
        ),
        at_least(
            "majority-balanced-accuracy",
            None if total is None else balanced_accuracy_upper_bound(total),
            1 / present if present else 1.0,
            "Balanced accuracy, cells too small to be told counted as right; the limit is that of "
            "always answering the majority class.",
        ),
    )


def _macro_auroc_floor(evidence: Evidence) -> GateCheck:
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    floor = evidence.limits.macro_auroc_floor
    return at_least("macro-auroc-floor", found.macro_auroc, floor, "Macro AUROC.")


def _accuracy(evidence: Evidence, floor: float) -> list[GateCheck]:
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    baseline = 1.0 if found.majority_baseline is None else found.majority_baseline
    return [
        at_least("accuracy-floor", found.accuracy, floor, "Accuracy."),
        at_least(
            "majority-accuracy",
            found.accuracy,
            baseline,
            "Accuracy; the limit is that of always answering the majority class.",
        ),
    ]


def _sensitivity(evidence: Evidence) -> GateCheck:
    limits, total = evidence.limits, merged(evidence.candidate)
    threshold = operating_threshold(evidence)
    figure, other = None, None
    if total is not None and total.decision is not None:
        rates = rates_at(total.decision, threshold)
        figure, other = rates.sensitivity, rates.specificity
    floors = [f for f in (limits.wanted_sensitivity, limits.sensitivity_floor) if f is not None]
    return at_least(
        "sensitivity-floor",
        # A threshold that was chosen for a sensitivity reaches it but for rounding.
        None if figure is None else min(1.0, figure + 1e-6),
        max(floors),
        f"Sensitivity for the positive classes at the operating threshold {threshold:.4f}"
        + (f" (specificity there: {other:.3f})." if other is not None else "."),
        limits,
    )


def _calibration(evidence: Evidence) -> GateCheck:
    total = merged(evidence.candidate)
    counts = None if total is None else total.calibration
    return at_most(
        "calibration-error",
        None if counts is None else calibration_error(calibration_bins(counts)),
        evidence.limits.calibration_error_ceiling,
        "Expected calibration error of the class with the highest probability, 15 bins.",
        evidence.limits,
    )


def _worst_site(evidence: Evidence) -> GateCheck:
    floor = evidence.limits.worst_site_auroc_floor
    return _worst("worst-site", "site", evidence.candidate, evidence, floor)


def _worst_subgroup(evidence: Evidence) -> GateCheck:
    total = merged(evidence.candidate)
    parts = {} if total is None else {f"{s.axis} {s.group}": s.counts for s in total.subgroups}
    floor = evidence.limits.worst_subgroup_auroc_floor
    return _worst("worst-subgroup", "subgroup", parts, evidence, floor)


def _worst(
    name: str, kind: str, parts: Mapping[str, Counts], evidence: Evidence, floor: float | None
) -> GateCheck:
    """Hold the smallest upper bound of the parts' macro AUROC against the floor.

    The upper one: a part of few patients fails only where its figures show it to be below.
    """
    found: dict[str, Estimate] = {}
    generator = _generator()
    for part, counts in sorted(parts.items()):
        sides = zip(counts.positives, counts.negatives, strict=True)
        estimate = mean_estimate(tuple(auroc_estimate(p, n, generator) for p, n in sides))
        if estimate is not None:
            found[part] = estimate
    worst = min(found, key=lambda part: found[part].upper) if found else None
    words = f"Upper end of the 95 % interval of macro AUROC at the worst {kind}"
    if worst is not None:
        words += f", {worst} ({found[worst].value:.3f}); {len(found)} of {len(parts)} could be told"
    figure = None if worst is None else found[worst].upper
    return at_least(name, figure, floor, f"{words}.", evidence.limits)


def _generator() -> np.random.Generator:
    # The same evidence must give the same verdict.
    return np.random.default_rng(20_240_917)
