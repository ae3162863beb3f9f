"""The check that no site is surely far below the sensitivity that a release promises.

The operating threshold is chosen on the sum of all sites' counts. A site that claims very many
cases with invented scores therefore chooses it alone, and the sum still shows the sensitivity that
was wanted. What it cannot invent are the other sites' own counts: at a false threshold their
sensitivities are far below. The upper end of each site's interval is held against the floor, so
that neither honest differences between hospitals nor a handful of cases stop a release.
"""

from __future__ import annotations

from common.evaluation_figures import rates_at
from common.recipe import ReleaseGateSpec
from common.release import GateCheck
from server.evaluation_intervals import Estimate, proportion
from server.gate.evidence import Evidence
from server.gate.operating_point import operating_threshold
from server.gate.part_checks import named_unjudged
from server.gate.verdicts import at_least

NAME = "worst-site-sensitivity"
FAR_BELOW = 0.2
"""Below the wanted sensitivity, where the limits set no floor of their own."""
_BELOW = (
    " What the release promises is surely not so there: its patients differ, or another site's "
    "counts are false."
)


def worst_site_sensitivity(evidence: Evidence) -> GateCheck:
    """Hold the most that the sensitivity at each site may be against the floor."""
    threshold = operating_threshold(evidence)
    told = sorted(site for site, found in evidence.candidate.items() if found.cases)
    judged = {
        site: estimate
        for site in told
        if (estimate := _at_site(evidence, site, threshold)) is not None
    }
    unjudged = tuple(site for site in told if site not in judged)
    worst = min(judged, key=lambda site: judged[site].upper) if judged else None
    words = f"The most that a site's sensitivity may be at the operating threshold {threshold:.4f}"
    if worst is not None:
        found = judged[worst]
        words += (
            f", where it is lowest: {worst}, which finds {found.value:.3f} of its positive cases "
            f"(95 % {found.lower:.3f} to {found.upper:.3f})"
        )
    words += f". {len(judged)} of {len(told)} judged." + named_unjudged(
        unjudged, "No positive cases told of:"
    )
    figure, floor = None if worst is None else judged[worst].upper, _floor(evidence)
    if figure is not None and floor is not None and figure < floor:
        words += _BELOW
    check = at_least(NAME, figure, floor, words[:380], _waived(evidence.limits))
    return check.model_copy(update={"unjudged": unjudged})


def _waived(limits: ReleaseGateSpec) -> ReleaseGateSpec:
    """Return limits that waive this check, too, where they waive `sensitivity-floor`.

    Both lack their figure where no site releases the same counts, and protocols that were locked
    before there was this check can name the other alone.
    """
    if "sensitivity-floor" not in limits.not_required:
        return limits
    return limits.model_copy(update={"not_required": (*limits.not_required, NAME)})


def _at_site(evidence: Evidence, site: str, threshold: float) -> Estimate | None:
    """Return a site's sensitivity with Wilson's interval; None where no positive case is told."""
    decision = evidence.candidate[site].decision
    if decision is None:
        return None
    share, cases = rates_at(decision, threshold).sensitivity, decision.positives.total
    return None if share is None else proportion(share * cases, cases)


def _floor(evidence: Evidence) -> float | None:
    limits = evidence.limits
    if limits.worst_site_sensitivity_floor is not None:
        return limits.worst_site_sensitivity_floor
    if limits.wanted_sensitivity is None:
        return None
    return max(0.0, round(limits.wanted_sensitivity - FAR_BELOW, 6))
