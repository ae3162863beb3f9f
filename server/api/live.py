"""Telling open pages that something changed: server-sent events without any content.

A page that hears ``changed`` fetches itself again. One stream lives a few minutes, then the
browser opens another; it ends when the session does, or the service.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable

import anyio
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from common.errors import Busy, WardroundError
from server.api.authentication import Viewer, signed_in
from server.api.services import CoordinatorServices, Services
from server.pages.views import ALIVE_SECONDS

EVERY_SECONDS = 1.0
CHECK_SESSION_TURNS = 15
MOST_TURNS = 300
MOST_STREAMS = 64


class Pulse:
    """The state's fingerprint, read at most once a second however many pages listen."""

    def __init__(
        self, services: CoordinatorServices, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._services = services
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._value = ""
        self.streams = 0

    def value(self) -> str:
        """Return what differs when a page may have become stale."""
        with self._lock:
            if self._clock() - self._read_at >= EVERY_SECONDS / 2:
                self._value = self._fingerprint()
                self._read_at = self._clock()
            return self._value

    def _fingerprint(self) -> str:
        now = self._services.clock()
        seen = {
            site: (found.release, (now - found.at).total_seconds() <= ALIVE_SECONDS)
            for site, found in self._services.presence.all().items()
        }
        try:
            state = self._services.registry.changes.fingerprint()
        except WardroundError as error:
            state = error.code
        return hashlib.sha256(f"{state}{sorted(seen.items())}".encode()).hexdigest()


def live_router(pulse: Pulse) -> APIRouter:
    """Return the ``/page/live`` route."""
    router = APIRouter(include_in_schema=False)
    still_signed_in = signed_in("viewer")

    async def stream(request: Request, services: CoordinatorServices) -> AsyncIterator[bytes]:
        pulse.streams += 1
        try:
            known = await run_in_threadpool(pulse.value)
            yield b"retry: 2000\n\n"
            for turn in range(1, MOST_TURNS):
                await anyio.sleep(EVERY_SECONDS)
                if services.ending.is_set():
                    return
                if turn % CHECK_SESSION_TURNS == 0:
                    try:
                        await run_in_threadpool(still_signed_in, request, services)
                    except WardroundError:
                        yield b"event: changed\ndata: signed-out\n\n"
                        return
                    yield b": still here\n\n"
                found = await run_in_threadpool(pulse.value)
                if found != known:
                    known = found
                    yield b"event: changed\ndata: state\n\n"
        finally:
            pulse.streams -= 1

    @router.get("/page/live")
    async def live(request: Request, services: Services, _visitor: Viewer) -> Response:
        if pulse.streams >= MOST_STREAMS:
            raise Busy("Too many pages are open.", action="Load the page again by hand.")
        return StreamingResponse(stream(request, services), media_type="text/event-stream")

    return router
