"""Whether the coordinator is alive, and whether sites can rely on it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from common.errors import WardroundError
from server.api.services import CoordinatorServices, Services

router = APIRouter(prefix="/health", tags=["health"])


class HealthCheck(BaseModel):
    """One named check; ``code`` says why it failed."""

    model_config = ConfigDict(frozen=True)

    name: str
    ok: bool
    code: str | None = None


class Health(BaseModel):
    """All checks and what follows from them."""

    model_config = ConfigDict(frozen=True)

    status: Literal["ok", "not-ready"]
    checks: tuple[HealthCheck, ...] = ()


@router.get("/live", summary="The process answers")
def live() -> Health:
    """Say that the process answers."""
    return Health(status="ok")


@router.get("/ready", summary="Registry, timestamp and background tasks are well")
def ready(services: Services, response: Response) -> Health:
    """Check what sites rely on; 503 if anything is wrong."""
    checks = readiness(services)
    well = all(check.ok for check in checks)
    response.status_code = 200 if well else 503
    return Health(status="ok" if well else "not-ready", checks=checks)


def readiness(services: CoordinatorServices) -> tuple[HealthCheck, ...]:
    """Return every readiness check."""
    tasks = (task.health for task in services.tasks)
    return (
        _registry(services),
        _timestamp(services),
        *(
            HealthCheck(
                name=f"task-{task.name}",
                ok=task.well,
                code=task.code if task.alive else "task-stopped",
            )
            for task in tasks
        ),
    )


def _registry(services: CoordinatorServices) -> HealthCheck:
    try:
        services.registry.sites()
    except WardroundError as error:
        return HealthCheck(name="registry", ok=False, code=error.code)
    return HealthCheck(name="registry", ok=True)


def _timestamp(services: CoordinatorServices) -> HealthCheck:
    try:
        fresh = services.publisher.timestamp_expires() > services.clock()
    except WardroundError as error:
        return HealthCheck(name="timestamp", ok=False, code=error.code)
    return HealthCheck(name="timestamp", ok=fresh, code=None if fresh else "timestamp-expired")
