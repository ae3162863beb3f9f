"""What holds for every request: an id, a log line, a metric, safe headers, no stray callers.

The id is always our own: one sent along could name a patient. The log line has the route's
template, never the path or the query.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import traceback
import uuid
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.access.guard import release
from client.api.errors import refuse
from client.api.metrics import ServiceMetrics
from common.errors import InputRefused, WardroundError

log = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not no-referrer, with which a browser sends "Origin: null" with our own forms (Fetch, 3.2.5).
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class RequestMiddleware:
    """Gives each request an id, measures and logs it, and answers what nothing else caught."""

    def __init__(self, app: ASGIApp, *, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # the last line: nothing may reach the server's own log
            _log_unexpected(error, request_id)
            if status == 0:
                await refuse(_unexpected(), scope, receive, send_with_headers)
        finally:
            release(scope)
        self._record(scope, status, time.monotonic() - started, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "") or "other"
        method = scope["method"] if scope["method"] in {*SAFE_METHODS, "POST"} else "other"
        self._metrics.request(route=route, method=method, status=status, seconds=seconds)
        log.info(
            "event=request method=%s route=%s status=%d milliseconds=%.1f request=%s",
            method,
            route,
            status,
            seconds * 1000,
            request_id,
        )


class OriginMiddleware:
    """Refuses names that this service does not go by, and changes asked for by foreign pages.

    A foreign web page in a person's browser must not post here in their session, or, where access
    is open, because it is on this machine (cross-site request forgery), nor make its own name
    resolve to here (DNS rebinding), which the Host check stops. Scripts send neither ``Origin``
    nor ``Sec-Fetch-Site`` and pass; what a session changes must have one
    (`client.access.door.check_own_page`).
    """

    def __init__(self, app: ASGIApp, *, host_names: Iterable[str]) -> None:
        self._app = app
        self._host_names = frozenset(name.lower() for name in (*LOOPBACK_NAMES, *host_names))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], Headers(scope=scope))
            if refusal is not None:
                request_id = scope["state"]["request_id"]
                log.warning("event=refused code=%s request=%s", refusal.code, request_id)
                await refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> WardroundError | None:
        host = headers.get("host", "")
        if host_name(host) not in self._host_names:
            return InputRefused(
                "This service does not go by that host name.",
                action="Add the name to host_names in site.toml.",
                code="unknown-host",
            )
        if method in SAFE_METHODS or not _from_foreign_page(headers, host):
            return None
        return InputRefused(
            "Another web site asked for this.",
            meaning="Nothing was done.",
            action="Use this service's own page, or a script.",
            code="cross-origin",
        )


def host_name(host: str) -> str:
    """Return a Host header's name without the port: ``[::1]:8500`` gives ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Tell whether an address or name can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _from_foreign_page(headers: Headers, host: str) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    origin = headers.get("origin")
    # The scheme is not compared: behind a TLS proxy this service sees http.
    return origin is not None and origin.partition("://")[2].lower() != host.lower()


def _add_headers(headers: MutableHeaders, request_id: str) -> None:
    headers["X-Request-ID"] = request_id
    headers.setdefault("Cache-Control", "no-store")
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)


def _unexpected() -> WardroundError:
    return WardroundError("The service failed.", code="internal")


def _log_unexpected(error: Exception, request_id: str) -> None:
    # An exception's text may hold what was sent (SQLAlchemy quotes parameters), so only its type
    # and the places in the code are written down.
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    log.error("event=unexpected type=%s at=%r request=%s", type(error).__name__, places, request_id)
