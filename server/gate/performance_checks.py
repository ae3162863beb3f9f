"""Checks on what a candidate scored over all sites: chance, floors, and the champion."""

from __future__ import annotations

import numpy as np

from common.evaluation_figures import calibration_bins, calibration_error, rates_at
from common.release import GateCheck
from server.evaluation import BySite, compared, merged, on_common_sites, pooled_metrics
from server.evaluation_intervals import difference_lower_bound
from server.gate.chance_checks import accuracy_checks, against_majority
from server.gate.evidence import Evidence
from server.gate.operating_point import operating_threshold
from server.gate.part_checks import MOST_NAMED, worst_site, worst_subgroup
from server.gate.site_sensitivity import worst_site_sensitivity
from server.gate.verdicts import at_least, at_most


def performance_checks(evidence: Evidence) -> list[GateCheck]:
    """Return the verdicts, in a fixed order."""
    limits = evidence.limits
    checks = [*against_majority(evidence), _macro_auroc_floor(evidence)]
    if limits.accuracy_floor is not None:
        checks += accuracy_checks(evidence, limits.accuracy_floor)
    if limits.wanted_sensitivity is not None or limits.sensitivity_floor is not None:
        checks.append(_sensitivity(evidence))
    if limits.wanted_sensitivity is not None or limits.worst_site_sensitivity_floor is not None:
        checks.append(worst_site_sensitivity(evidence))
    if limits.calibration_error_ceiling is not None:
        checks.append(_calibration(evidence))
    if limits.worst_site_auroc_floor is not None:
        checks.append(worst_site(evidence))
    if limits.worst_subgroup_auroc_floor is not None:
        checks.append(worst_subgroup(evidence))
    return checks


def champion_checks(evidence: Evidence) -> list[GateCheck]:
    """Return the verdicts beside the current release; none where there is no release."""
    if evidence.champion is None:
        return []
    limits = evidence.limits
    new, old = on_common_sites(evidence.candidate, evidence.champion)
    checks = [_non_inferiority(evidence, new, old)]
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


def _non_inferiority(evidence: Evidence, new: BySite, old: BySite) -> GateCheck:
    found = compared(new, old, evidence.recipe.classes)
    margin = evidence.limits.non_inferiority_margin
    words = (
        f"Macro AUROC on the {len(new)} sites that scored both, over the classes that both have "
        f"one for; the limit is the current release's, less {margin:g}."
    )
    if found.lacks:
        more = len(found.lacks) - MOST_NAMED
        names = ", ".join(found.lacks[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        words += f" The candidate has none for {names}, where the current release has."
    limit = 1.0 if found.old is None else found.old - margin
    return at_least("champion-non-inferiority", found.new, limit, words[:380])


def _macro_auroc_floor(evidence: Evidence) -> GateCheck:
    found = pooled_metrics(evidence.candidate, evidence.recipe.classes)
    floor = evidence.limits.macro_auroc_floor
    return at_least("macro-auroc-floor", found.macro_auroc, floor, "Macro AUROC.")


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


def _generator() -> np.random.Generator:
    # The same evidence must give the same verdict.
    return np.random.default_rng(20_240_917)
