"""Signing in at the identity provider: there, and back with a code.

A browser that comes back does so from another web site, so the cookie that ties the answer to it
is ``SameSite=Lax``. The session's own cookie is strict, and would not be sent after a redirect
from there: the answer is a page that leads on by itself.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from common.errors import NotFound, WardroundError
from server.accounts.pending import LIFE_SECONDS, Pending
from server.accounts.provider_settings import ProviderSettings, claim_values
from server.accounts.records import Account, Identity, SignInRefused
from server.api.authentication import PROVIDER_COOKIE, SESSION_COOKIE, check_request
from server.api.drawing import draw
from server.api.services import CoordinatorServices, Services
from server.api.sign_in import close_session, safe_target, set_cookie, show_form

if TYPE_CHECKING:
    from server.accounts.provider import IdentityProvider

router = APIRouter(prefix="/sign-in", include_in_schema=False)
logger = logging.getLogger(__name__)

ERROR_NAME = re.compile(r"[a-z_]{1,40}")  # RFC 6749, 4.1.2.1; anything else is not repeated
LONGEST_CODE = 4096
LONGEST_SUBJECT = 255


@router.get("/provider")
def begin(request: Request, services: Services) -> Response:
    """Send the browser to the provider."""
    check_request(request, services)
    provider = _provider(services)
    target = safe_target(request.query_params.get("next", ""))
    secret, pending = services.pending.begin(target)
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
    provider = _provider(services)
    target = safe_target("")
    try:
        pending = _answered(request, services)
        target = pending.target
        account = _admitted(request, services, provider, pending)
        close_session(request, services)
        life = timedelta(seconds=services.settings.session_seconds)
        opened = services.registry.accounts.open_session(account.name, life=life)
    except WardroundError as error:
        return _trouble(request, services, error, target)
    response = draw(request, "signed-in.html", None, {"next": target})
    response.delete_cookie(PROVIDER_COOKIE, secure=True, httponly=True, samesite="lax")
    set_cookie(response, SESSION_COOKIE, opened)
    return response


def _answered(request: Request, services: CoordinatorServices) -> Pending:
    """Return the sign-in that this browser began and that is now answered, for the first time."""
    from server.accounts.provider import same_state

    pending = services.pending.take(request.cookies.get(PROVIDER_COOKIE, ""))
    if pending is None or not same_state(pending, request.query_params.get("state", "")):
        raise SignInRefused(
            "This answer belongs to no sign-in that this browser began just now.",
            meaning="It was used before, is older than ten minutes, or was begun elsewhere.",
            action="Sign in again.",
            code="provider-state",
        )
    return pending


def _admitted(
    request: Request, services: CoordinatorServices, provider: IdentityProvider, pending: Pending
) -> Account:
    answer = request.query_params
    code = answer.get("code", "")
    if "error" in answer or not 0 < len(code) <= LONGEST_CODE:
        said = answer.get("error", "")
        name = said if ERROR_NAME.fullmatch(said) else "no code"
        raise SignInRefused(
            f"The identity provider did not sign you in ({name}).",
            action="Try again, or ask whoever looks after it.",
            code="provider-answer",
        )
    claims = provider.claims(pending, code=code, issuer=answer.get("iss"))
    identity = _identity(claims, provider.settings)
    role = provider.settings.roles.role(claim_values(claims, provider.settings.role_claim))
    return services.registry.accounts.admit(identity, role)


def _identity(claims: Mapping[str, object], settings: ProviderSettings) -> Identity:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
        raise SignInRefused("The identity provider's token names nobody.", code="provider-token")
    names = sorted(claim_values(claims, settings.name_claim))
    return Identity(settings.issuer, subject, names[0] if names else "")


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
