"""How uvicorn serves the app, and what the interpreter is told for it."""

from __future__ import annotations

import gc
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from client.api.connections import bounded_protocol
from client.settings import SiteSettings

CONNECTIONS_AT_ONCE = 512
SHUTDOWN_SECONDS = 10


def prepare_interpreter() -> None:
    """Set this process up for short waits; to be called once everything is put together."""
    # A full collection over torch's own objects takes half a second, with every request waiting.
    gc.freeze()


def server_config(settings: SiteSettings, app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves an app of this site."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded_protocol(),
        ssl_certfile=_text(settings.tls_certificate),
        ssl_keyfile=_text(settings.tls_key),
        log_config=None,
        access_log=False,  # it would write paths and queries; RequestMiddleware logs instead
        proxy_headers=False,
        server_header=False,
        ws="none",
        limit_concurrency=CONNECTIONS_AT_ONCE,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
