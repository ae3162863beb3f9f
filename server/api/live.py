"""Telling open pages that something changed: server-sent events without any content.

A page that hears ``changed`` fetches itself again. One stream lives a few minutes, then the
browser opens another; it ends when the session does, or the service.

Nothing is missed in between: a page says which state it was drawn from (``seen``), and a browser
that comes back which it last heard of (``Last-Event-ID``, HTML Living Standard 9.2.4). The stream
begins with a comparison.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from common.errors import Busy, WardroundError
from server.api.authentication import Viewer, signed_in
from server.api.services import CoordinatorServices, Services
from server.pages.views import ALIVE_SECONDS

EVERY_SECONDS = 1.0
CHECK_SESSION_TURNS = 15
MOST_TURNS = 300
CHANGED = b"event: changed\ndata: state\n\n"
MOST_STREAMS = 64
MOST_STREAMS_OF_ACCOUNT = 16


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

    def value(self) -> str:
        """Return what differs when a page may have become stale."""
        with self._lock:
            if self._clock() - self._read_at >= EVERY_SECONDS / 2:
                self._value = self._fingerprint()
                self._read_at = self._clock()
            return self._value

    def note(self, request: Request) -> None:
        """Write down what a page is about to be drawn from: at this state, or at a later one."""
        request.state.drawn_from = self.value()

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


class Listeners:
    """How many streams are open, in all and by account; used by the event loop's thread alone."""

    def __init__(self) -> None:
        self._open: Tally[str] = Tally()

    def enter(self, account: str) -> None:
        """Count a stream.

        Raises
        ------
        Busy
            If there are `MOST_STREAMS`, or `MOST_STREAMS_OF_ACCOUNT` of this account.
        """
        if self._open.total() >= MOST_STREAMS or self._open[account] >= MOST_STREAMS_OF_ACCOUNT:
            raise Busy(
                "Too many pages are open.",
                meaning="This one does not refresh itself.",
                action="Close some, or load it again by hand.",
            )
        self._open[account] += 1

    def leave(self, account: str) -> None:
        """Count a stream that has ended."""
        self._open[account] -= 1
        if self._open[account] <= 0:
            del self._open[account]


class CountedStream(StreamingResponse):
    """An event stream that is counted out however it ends, also before its first byte."""

    def __init__(self, events: AsyncIterator[bytes], *, ended: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


def live_router(pulse: Pulse) -> APIRouter:
    """Return the ``/page/live`` route."""
    router = APIRouter(include_in_schema=False)
    still_signed_in = signed_in("viewer")

    listeners = Listeners()

    async def stream(
        request: Request, services: CoordinatorServices, seen: str | None
    ) -> AsyncIterator[bytes]:
        known = await run_in_threadpool(pulse.value)
        yield f"retry: 2000\nid: {known}\n\n".encode()
        if seen and seen != known:
            yield CHANGED
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
                yield f"id: {known}\n".encode() + CHANGED

    @router.get("/page/live")
    async def live(
        request: Request,
        services: Services,
        visitor: Viewer,
        seen: Annotated[str | None, Query(max_length=64)] = None,
        heard: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    ) -> Response:
        account = visitor.account.name
        listeners.enter(account)
        events = stream(request, services, heard or seen)
        return CountedStream(events, ended=partial(listeners.leave, account))

    return router
