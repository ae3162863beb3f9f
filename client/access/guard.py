"""Default deny: a route names its roles, is on the public list, or answers nobody.

`guard` is a dependency of the whole app, so it runs before every route's own ones and before a
body is looked at. It says who asks, counts that against the caller's share, and keeps what it found
in the request's state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Scope

from client.access.caller import (
    LOCAL,
    Door,
    NotAllowed,
    NotSignedIn,
    OpenDoor,
    RequiredRoles,
    Role,
    set_door,
)
from client.access.limits import Limits
from common.accounts.address import Network, share_of, source_of

log = logging.getLogger(__name__)

PUBLIC = frozenset(
    {
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/sign-in",
        "/sign-in/provider",
        "/sign-in/callback",
        "/sign-out",
        "/static",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
"""What is answered to anybody: none of it holds anything about a patient or a decision."""


def install_guard(
    app: FastAPI, door: Door, limits: Limits | None, *, proxies: Sequence[Network] = ()
) -> None:
    """Tell an app who stands at its door; ``limits`` None lets callers ask as they like.

    Of ``proxies``, ``X-Forwarded-For`` is believed.
    """
    set_door(app, door)
    app.state.limits = limits
    app.state.proxies = tuple(proxies)
    app.state.told_of_proxy = False


def roles_wanted(route: BaseRoute) -> frozenset[Role] | None:
    """Return the roles of which a caller needs one; None where the route names none."""
    found = [
        depends.dependency.roles
        for depends in getattr(route, "dependencies", ())
        if isinstance(depends.dependency, RequiredRoles)
    ]
    return frozenset.intersection(*found) if found else None


def all_routes(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    """Return every route of an app, those of included routers too."""
    for route in routes:
        inside = getattr(route, "original_router", None)
        if inside is None:
            yield route
        else:
            yield from all_routes(inside.routes)


def path_of(route: BaseRoute) -> str:
    """Return a route's template."""
    return route.path if isinstance(route, APIRoute | Route | Mount) else "?"


async def guard(request: Request) -> None:
    """Let a caller in, or refuse.

    Raises
    ------
    NotSignedIn, NotAllowed, TooMany
        If nobody knows who asks, the route lets nobody in, or it is too much.
    """
    door: Door = request.app.state.door
    if isinstance(door, OpenDoor):
        request.scope["state"]["caller"] = LOCAL
        return
    route = request.scope["route"]
    limits: Limits | None = request.app.state.limits
    if path_of(route) in PUBLIC:
        if limits is not None:
            limits.take(address_of(request))
        return
    if roles_wanted(route) is None:
        raise NotAllowed("This route lets nobody in.", code="no-role-declared")
    try:
        caller = await door.caller(request)
    except NotSignedIn:
        if limits is not None:
            limits.take(address_of(request))
        raise
    request.scope["state"]["caller"] = caller
    if limits is not None:
        limits.take(caller.name)
        limits.begin(caller.name)
        request.scope["state"]["holds"] = (limits, caller.name)


def release(scope: Scope) -> None:
    """Give a finished request's place back; harmless where it holds none."""
    held = scope.get("state", {}).pop("holds", None)
    if held is not None:
        limits, name = held
        limits.end(name)


def address_of(request: Request) -> str:
    """Return where a request comes from, for limits; an IPv6 network counts as one."""
    host = request.client.host if request.client is not None else "unknown"
    forwarded = request.headers.getlist("x-forwarded-for")
    state = request.app.state
    source = source_of(host, forwarded, state.proxies)
    if forwarded and source == host and not state.told_of_proxy:
        # Whom it names is not written down; that all callers count as one is worth knowing.
        state.told_of_proxy = True
        log.warning("event=proxy-not-trusted: name it as `proxies` in the [accounts] table.")
    return share_of(source)
