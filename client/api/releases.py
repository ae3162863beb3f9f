"""``/releases``: what this site decided about releases, and a person's decisions."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from client.access.caller import CallerDependency, Role, requires
from client.api.services import Services, ServicesDependency
from client.releases.documents import ServiceReleasesDocument, releases_document

router = APIRouter(prefix="/releases", tags=["releases"])

Version = Annotated[int, Path(ge=1, le=2**31 - 1)]
READERS = requires(Role.it, Role.auditor, Role.clinician)
DECIDERS = requires(Role.it)


@router.get("", summary="What this site decided about releases", dependencies=[READERS])
def list_releases(services: ServicesDependency) -> ServiceReleasesDocument:
    """Return every release that was decided about, by whom, why, and with which figures."""
    return _document(services)


@router.post("/rollback", summary="Go back to the release before", dependencies=[DECIDERS])
async def roll_back_release(
    services: ServicesDependency, caller: CallerDependency
) -> ServiceReleasesDocument:
    """Have the release before answer at once, until a newer one is accepted."""
    await asyncio.to_thread(services.watcher.roll_back, by=caller.name)
    return _document(services)


@router.post("/{version}/accept", summary="Accept a release", dependencies=[DECIDERS])
async def accept_release(
    version: Version, services: ServicesDependency, caller: CallerDependency
) -> ServiceReleasesDocument:
    """Have a held, refused or left release answer; it is loaded and self-tested first."""
    await asyncio.to_thread(services.watcher.accept, version, by=caller.name)
    return _document(services)


@router.post("/{version}/refuse", summary="Refuse a release", dependencies=[DECIDERS])
async def refuse_release(
    version: Version, services: ServicesDependency, caller: CallerDependency
) -> ServiceReleasesDocument:
    """Have a release never answer here, unless somebody accepts it later."""
    await asyncio.to_thread(services.watcher.refuse, version, by=caller.name)
    return _document(services)


def _document(services: Services) -> ServiceReleasesDocument:
    settings, watcher, staleness = services.settings, services.watcher, services.releases.staleness
    document = releases_document(
        watcher.desk.state, services.releases.policy.known(), site=settings.name, task=settings.task
    )
    engine = services.holder.current
    return ServiceReleasesDocument(
        **dict(document),
        answering=None if engine is None else engine.version,
        judging=watcher.served.judging,
        vouched_at=watcher.verified_at,
        stale=bool(staleness.alarms()),
        refuses=staleness.refuses,
    )
