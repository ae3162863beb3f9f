"""The coordinator's FastAPI application, put together from its routers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.responses import Response

from common.accounts.identity import SignInRefused
from common.errors import Busy, InputRefused, NotFound, RoundFailed, StoreError, WardroundError
from server.api import campaigns, decisions, health, pages, provider_sign_in, releases, sign_in
from server.api.authentication import NotAllowed, NotSignedIn, Viewer
from server.api.drawing import draw_error, page_files
from server.api.live import Pulse, live_router
from server.api.metrics import CoordinatorMetrics, metrics_router
from server.api.middleware import RequestMiddleware
from server.api.services import CoordinatorServices

STATUS: tuple[tuple[type[WardroundError], int], ...] = (
    (NotFound, 404),
    (InputRefused, 400),
    (NotSignedIn, 401),
    (NotAllowed, 403),
    (SignInRefused, 403),
    (RoundFailed, 409),
    (Busy, 429),
    (StoreError, 503),
    (WardroundError, 500),
)


def create_app(services: CoordinatorServices) -> FastAPI:
    """Return the application; its lifespan starts and stops the background tasks.

    The interactive documentation pages are off, as they load scripts from elsewhere; the schema
    itself is at ``/openapi.json``. Open to all are the release repository, health and metrics;
    all else asks for an account.
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

    metrics, pulse = CoordinatorMetrics(services), Pulse(services)
    app = FastAPI(
        title="Wardround coordinator",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.state.services = services
    app.add_middleware(RequestMiddleware, metrics=metrics)
    app.add_exception_handler(WardroundError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_malformed)
    for router in (
        *(releases.router, health.router, campaigns.router, metrics_router(metrics)),
        *(
            sign_in.router,
            provider_sign_in.router,
            live_router(pulse),
            decisions.router,
        ),
    ):
        app.include_router(router)
    app.include_router(pages.router, dependencies=[Depends(pulse.note)])
    app.mount("/static", page_files, name="static")

    @app.get("/openapi.json", include_in_schema=False)
    def schema(_visitor: Viewer) -> JSONResponse:
        return JSONResponse(app.openapi())

    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    """Map a domain error to a status and its stable code; inner texts stay inside."""
    if not isinstance(error, WardroundError):
        raise error
    status = next(code for kind, code in STATUS if isinstance(error, kind))
    if _is_page(request):
        if isinstance(error, NotSignedIn):
            return RedirectResponse(sign_in.sign_in_address(request), 303)
        return draw_error(request, error, status)
    message = error.line() if status < 500 else "The coordinator cannot do this now; see its log."
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"code": error.code, "message": message}, status, headers)


async def _answer_malformed(request: Request, _error: Exception) -> Response:
    """Answer a request of the wrong form without quoting it, for it may hold a password."""
    refused = InputRefused(
        "The request is not as this service expects it.",
        action="Load the page again; a script finds the form in /openapi.json.",
        code="malformed",
    )
    return await _answer_error(request, refused)


def _is_page(request: Request) -> bool:
    path = request.url.path
    return path == "/" or path.startswith(("/page/", "/sign-"))
