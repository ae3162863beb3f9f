"""Checks on the worst of many parts: sites, age bands and sexes.

The rule is that of somebody who answers for patients:

1. A part is judged by what it scored, not by what it might have: a figure below the floor fails,
   whatever its interval. The figure is the mean AUROC of the classes of which the part has at
   least ``judged_cases`` cases, and as many cases of the other classes.
2. A part without such a class has *not enough cases to judge*. It is named, and neither passes nor
   fails; if none can be judged, the check lacks its figure.
3. But a part whose whole 95 % interval, over all its classes, lies below the floor fails, however
   few its cases are: they have shown harm already.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.evaluation import Counts
from common.release import GateCheck
from server.evaluation import merged
from server.evaluation_intervals import Estimate, auroc_estimate, mean_estimate
from server.gate.evidence import Evidence
from server.gate.verdicts import at_least

MOST_NAMED = 8


def worst_site(evidence: Evidence) -> GateCheck:
    """Hold every site that scored the candidate against the floor."""
    told = {site: found for site, found in evidence.candidate.items() if found.cases}
    return _worst("worst-site", "site", told, evidence, evidence.limits.worst_site_auroc_floor)


def worst_subgroup(evidence: Evidence) -> GateCheck:
    """Hold every age band and sex, over the sites that tell of them, against the floor."""
    total = merged(evidence.candidate)
    parts = {} if total is None else {f"{s.axis} {s.group}": s.counts for s in total.subgroups}
    floor = evidence.limits.worst_subgroup_auroc_floor
    return _worst("worst-subgroup", "subgroup", parts, evidence, floor)


def _worst(
    name: str, kind: str, parts: Mapping[str, Counts], evidence: Evidence, floor: float | None
) -> GateCheck:
    minimum = evidence.limits.judged_cases
    judged = {
        part: estimate
        for part, counts in sorted(parts.items())
        if (estimate := _judged(counts, minimum, floor)) is not None
    }
    unjudged = tuple(sorted(parts.keys() - judged.keys()))
    worst = min(judged, key=lambda part: judged[part].value) if judged else None
    words = f"Macro AUROC at the worst {kind}"
    if worst is not None:
        words += f", {worst} (95 % {judged[worst].lower:.3f} to {judged[worst].upper:.3f})"
    words += f"; {len(judged)} of {len(parts)} judged."
    why = f"Not enough cases to judge ({minimum} of a class and of the others):"
    words += named_unjudged(unjudged, why)
    figure = None if worst is None else judged[worst].value
    check = at_least(name, figure, floor, words[:380], evidence.limits)
    return check.model_copy(update={"unjudged": unjudged})


def named_unjudged(parts: tuple[str, ...], why: str) -> str:
    """Return the sentence on parts that were not judged, with a space before it; none of none."""
    if not parts:
        return ""
    more = len(parts) - MOST_NAMED
    names = ", ".join(parts[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f" {why} {names}."


def _judged(counts: Counts, minimum: int, floor: float | None) -> Estimate | None:
    """Return what a part is judged by; None where it has not enough cases."""
    # A generator of the part's own: what stands beside a part does not move its interval.
    generator = np.random.default_rng(20_240_917)
    enough: list[Estimate | None] = []
    every: list[Estimate | None] = []
    for positive, negative in zip(counts.positives, counts.negatives, strict=True):
        estimate = auroc_estimate(positive, negative, generator)
        every.append(estimate)
        if min(positive.total, negative.total) >= minimum:
            enough.append(estimate)
    judged, whole = mean_estimate(tuple(enough)), mean_estimate(tuple(every))
    if whole is None or floor is None or whole.upper >= floor:
        return judged
    # Even the most that it can be is below, over few cases or many.
    return whole if judged is None or whole.value < judged.value else judged
