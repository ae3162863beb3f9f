"""The threshold of the positive verdict that a candidate would be released with."""

from __future__ import annotations

from common.evaluation_figures import threshold_for
from server.evaluation import merged
from server.gate.evidence import Evidence


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
