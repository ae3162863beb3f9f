"""What the routes need, as one typed value that `server.main` composes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from common.accounts.pending import PendingSignIns
from common.accounts.throttle import Throttle
from server.presence import Presence
from server.publishing.publisher import ReleasePublisher
from server.registry.registry import Registry
from server.settings import CoordinatorSettings
from server.supervision import SupervisedTask

if TYPE_CHECKING:
    from common.accounts.provider import IdentityProvider


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class CoordinatorServices:
    """The coordinator's parts. ``ending`` is set when the service is about to stop.

    ``provider`` is where people sign in who have no account of this page, if anywhere.
    """

    settings: CoordinatorSettings
    publisher: ReleasePublisher
    registry: Registry
    tasks: tuple[SupervisedTask, ...] = ()
    clock: Callable[[], datetime] = _now
    throttle: Throttle = field(default_factory=Throttle)
    presence: Presence = field(default_factory=Presence)
    provider: IdentityProvider | None = None
    pending: PendingSignIns = field(default_factory=PendingSignIns)
    ending: threading.Event = field(default_factory=threading.Event)


def _services(request: Request) -> CoordinatorServices:
    return cast(CoordinatorServices, request.app.state.services)


Services = Annotated[CoordinatorServices, Depends(_services)]
