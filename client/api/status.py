"""``GET /status`` and the pause switch: for hospital IT."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from client.access.caller import CallerDependency, requires
from client.access.roles import Role
from client.api.documents import Document
from client.api.services import Services, ServicesDependency
from client.pause import pause as switch_on
from client.pause import resume as switch_off
from client.status.documents import StatusDocument

router = APIRouter(tags=["status"])


class PauseRequest(Document):
    """The body of ``POST /training/pause``; the reason is shown on the page and stays here."""

    reason: Annotated[str, Field(max_length=200)] = ""


@router.get(
    "/status", summary="How the site stands", dependencies=[requires(Role.it, Role.auditor)]
)
async def status(services: ServicesDependency) -> StatusDocument:
    """Tell how the site stands with coordinator, disk, privacy, backup; and what is wrong.

    A part that cannot be read is left out and named in ``troubles``: this answers while the
    database or the coordinator is away.
    """
    return await _read(services, fresh=False)


@router.post("/training/pause", summary="Answer no round", dependencies=[requires(Role.it)])
async def pause(
    body: PauseRequest, caller: CallerDependency, services: ServicesDependency
) -> StatusDocument:
    """Set the pause switch: no round is answered, what is being trained is held back.

    Predictions go on. Paused already, it stays as it is.
    """
    await asyncio.to_thread(switch_on, services.settings, by=caller.name, reason=body.reason)
    return await _read(services, fresh=True)


@router.post("/training/resume", summary="Answer rounds again", dependencies=[requires(Role.it)])
async def resume(caller: CallerDependency, services: ServicesDependency) -> StatusDocument:
    """Take the pause switch away; ``paused = true`` in ``policy.toml`` still counts.

    Not that of a site that was restored from a backup: 409, ``restored-site``.
    """
    await asyncio.to_thread(switch_off, services.settings, by=caller.name)
    return await _read(services, fresh=True)


async def _read(services: Services, *, fresh: bool) -> StatusDocument:
    return await asyncio.to_thread(services.status.read, services.alarms(), fresh=fresh)
