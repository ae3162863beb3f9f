"""Signing in at the identity provider: there, and back with a code.

A browser that comes back does so from another web site, so the cookie that ties the answer to it
is ``SameSite=Lax``. The session's own cookie is strict, and would not be sent after a redirect
from there: the answer is a page that leads on by itself.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from common.accounts.identity import SignInRefused
from common.accounts.pending import LIFE_SECONDS, Pending
from common.accounts.provider_settings import claim_values
from common.errors import NotFound, WardroundError
from server.accounts.provider_settings import ProviderSettings
from server.accounts.records import Account
from server.api.authentication import (
    PROVIDER_COOKIE,
    SESSION_COOKIE,
    address_of,
    check_request,
)
from server.api.drawing import draw
from server.api.services import CoordinatorServices, Services
from server.api.sign_in import close_session, safe_target, set_cookie, show_form

if TYPE_CHECKING:
    from common.accounts.provider import IdentityProvider

router = APIRouter(prefix="/sign-in", include_in_schema=False)
logger = logging.getLogger(__name__)


@router.get("/provider")
def begin(request: Request, services: Services) -> Response:
    """Send the browser to the provider."""
    check_request(request, services)
    provider = _provider(services)
    target = safe_target(request.query_params.get("next", ""))
    secret, pending = services.pending.begin(target, address=address_of(request))
    try:
        address = provider.address(pending)
    except WardroundError as error:
        return _trouble(request, services, error, target)
    response = RedirectResponse(address, 303)
    response.set_cookie(
        PROVIDER_COOKIE,
        secret,
        max_age=int(LIFE_SECONDS),
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",
    )
    return response


@router.get("/callback")
def come_back(request: Request, services: Services) -> Response:
    """Take the provider's answer, and open a session if all of it holds."""
    check_request(request, services)
    from common.accounts.answer import answered

    _provider(services)
    settings = services.settings.provider
    assert settings is not None, "there is a provider"
    target = safe_target("")
    cookie, state = request.cookies.get(PROVIDER_COOKIE, ""), request.query_params.get("state", "")
    try:
        pending = answered(services.pending, cookie=cookie, state=state)
        target = pending.target
        account = _admitted(request, services, settings, pending)
        close_session(request, services)
        life = timedelta(seconds=services.settings.session_seconds)
        opened = services.registry.accounts.open_session(account, life=life)
    except WardroundError as error:
        return _trouble(request, services, error, target)
    response = draw(request, "signed-in.html", None, {"next": target})
    response.delete_cookie(PROVIDER_COOKIE, secure=True, httponly=True, samesite="lax")
    set_cookie(response, SESSION_COOKIE, opened)
    return response


def _admitted(
    request: Request, services: CoordinatorServices, settings: ProviderSettings, pending: Pending
) -> Account:
    from common.accounts.answer import identity_of, proven_claims

    claims = proven_claims(_provider(services), pending, request.query_params)
    role = settings.roles.role(claim_values(claims, settings.role_claim))
    return services.registry.accounts.admit(identity_of(claims, settings), role)


def _provider(services: CoordinatorServices) -> IdentityProvider:
    if services.provider is None:
        raise NotFound(
            "No identity provider is configured.",
            action="Sign in with an account of this page.",
            code="provider-none",
        )
    return services.provider


def _trouble(
    request: Request, services: CoordinatorServices, error: WardroundError, target: str
) -> Response:
    logger.warning("provider-sign-in-refused code=%s", error.code)
    status = 403 if isinstance(error, SignInRefused) else 503
    trouble = f"{error.line()} ({error.code})"
    response = show_form(request, services, target, trouble=trouble, status=status)
    response.delete_cookie(PROVIDER_COOKIE, secure=True, httponly=True, samesite="lax")
    return response
