"""Connections that never finish what they began: closed after a bound, the oldest first.

uvicorn waits for ever for the headers of a request, and reads them however long they are ("slow
loris", CWE-400). Here a connection has `HEADER_SECONDS` for its headers and `REQUEST_SECONDS` for
all of a request and its answer; headers have `HEADER_BYTES`. At most `HALF_OPEN_AT_ONCE`
connections may have no request, or an unfinished one that no route has let in yet: one more, and
the oldest is closed. Somebody who means it sends the whole of a request within milliseconds; who
holds hundreds open only shuts out himself. Uploads that were let in are bounded by
`client.api.uploads`.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import OrderedDict
from contextlib import suppress
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

HEADER_SECONDS = 10.0
REQUEST_SECONDS = 300.0
HEADER_BYTES = 64 * 1024
HALF_OPEN_AT_ONCE = 448
"""Those that wait between two requests count, too: callers that keep theirs open, as radiology
systems and browsers do, should not be closed while they send the next one."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds; `bounded_protocol` makes one for each server."""

    half_open: ClassVar[OrderedDict[BoundedProtocol, None]]
    header_seconds: ClassVar[float] = HEADER_SECONDS
    most_half_open: ClassVar[int] = HALF_OPEN_AT_ONCE

    _timer: asyncio.TimerHandle | None = None
    _in_headers = True
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Count what comes before a request's body."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > HEADER_BYTES:
            self._close("headers-too-large")

    def on_headers_complete(self) -> None:
        """Give the request its time."""
        self._in_headers = False
        self._arm(REQUEST_SECONDS, "request-too-long")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Count the connection as half open no more: the request is whole."""
        self.half_open.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete:
            self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.half_open.pop(self, None)
        self._disarm()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        self._arm(self.header_seconds, "headers-too-slow")
        self.half_open[self] = None
        self.half_open.move_to_end(self)
        if len(self.half_open) > self.most_half_open:
            oldest = next((one for one in self.half_open if not one._let_in()), None)
            if oldest is not None:
                oldest._close("too-many-half-open")

    def _let_in(self) -> bool:
        """Tell whether a route takes the request that is still coming."""
        return not self._in_headers and "caller" in self.scope["state"]

    def _arm(self, seconds: float, code: str) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._close, code)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self, code: str) -> None:
        self.half_open.pop(self, None)
        self._disarm()
        if not self.transport.is_closing():
            log.warning("event=connection-closed code=%s", code)
            self.transport.abort()


def bounded_protocol() -> type[BoundedProtocol]:
    """Return the protocol class of one server, which counts its own connections."""

    class Protocol(BoundedProtocol):
        half_open: ClassVar[OrderedDict[BoundedProtocol, None]] = OrderedDict()

    return Protocol


def raise_file_limit() -> None:
    """Let this process open as many files as the system lets it; a connection is one.

    TLS handshakes that never end (60 s each, in asyncio) are not counted above.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
