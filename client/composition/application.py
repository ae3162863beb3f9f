"""The service's HTTP edge: routers, who may come in, middleware, and its lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from client.access.guard import guard, install_guard
from client.api import (
    batch,
    budget,
    cases,
    explain,
    health,
    metrics,
    model,
    monitoring,
    pages,
    prediction,
    protocol_v2,
    provider_sign_in,
    review,
    sign_in,
    similar,
    status,
    stored_case,
)
from client.api import (
    releases as release_decisions,
)
from client.api.body_limit import BodyLimitMiddleware
from client.api.errors import install_error_handlers
from client.api.middleware import OriginMiddleware, RequestMiddleware
from client.api.openapi_document import SiteApp, operation_id
from client.composition.service import SiteService

ROUTERS = (
    prediction,
    batch,
    budget,
    protocol_v2,
    explain,
    similar,
    cases,
    review,
    stored_case,
    model,
    release_decisions,
    health,
    metrics,
    monitoring,
    pages,
    sign_in,
    status,
    provider_sign_in,
)


def make_application(service: SiteService) -> FastAPI:
    """Return the app of a service; its lifespan starts and stops all of the service's parts."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for start in service.starts:
            start()
        try:
            yield
        finally:
            for stop in service.stops:
                stop()

    services = service.services
    app = SiteApp(
        title="Wardround site",
        description="Predictions of the released model, and the site's cases.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's documentation pages load scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(guard)],
        generate_unique_id_function=operation_id,
    )
    app.state.services = services
    install_guard(
        *(app, services.access.door, services.access.limits),
        proxies=services.access.settings.proxies,
    )
    for part in ROUTERS:
        app.include_router(part.router)
    app.mount("/static", pages.page_files, name="static")
    install_error_handlers(app)
    # The last one added is the outermost.
    host = services.settings.host
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(OriginMiddleware, host_names=(host, *services.settings.host_names))
    app.add_middleware(RequestMiddleware, metrics=services.metrics)
    return app
