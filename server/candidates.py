"""From evidence to a recorded candidate, with its lineage and the gate's verdicts."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from common.evaluation_figures import calibration_bins, calibration_error, rates_at
from common.release import (
    Lineage,
    OperatingPoint,
    ReleaseDraft,
    ReleaseMetrics,
    SiteContribution,
)
from server.audit import note_candidate
from server.evaluation import merged, on_common_sites, pooled_metrics
from server.gate.operating_point import operating_threshold
from server.protocol import locked_digest
from server.registry.records import Campaign, Candidate, Contribution
from server.registry.registry import Registry
from server.release_gate import Evidence, failures, judge

logger = logging.getLogger(__name__)


def record_candidate(
    registry: Registry, campaign: Campaign, evidence: Evidence, *, model_digest: str, rounds: int
) -> Candidate:
    """Judge a trained model, and record it as the campaign's candidate.

    Parameters
    ----------
    registry : Registry
        Gets the candidate.
    campaign : Campaign
        That it comes from.
    evidence : Evidence
        What the gate judges by.
    model_digest : str
        Of the weights in the model store.
    rounds : int
        Training rounds that were run.
    """
    evidence = replace(
        evidence,
        protocol=campaign.settings.protocol,
        locked=locked_digest(registry.audit, campaign.id),
    )
    checks = judge(evidence)
    draft = ReleaseDraft(
        recipe=campaign.recipe,
        model_digest=model_digest,
        threshold=operating_threshold(evidence),
        lineage=Lineage(
            campaign=campaign.id,
            candidate=campaign.id,
            rounds=rounds,
            base_release=campaign.base_release,
            sites=site_contributions(evidence.accepted),
        ),
        metrics=_metrics(evidence),
        gate=checks,
        protocol=None if evidence.protocol is None else evidence.protocol.digest,
        created_at=datetime.now(UTC),
    )
    candidate = registry.add_candidate(
        campaign.id,
        draft,
        evaluation=merged(evidence.candidate),
        approve=campaign.settings.auto_approve,
        by_site=evidence.candidate,
    )
    note_candidate(registry.audit, candidate)
    logger.info(
        "candidate campaign=%s state=%s failed=%s",
        *(campaign.id, candidate.state, ",".join(failures(checks)) or "none"),
    )
    if candidate.state == "waiting" and candidate.reason is not None:
        logger.warning("champion-changed campaign=%s: %s", campaign.id, candidate.reason)
    return candidate


def site_contributions(accepted: tuple[Contribution, ...]) -> tuple[SiteContribution, ...]:
    """Return each site's part: how many updates, and the receipt of its last round."""
    parts = []
    for site in sorted({contribution.site for contribution in accepted}):
        own = [contribution for contribution in accepted if contribution.site == site]
        last = max(own, key=lambda c: (c.round, c.attempt))
        parts.append(SiteContribution(site=site, rounds=len(own), receipt=last.receipt))
    return tuple(parts)


def _metrics(evidence: Evidence) -> ReleaseMetrics:
    classes = evidence.recipe.classes
    champion = None
    if evidence.champion:
        _, same_sites = on_common_sites(evidence.candidate, evidence.champion)
        champion = pooled_metrics(same_sites, classes)
    total = merged(evidence.candidate)
    calibration = None if total is None else total.calibration
    return ReleaseMetrics(
        candidate=pooled_metrics(evidence.candidate, classes),
        champion=champion,
        operating=_operating(evidence),
        calibration_error=None
        if calibration is None
        else calibration_error(calibration_bins(calibration)),
    )


def _operating(evidence: Evidence) -> OperatingPoint | None:
    total = merged(evidence.candidate)
    if total is None or total.decision is None:
        return None
    rates = rates_at(total.decision, operating_threshold(evidence))
    return OperatingPoint(
        threshold=rates.threshold,
        wanted_sensitivity=evidence.limits.wanted_sensitivity,
        sensitivity=_share(rates.sensitivity),
        specificity=_share(rates.specificity),
        cases=total.decision.cases,
    )


def _share(value: float | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, value))
