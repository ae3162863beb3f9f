"""Checks on how a candidate came about: weights, sites, privacy, protocol."""

from __future__ import annotations

import math

import numpy as np

from common.release import GateCheck
from common.update import Tensors
from common.wording import number
from server.gate.evidence import Evidence
from server.gate.verdicts import at_least, at_most
from server.registry.records import Contribution


def training_checks(evidence: Evidence) -> list[GateCheck]:
    """Return the verdicts, in a fixed order."""
    checks = [
        _weights_finite(evidence.tensors),
        _minimum_sites(evidence),
        _evaluated_sites(evidence),
        _receipts_complete(evidence),
    ]
    if evidence.limits.largest_change is not None:
        checks.append(_change(evidence))
    if evidence.epsilon is not None or evidence.limits.epsilon_ceiling is not None:
        checks.append(_privacy_spent(evidence))
    if evidence.protocol is not None or evidence.locked is not None:
        checks.append(_protocol_locked(evidence))
    return checks


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


def _change(evidence: Evidence) -> GateCheck:
    """Hold the distance to the model that the campaign started from against its norm."""
    figure = None
    base, new = evidence.base, evidence.tensors
    if base is not None and base.keys() == new.keys():
        names = [name for name, array in new.items() if np.issubdtype(array.dtype, np.floating)]
        if all(base[name].shape == new[name].shape for name in names):
            moved = math.sqrt(sum(_squares(new[n].astype(float) - base[n]) for n in names))
            norm = math.sqrt(sum(_squares(base[n].astype(float)) for n in names))
            figure = moved / norm if norm else math.inf
    return at_most(
        "distance-to-base",
        figure,
        evidence.limits.largest_change,
        "Distance of the weights to those that the campaign started from, over their norm.",
        evidence.limits,
    )


def _squares(array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(np.square(array).sum())


def _minimum_sites(evidence: Evidence) -> GateCheck:
    sites = len({contribution.site for contribution in evidence.accepted})
    return at_least(
        "minimum-sites",
        sites,
        evidence.limits.minimum_sites,
        "Sites whose updates were taken in.",
    )


def _evaluated_sites(evidence: Evidence) -> GateCheck:
    sites = sum(evaluation.cases > 0 for evaluation in evidence.candidate.values())
    words = "Sites that scored the candidate on their holdout patients."
    if not sites:
        words = f"{words} {_why_none(evidence)}"
    return at_least("evaluated-sites", sites, evidence.limits.minimum_sites, words)


def _why_none(evidence: Evidence) -> str:
    if evidence.candidate:
        return (
            "None did: no site that answered has as many holdout cases of any class as its "
            "policy's minimum_cell; a policy of release_evaluation = false lets no count leave."
        )
    return (
        "None did: no count came. A site has too few holdout cases for its policy's minimum_cell, "
        "or its policy releases none (release_evaluation = false), or it did not answer."
    )


def _receipts_complete(evidence: Evidence) -> GateCheck:
    incomplete = sum(not _complete(c, evidence.epsilon) for c in evidence.accepted)
    unbounded = {c.site for c in evidence.accepted if c.receipt and c.receipt.life_unbounded}
    words = "Updates without a receipt of what they cost in privacy."
    if unbounded:
        words += (
            f" {number(len(unbounded), 'site')} ({', '.join(sorted(unbounded))[:200]}) once trained"
            " without privacy: the epsilon bounds this campaign, nothing bounds the site's life."
        )
    return GateCheck(
        name="receipts-complete",
        passed=bool(evidence.accepted) and incomplete == 0,
        figure=float(incomplete),
        limit=0.0,
        explanation=words,
    )


def _complete(contribution: Contribution, epsilon: float | None) -> bool:
    receipt = contribution.receipt
    if receipt is None or receipt.update_digest is None:
        return False
    if epsilon is None:
        return True
    # No bound over the site's life is none that was asked for (`server.rounds.update_checks`).
    stated = (receipt.delta, receipt.max_grad_norm, receipt.noise_multiplier)
    return (
        receipt.privacy_unit == "patient"
        and None not in stated
        and receipt.epsilon_campaign is not None
        and receipt.epsilon_campaign <= epsilon * (1 + 1e-6)
    )


def _privacy_spent(evidence: Evidence) -> GateCheck:
    """Hold the largest epsilon that any site spent on the campaign against its limit."""
    # A receipt that does not say is the business of `receipts-complete`.
    spent = [c.receipt.epsilon_campaign for c in evidence.accepted if c.receipt is not None]
    told = [value for value in spent if value is not None]
    asked = [e for e in (evidence.epsilon, evidence.limits.epsilon_ceiling) if e is not None]
    return at_most(
        "privacy-spent",
        max(told) / (1 + 1e-6) if told else None,
        min(asked),
        "The largest epsilon that a site spent on the campaign, by its own receipts.",
    )


def _protocol_locked(evidence: Evidence) -> GateCheck:
    digest = None if evidence.protocol is None else evidence.protocol.digest
    same = digest is not None and digest == evidence.locked
    words = "no protocol" if evidence.protocol is None else f"protocol {evidence.protocol.name}"
    return GateCheck(
        name="protocol-locked",
        passed=same,
        figure=float(same),
        limit=1.0,
        explanation=f"The limits are those that were locked before the campaign started ({words}, "
        f"digest {'none' if digest is None else digest[:16]}).",
    )
