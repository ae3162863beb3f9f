"""The release gate: named checks on a candidate, each with its figure, its limit and a verdict.

A check that lacks its figure fails: no evidence, no release. The only exceptions are the checks
that the protocol names as not required. ``docs/release-gate.md`` lists all of them.

On the majority baseline: always answering the most frequent class has a macro AUROC of exactly
0.5 and a balanced accuracy of exactly one over the number of classes, however unequal the
classes are. A candidate must be above both with 95 % confidence. Plain accuracy is held to the
majority's share, likewise, where the recipe itself judges by accuracy (sets an ``accuracy_floor``):
a network that is trained to weigh a missed cancer more rightly trades accuracy away.
"""

from __future__ import annotations

from common.release import GateCheck
from server.gate.evidence import Evidence
from server.gate.performance_checks import champion_checks, performance_checks
from server.gate.training_checks import training_checks

__all__ = ["Evidence", "failures", "judge"]


def judge(evidence: Evidence) -> tuple[GateCheck, ...]:
    """Return all verdicts, in a fixed order. Every one must pass."""
    return (
        *training_checks(evidence),
        *performance_checks(evidence),
        *champion_checks(evidence),
    )


def failures(checks: tuple[GateCheck, ...]) -> tuple[str, ...]:
    """Return the names of the checks that failed."""
    return tuple(check.name for check in checks if not check.passed)
