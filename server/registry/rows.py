"""Rows of the registry's tables to and from the frozen values of `server.registry.records`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import cast

from common.evaluation import Metrics, SiteEvaluation
from common.moments import in_utc
from common.recipe import Recipe
from common.records import Forecast, Receipt
from common.release import ReleaseDraft, ReleaseManifest
from server.registry.campaign_states import CampaignState
from server.registry.records import (
    Campaign,
    CampaignSettings,
    Candidate,
    CandidateState,
    Contribution,
    Outcome,
    Purpose,
    Release,
    ReleaseState,
    Round,
    RoundState,
    Site,
    SiteForecast,
)
from server.registry.tables import (
    CampaignRow,
    CandidateRow,
    ContributionRow,
    ForecastRow,
    ReleaseRow,
    RoundRow,
    SiteRow,
)


def site(row: SiteRow) -> Site:
    """Return the row's value."""
    return Site(row.name, int(row.node_id), row.public_key, in_utc(row.registered_at))


def campaign(row: CampaignRow) -> Campaign:
    """Return the row's value."""
    return Campaign(
        id=row.id,
        recipe=Recipe.model_validate_json(row.recipe),
        settings=CampaignSettings.model_validate_json(row.settings),
        state=cast("CampaignState", row.state),
        base_release=row.base_release,
        initial_digest=row.initial_digest,
        flower_run=row.flower_run,
        failure=row.failure,
        epoch=row.epoch,
        launches=row.launches,
        launched_at=in_utc(row.launched_at),
        created_at=in_utc(row.created_at),
        started_at=in_utc(row.started_at),
        finished_at=in_utc(row.finished_at),
    )


def round_(row: RoundRow) -> Round:
    """Return the row's value."""
    return Round(
        campaign=row.campaign,
        number=row.number,
        purpose=cast("Purpose", row.purpose),
        state=cast("RoundState", row.state),
        base_digest=row.base_digest,
        aggregate_digest=row.aggregate_digest,
        metrics=None if row.metrics is None else Metrics.model_validate_json(row.metrics),
        started_at=in_utc(row.started_at),
        finished_at=in_utc(row.finished_at),
    )


def contribution(row: ContributionRow) -> Contribution:
    """Return the row's value."""
    return Contribution(
        campaign=row.campaign,
        round=row.round,
        site=row.site,
        attempt=row.attempt,
        outcome=cast("Outcome", row.outcome),
        code=row.code,
        receipt=None if row.receipt is None else Receipt.model_validate_json(row.receipt),
        update_norm=row.update_norm,
        update_cosine=row.update_cosine,
        update_distance=row.update_distance,
        bytes=row.bytes,
        seconds=row.seconds,
    )


def contribution_row(value: Contribution, now: datetime) -> ContributionRow:
    """Return a row for a value."""
    return ContributionRow(
        campaign=value.campaign,
        round=value.round,
        site=value.site,
        attempt=value.attempt,
        outcome=value.outcome,
        code=value.code,
        receipt=None if value.receipt is None else value.receipt.model_dump_json(),
        update_norm=value.update_norm,
        update_cosine=value.update_cosine,
        update_distance=value.update_distance,
        bytes=value.bytes,
        seconds=value.seconds,
        recorded_at=now,
    )


def forecast(row: ForecastRow) -> SiteForecast:
    """Return the row's value."""
    told = row.forecast
    return SiteForecast(
        site=row.site,
        code=row.code,
        refuses=row.refuses,
        forecast=None if told is None else Forecast.model_validate_json(told),
    )


def candidate(row: CandidateRow) -> Candidate:
    """Return the row's value."""
    counts = row.evaluation
    return Candidate(
        id=row.id,
        campaign=row.campaign,
        model_digest=row.model_digest,
        evaluation=None if counts is None else SiteEvaluation.model_validate_json(counts),
        draft=ReleaseDraft.model_validate_json(row.draft),
        state=cast("CandidateState", row.state),
        created_at=in_utc(row.created_at),
        sites=ring(row.sites),
        decided_by=row.decided_by,
        decided_at=in_utc(row.decided_at),
        reason=row.reason,
    )


def release(row: ReleaseRow) -> Release:
    """Return the row's value."""
    return Release(
        version=row.version,
        task=row.task,
        candidate=row.candidate,
        model_digest=row.model_digest,
        manifest=ReleaseManifest.model_validate_json(row.manifest),
        published_at=in_utc(row.published_at),
        state=cast("ReleaseState", row.state),
        sites=ring(row.sites),
        changed_by=row.changed_by,
        changed_at=in_utc(row.changed_at),
    )


def release_row(
    manifest: ReleaseManifest, now: datetime, *, sites: str | None = None
) -> ReleaseRow:
    """Return a row for a manifest; ``sites`` as in the candidate's row."""
    return ReleaseRow(
        version=manifest.version,
        task=manifest.task,
        candidate=manifest.lineage.candidate,
        model_digest=manifest.model_digest,
        manifest=manifest.to_json().decode(),
        published_at=now,
        state="everywhere" if sites is None else "canary",
        sites=sites,
    )


def ring_text(sites: Iterable[str] | None) -> str | None:
    """Return a ring as its column holds it; None is every site."""
    return None if sites is None else json.dumps(sorted(set(sites)))


def ring(text: str | None) -> tuple[str, ...] | None:
    """Return a column's ring; None is every site."""
    return None if text is None else tuple(json.loads(text))
