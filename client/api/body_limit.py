"""A small limit on every body that is no image upload; `uploads` counts those itself."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.api.errors import refuse
from common.errors import InputRefused

MAXIMUM_BODY_BYTES = 16 * 1024
SECONDS = 10.0
UPLOAD_PATHS = ("/predict", "/predict/batch", "/predict/fhir", "/explain", "/similar", "/cases")


class BodyLimitMiddleware:
    """Reads every other body up to the limit, where FastAPI would read all of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or _is_upload(scope):
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(SECONDS):
                messages = await _read(receive)
        except TimeoutError:
            refused = InputRefused("The request took too long.", code="upload-slow")
            await refuse(refused, scope, receive, send)
            return
        if messages is None:
            refused = InputRefused("The request is too large.", code="upload-too-large")
            await refuse(refused, scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)


def _is_upload(scope: Scope) -> bool:
    if scope["path"].startswith("/v2/models/") and scope["path"].endswith("/infer"):
        return True
    kind = Headers(scope=scope).get("content-type", "").lower()
    return scope["path"] in UPLOAD_PATHS and kind.startswith("multipart/form-data")


async def _read(receive: Receive) -> list[Message] | None:
    messages: list[Message] = []
    size = 0
    while not messages or messages[-1].get("more_body", False):
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        if size > MAXIMUM_BODY_BYTES:
            return None
    return messages
