"""Who asks, and which roles a route wants.

A route names its roles by ``dependencies=[requires(Role.clinician)]``; a handler that wants to know
who it is takes a `CallerDependency`. What names no role and is not on the short public list is
refused (`client.access.guard`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from client.access.roles import EVERY_ROLE, Role
from common.errors import WardroundError

__all__ = ["Caller", "CallerDependency", "Role", "requires"]


class NotSignedIn(WardroundError):
    """There is no session or key, or one that has ended."""

    default_code = "not-signed-in"


class NotAllowed(WardroundError):
    """The caller is known, and may not do this."""

    default_code = "not-allowed"


@dataclass(frozen=True)
class Caller:
    """A person or a program that the service knows; ``name`` is its account's or its key's.

    ``person`` is False of a key: who is behind it nobody knows. From ``ends_at`` on the key or the
    session is refused; None is never.
    """

    name: str
    roles: frozenset[Role]
    person: bool = True
    ends_at: datetime | None = field(default=None, compare=False)

    def may(self, *roles: Role) -> bool:
        """Tell whether the caller has one of these roles."""
        return not self.roles.isdisjoint(roles)


LOCAL = Caller("local", EVERY_ROLE)
"""Everybody, where ``access`` is ``open``: whoever is on this machine."""


class Door(Protocol):
    """Tells who a request comes from."""

    async def caller(self, request: Request) -> Caller:
        """Return who asks.

        Raises
        ------
        NotSignedIn
            If nobody that the site knows.
        """


class OpenDoor:
    """Lets in whoever reaches the port, which is on loopback then."""

    async def caller(self, _request: Request) -> Caller:
        """Return the one caller there is."""
        return LOCAL


class ClosedDoor:
    """Lets nobody in."""

    async def caller(self, _request: Request) -> Caller:
        """Refuse."""
        raise NotSignedIn("Nobody may use this service.", action="Ask hospital IT for an account.")


def set_door(app: Any, door: Door) -> None:
    """Tell an app who stands at its door."""
    app.state.door = door


async def _caller(request: Request) -> Caller:
    found = request.scope.get("state", {}).get("caller")
    if isinstance(found, Caller):
        return found  # `client.access.guard` has asked
    door: Door = request.app.state.door
    return await door.caller(request)


async def _anybody(request: Request) -> Caller | None:
    try:
        return await _caller(request)
    except NotSignedIn:
        return None


CallerDependency = Annotated[Caller, Depends(_caller)]
AnybodyDependency = Annotated[Caller | None, Depends(_anybody)]
"""Who asks on a public route; None where nobody knows."""


@dataclass(frozen=True)
class RequiredRoles:
    """A dependency that lets in whoever has one of ``roles``."""

    roles: frozenset[Role]

    async def __call__(self, caller: CallerDependency) -> None:
        """Refuse a caller with none of the roles."""
        if not caller.may(*self.roles):
            wanted = " or ".join(sorted(self.roles))
            raise NotAllowed(
                "Your account may not do this.",
                meaning=f"It takes the role {wanted}.",
                action="Ask hospital IT for the role, or use another account.",
                code="role-missing",
            )


def requires(*roles: Role) -> Any:
    """Return the route dependency that lets in callers with at least one of the roles.

    Parameters
    ----------
    *roles : Role
        At least one.

    Returns
    -------
    fastapi.params.Depends
        For ``dependencies=[…]`` of a route or a router.
    """
    if not roles:
        raise ValueError("name at least one role")
    return Depends(RequiredRoles(frozenset(roles)))
