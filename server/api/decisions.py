"""What approvers decide and operators move, each from a form of the page.

A decision is recorded first and published at once; where the repository cannot be written just
now, the service's own task publishes it as soon as it can.
"""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from fastapi import APIRouter, Form
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from common.errors import InputRefused, WardroundError
from server.api.authentication import Approver, FormToken, Operator, check_form
from server.api.services import CoordinatorServices, Services
from server.publishing import service as publishing

router = APIRouter(prefix="/page", include_in_schema=False)
logger = logging.getLogger(__name__)

Reason = Annotated[str, Form(max_length=500)]
Confirmation = Annotated[str, Form(max_length=64)]
Seen = Annotated[str, Form(max_length=64)]
"""What the page showed; without it, nothing that is so now was seen."""
Ring = Annotated[Literal["all", "chosen"], Form()]
Sites = Annotated[list[str], Form(alias="site", max_length=4096)]


@router.post("/candidates/{identifier}/approve")
def approve(
    identifier: str,
    services: Services,
    visitor: Approver,
    token: FormToken,
    ring: Ring,
    sites: Sites = [],  # noqa: B006 - FastAPI copies it
    champion_changed: Annotated[bool, Form()] = False,
    seen: Seen = "",
) -> Response:
    """Approve a waiting candidate, for every site or for the chosen ones first."""
    check_form(visitor, token)
    chosen = None if ring == "all" else sites
    services.registry.rollouts.approve(
        identifier,
        by=visitor.account.name,
        sites=chosen,
        champion_changed=champion_changed,
        seen=seen,
    )
    return _published(services, "published", "/page/releases")


@router.post("/candidates/{identifier}/refuse")
def refuse(
    identifier: str, services: Services, visitor: Approver, token: FormToken, reason: Reason
) -> Response:
    """Refuse a waiting candidate."""
    check_form(visitor, token)
    services.registry.rollouts.refuse(identifier, by=visitor.account.name, reason=reason)
    return _to("/page/releases", "refused")


@router.post("/releases/{version}/rollout")
def roll_out(
    version: int,
    services: Services,
    visitor: Approver,
    token: FormToken,
    ring: Ring,
    sites: Sites = [],  # noqa: B006 - FastAPI copies it
    champion_changed: Annotated[bool, Form()] = False,
    seen: Seen = "",
) -> Response:
    """Let more sites, or all, take a release."""
    check_form(visitor, token)
    chosen = None if ring == "all" else sites
    services.registry.rollouts.roll_out(
        version,
        by=visitor.account.name,
        sites=chosen,
        champion_changed=champion_changed,
        seen=seen,
    )
    return _published(services, "rollout", f"/page/releases/{version}")


@router.post("/releases/{version}/hold")
def hold(version: int, services: Services, visitor: Approver, token: FormToken) -> Response:
    """Stop a release from reaching more sites."""
    check_form(visitor, token)
    services.registry.rollouts.hold(version, by=visitor.account.name)
    return _published(services, "held", f"/page/releases/{version}")


@router.post("/releases/{version}/roll-back")
def roll_back(
    version: int,
    services: Services,
    visitor: Approver,
    token: FormToken,
    confirmation: Confirmation,
    reason: Reason,
    newest: Annotated[int, Form()] = 0,
) -> Response:
    """Bring the weights of this release back, for every site at once."""
    check_form(visitor, token)
    _check_typed(confirmation, f"v{version}")
    publishing.roll_back(
        services.publisher,
        services.registry,
        services.settings.models,
        version,
        by=visitor.account.name,
        reason=reason,
        newest=newest,
    )
    return _published(services, "rolled-back", "/page/releases")


@router.post("/campaigns/{identifier}/{action}")
def move(
    identifier: str,
    action: Literal["pause", "resume", "cancel"],
    services: Services,
    visitor: Operator,
    token: FormToken,
    confirmation: Confirmation = "",
) -> Response:
    """Pause, resume or cancel a campaign; cancelling is for good, so it is typed."""
    check_form(visitor, token)
    moves = services.registry.moves
    if action == "cancel":
        _check_typed(confirmation, "cancel")
        moves.cancel(identifier)
    elif action == "pause":
        moves.pause(identifier)
    else:
        moves.resume(identifier)
    logger.info("campaign-moved campaign=%s action=%s", identifier, action)
    return _to(f"/page/campaigns/{identifier}", action)


def _published(services: CoordinatorServices, done: str, where: str) -> Response:
    try:
        publishing.follow_registry(services.publisher, services.registry, services.settings.models)
    except WardroundError as error:
        logger.warning("decision-unpublished code=%s", error.code)
        return _to(where, "recorded")
    return _to(where, done)


def _check_typed(typed: str, wanted: str) -> None:
    if typed.strip() != wanted:
        raise InputRefused(
            f"To confirm, {wanted} must be typed; nothing was done.",
            action="Go back and type it.",
            code="not-confirmed",
        )


def _to(where: str, done: str) -> Response:
    return RedirectResponse(f"{where}?done={done}", 303)
