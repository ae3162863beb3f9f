"""What sites said of themselves, kept for the triggers: the last word of each site, no history."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.moments import in_utc
from common.records import Forecast
from server.registry.tables import SignalRow
from server.triggers.rules import Signal, SignalKind


def keep_signal(
    session: Session, site: str, task: str, kind: SignalKind, level: int, *, now: datetime
) -> None:
    """Keep what a registered site reports, in place of what it reported before."""
    session.merge(SignalRow(site=site, task=task, kind=kind, level=level, reported_at=now))


def keep_statuses(
    session: Session, task: str, forecasts: Iterable[Forecast], *, now: datetime
) -> None:
    """Keep what sites told of themselves along with their forecasts; most tell nothing."""
    for forecast in forecasts:
        status = forecast.status
        if status is None:
            continue
        if status.new_cases is not None:
            keep_signal(session, forecast.site, task, "new-cases", status.new_cases, now=now)
        told = [level for level in (status.drift, status.prediction_drift) if level is not None]
        if told:  # of cases or of answers: either is a reason to look
            keep_signal(session, forecast.site, task, "drift", max(told), now=now)


def signals_of(session: Session, task: str) -> tuple[Signal, ...]:
    """Return the sites' last reports for a task."""
    query = select(SignalRow).where(SignalRow.task == task).order_by(SignalRow.site)
    return tuple(
        Signal(row.site, cast("SignalKind", row.kind), row.level, in_utc(row.reported_at))
        for row in session.scalars(query)
    )
