"""The coordinator's FastAPI application, put together from its routers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from common.errors import InputRefused, NotFound, StoreError, WardroundError
from server.api import campaigns, health, releases
from server.api.metrics import CoordinatorMetrics, metrics_router
from server.api.middleware import RequestMiddleware
from server.api.services import CoordinatorServices

STATUS: tuple[tuple[type[WardroundError], int], ...] = (
    (NotFound, 404),
    (InputRefused, 400),
    (StoreError, 503),
    (WardroundError, 500),
)


def create_app(services: CoordinatorServices) -> FastAPI:
    """Return the application; its lifespan starts and stops the background tasks.

    The interactive documentation pages are off, as they load scripts from elsewhere; the schema
    itself is at ``/openapi.json``.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for task in services.tasks:
            task.start()
        try:
            yield
        finally:
            for task in services.tasks:
                await run_in_threadpool(task.stop)

    metrics = CoordinatorMetrics(services)
    app = FastAPI(title="Wardround coordinator", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.services = services
    app.add_middleware(RequestMiddleware, metrics=metrics)
    app.add_exception_handler(WardroundError, _answer_error)
    for router in (releases.router, health.router, campaigns.router, metrics_router(metrics)):
        app.include_router(router)
    return app


async def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    """Map a domain error to a status and its stable code; inner texts stay inside."""
    if not isinstance(error, WardroundError):
        raise error
    status = next(code for kind, code in STATUS if isinstance(error, kind))
    message = error.line() if status < 500 else "The coordinator cannot do this now; see its log."
    return JSONResponse({"code": error.code, "message": message}, status)
