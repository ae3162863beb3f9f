"""``/health``: alive, and ready to answer."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response

from client.access.caller import AnybodyDependency
from client.api.documents import AlarmDocument, LiveDocument, ReadyDocument
from client.api.errors import RETRY_SECONDS
from client.api.services import Services, ServicesDependency

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", summary="The process answers")
async def live() -> LiveDocument:
    """Say that the process answers."""
    return LiveDocument()


@router.get("/ready", summary="A model is loaded", responses={503: {"model": ReadyDocument}})
async def ready(
    response: Response, services: ServicesDependency, caller: AnybodyDependency
) -> ReadyDocument:
    """Say which model answers and what is wrong with releases; 503 while there is no model.

    An alarm alone does not make a site unready: the model that it has goes on answering. What an
    alarm says in words is for callers whom the site knows.
    """
    document = readiness(services)
    if caller is None:
        quiet = tuple(alarm.model_copy(update={"message": ""}) for alarm in document.alarms)
        document = document.model_copy(update={"alarms": quiet})
    if document.status != "ready":
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return document


def readiness(services: Services) -> ReadyDocument:
    """Put together what ``/health/ready`` and the page say."""
    engine = services.holder.current
    return ReadyDocument(
        status=_status(services),
        task=services.settings.task,
        model_version=None if engine is None else engine.version,
        model_digest=None if engine is None else engine.digest,
        personalised=engine is not None and engine.head_digest is not None,
        runtime=None if engine is None else engine.runtime,
        release_verified_at=services.watcher.verified_at,
        alarms=tuple(AlarmDocument.of(alarm) for alarm in services.alarms()),
    )


def _status(services: Services) -> Literal["ready", "no-model", "model-stale"]:
    if services.holder.current is None:
        return "no-model"
    return "model-stale" if services.releases.staleness.refuses else "ready"
