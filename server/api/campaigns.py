"""Campaigns and their progress, as the registry tells it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from common.evaluation import Metrics
from common.recipe import AggregationSpec
from common.release import GateCheck
from server.api.authentication import signed_in
from server.api.services import Services
from server.registry.records import (
    Campaign,
    CampaignKind,
    Candidate,
    Contribution,
    Round,
)
from server.registry.registry import Registry
from server.site_answers import SiteAnswer

router = APIRouter(
    prefix="/campaigns", tags=["campaigns"], dependencies=[Depends(signed_in("viewer"))]
)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class CampaignSummary(_Document):
    """One campaign. ``rounds`` are those planned; ``epsilon`` is None without privacy.

    ``kind`` is ``preflight`` where it only asked the sites what it would cost: it is then finished
    when they have answered, whatever they said.
    """

    id: str
    kind: CampaignKind
    task: str
    architecture: str
    state: str
    rounds: int
    epsilon: float | None
    aggregation: AggregationSpec
    base_release: int | None
    failure: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, campaign: Campaign) -> CampaignSummary:
        """Summarise a campaign."""
        return cls(
            id=campaign.id,
            kind=campaign.kind,
            task=campaign.recipe.name,
            architecture=campaign.recipe.model.architecture,
            state=campaign.state,
            rounds=campaign.settings.rounds,
            epsilon=campaign.settings.epsilon,
            aggregation=campaign.aggregation,
            base_release=campaign.base_release,
            failure=campaign.failure,
            created_at=campaign.created_at,
            started_at=campaign.started_at,
            finished_at=campaign.finished_at,
        )


class Campaigns(_Document):
    """Campaigns, the newest first: what the list command prints."""

    campaigns: tuple[CampaignSummary, ...]


class SiteOutcome(_Document):
    """What became of one request to one site, and what its last word on privacy was.

    ``update_norm``, ``update_cosine`` (to the round's aggregate, -1 to 1) and
    ``update_distance`` (to the coordinate-wise median of the round's updates, divided by the
    median of those distances) say how far its update lay from the others; None where none came.
    """

    site: str
    attempt: int
    outcome: str
    code: str | None
    seconds: float
    bytes: int
    update_norm: float | None
    update_cosine: float | None
    update_distance: float | None
    epsilon_campaign: float | None
    epsilon_life: float | None
    delta: float | None

    @classmethod
    def of(cls, contribution: Contribution) -> SiteOutcome:
        """Summarise a contribution."""
        receipt = contribution.receipt
        return cls(
            site=contribution.site,
            attempt=contribution.attempt,
            outcome=contribution.outcome,
            code=contribution.code,
            seconds=contribution.seconds,
            bytes=contribution.bytes,
            update_norm=contribution.update_norm,
            update_cosine=contribution.update_cosine,
            update_distance=contribution.update_distance,
            epsilon_campaign=receipt.epsilon_campaign if receipt else None,
            epsilon_life=receipt.epsilon_life if receipt else None,
            delta=receipt.delta if receipt else None,
        )


class RoundDocument(_Document):
    """One round; ``metrics`` are of the model that it started from, merged over the sites.

    ``code`` is ``round-lost`` where it ended without a step and the campaign went on.
    """

    number: int
    purpose: str
    state: str
    code: str | None = None
    base_digest: str
    aggregate_digest: str | None
    metrics: Metrics | None
    started_at: datetime
    finished_at: datetime | None
    sites: tuple[SiteOutcome, ...]

    @classmethod
    def of(cls, found: Round, contributions: Sequence[Contribution]) -> RoundDocument:
        """Summarise a round with those of a campaign's contributions that belong to it."""
        return cls(
            number=found.number,
            purpose=found.purpose,
            state=found.state,
            code=found.code,
            base_digest=found.base_digest,
            aggregate_digest=found.aggregate_digest,
            metrics=found.metrics,
            started_at=found.started_at,
            finished_at=found.finished_at,
            sites=tuple(SiteOutcome.of(c) for c in contributions if c.round == found.number),
        )


class CandidateDocument(_Document):
    """The campaign's candidate and the gate's verdicts."""

    id: str
    state: str
    model_digest: str
    checks: tuple[GateCheck, ...]
    champion_changed: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, candidate: Candidate, *, champion_changed: str | None = None) -> CandidateDocument:
        """Summarise a candidate; ``champion_changed`` says what a waiting one was not held to."""
        return cls(
            id=candidate.id,
            state=candidate.state,
            model_digest=candidate.model_digest,
            checks=candidate.draft.gate,
            champion_changed=champion_changed,
            reason=candidate.reason,
        )


class CampaignDocument(_Document):
    """One campaign, what the sites said before it, its rounds so far, and what came of it."""

    campaign: CampaignSummary
    preflight: tuple[SiteAnswer, ...]
    rounds: tuple[RoundDocument, ...]
    candidates: tuple[CandidateDocument, ...]

    @classmethod
    def read(cls, registry: Registry, identifier: str) -> CampaignDocument:
        """Describe a campaign as the registry has it; raises `NotFound`."""
        campaign = registry.campaign(identifier)
        told = registry.contributions(identifier)
        found = registry.candidates(campaign=identifier)
        return cls(
            campaign=CampaignSummary.of(campaign),
            preflight=tuple(SiteAnswer.of(told) for told in registry.forecasts(identifier)),
            rounds=tuple(RoundDocument.of(r, told) for r in registry.rounds(identifier)),
            candidates=tuple(
                CandidateDocument.of(c, champion_changed=registry.rollouts.champion_change(c))
                for c in found
            ),
        )


@router.get("", summary="Campaigns, the newest first; with `all`, preflights too")
def list_campaigns(
    services: Services, every: Annotated[bool, Query(alias="all")] = False
) -> list[CampaignSummary]:
    """List campaigns."""
    found = services.registry.campaigns(kind=None if every else "training")
    return [CampaignSummary.of(campaign) for campaign in found]


@router.get("/{identifier}", summary="One campaign's progress, round by round and site by site")
def show_campaign(identifier: str, services: Services) -> CampaignDocument:
    """Show one campaign."""
    return CampaignDocument.read(services.registry, identifier)
