"""``GET /monitoring``: what the site's own monitoring found when it last looked."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from client.access.caller import Role, requires
from client.api.services import ServicesDependency
from client.monitoring.comparison import Interval
from client.monitoring.drift import FigureDrift, Kind, KindDrift
from client.monitoring.fairness import GroupFairness, RateName
from client.monitoring.performance import Performance, Standing
from client.monitoring.promise import FigureName, Promise
from client.monitoring.snapshot import DriftLook, Snapshot

router = APIRouter(
    tags=["monitoring"], dependencies=[requires(Role.it, Role.auditor, Role.clinician)]
)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class IntervalDocument(_Document):
    """An estimate between its bounds: of 95 % for drift, of 99 % over confirmed cases."""

    low: float
    estimate: float
    high: float


class FigureDriftDocument(_Document):
    """One figure; ``p_value`` is corrected for the number of figures of its kind."""

    name: str
    stability: IntervalDocument
    distance: float | None
    p_value: float
    level: int


class KindDriftDocument(_Document):
    """One kind: ``level`` 0 none, 1 some, 2 much, null where there are too few images to say."""

    kind: Kind
    level: int | None
    images: int
    discrepancy: IntervalDocument | None
    p_value: float | None
    figures: tuple[FigureDriftDocument, ...]


class DriftDocument(_Document):
    """The last comparison with the release's reference; no kinds where there is no reference."""

    reference_patients: int | None
    newest_answer: datetime | None
    looked_at: datetime
    kinds: tuple[KindDriftDocument, ...]


class FigureDocument(_Document):
    """A figure beside its promise: ``held``, ``open`` (neither is shown) or ``broken``."""

    name: FigureName
    interval: IntervalDocument | None
    promised: float | None
    standing: Standing | None


class PerformanceDocument(_Document):
    """Figures over confirmed cases; null below the policy's smallest cell."""

    version: int
    month: str | None
    positives: int | None
    negatives: int | None
    figures: tuple[FigureDocument, ...]


class GroupDocument(_Document):
    """One group of patients; null below the policy's smallest cell, or where it would follow."""

    axis: str
    group: str
    positives: int | None
    negatives: int | None
    sensitivity: IntervalDocument | None
    specificity: IntervalDocument | None
    positive_share: IntervalDocument | None


class GapDocument(_Document):
    """The distance between the groups with the highest and the lowest rate."""

    axis: str
    rate: RateName
    distance: IntervalDocument


class MonitoringDocument(_Document):
    """What was found; ``state`` is ``waiting`` before the first look."""

    state: Literal["waiting", "ready"]
    refreshed_at: datetime | None = None
    version: int | None = None
    minimum_cell: int | None = None
    drift: DriftDocument | None = None
    recent: PerformanceDocument | None = None
    months: tuple[PerformanceDocument, ...] = ()
    groups: tuple[GroupDocument, ...] = ()
    gaps: tuple[GapDocument, ...] = ()

    @classmethod
    def of(cls, found: Snapshot | None) -> MonitoringDocument:
        """Return a snapshot as the API shows it."""
        if found is None:
            return cls(state="waiting")
        recent = found.recent
        return cls(
            state="ready",
            refreshed_at=found.refreshed_at,
            version=found.version,
            minimum_cell=found.minimum_cell,
            drift=None if found.drift is None else _drift(found.drift),
            recent=None if recent is None else _performance(recent, found.promise),
            months=tuple(_performance(one, None) for one in found.months),
            groups=tuple(_group(one) for one in found.fairness.groups),
            gaps=tuple(
                GapDocument(axis=g.axis, rate=g.rate, distance=_interval(g.distance))
                for g in found.fairness.gaps
            ),
        )


@router.get("/monitoring", summary="Drift, performance on confirmed cases, and fairness")
def monitoring(services: ServicesDependency) -> MonitoringDocument:
    """Return what the site's own monitoring found when it last looked."""
    return MonitoringDocument.of(services.monitor.snapshot)


def _interval(one: Interval) -> IntervalDocument:
    return IntervalDocument.model_validate(one)


def _drift(look: DriftLook) -> DriftDocument:
    return DriftDocument(
        reference_patients=look.reference_patients,
        newest_answer=look.newest,
        looked_at=look.looked_at,
        kinds=tuple(_kind(kind) for kind in look.kinds),
    )


def _kind(kind: KindDrift) -> KindDriftDocument:
    found = kind.discrepancy
    return KindDriftDocument(
        kind=kind.kind,
        level=kind.level,
        images=kind.cases,
        discrepancy=None if found is None else _interval(found.squared),
        p_value=None if found is None else found.p_value,
        figures=tuple(_figure(one) for one in kind.figures),
    )


def _figure(one: FigureDrift) -> FigureDriftDocument:
    return FigureDriftDocument.model_validate(one)


def _performance(found: Performance, promise: Promise | None) -> PerformanceDocument:
    figures = []
    for figure in found.figures:
        promised = None if promise is None else promise.of(figure.name)
        figures.append(
            FigureDocument(
                name=figure.name,
                interval=None if figure.interval is None else _interval(figure.interval),
                promised=promised,
                standing=figure.standing(promised),
            )
        )
    return PerformanceDocument(
        version=found.version,
        month=found.month,
        positives=found.positives,
        negatives=found.negatives,
        figures=tuple(figures),
    )


def _group(one: GroupFairness) -> GroupDocument:
    return GroupDocument.model_validate(one)
