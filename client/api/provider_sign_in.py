"""Signing in at the identity provider: there, and back with a code.

A browser that comes back does so from another web site, so the cookie that ties the answer to it
is ``SameSite=Lax``. The session's own cookie is strict, and would not be sent after a redirect
from there: the answer is a page that leads on by itself.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from client.access.guard import address_of
from client.access.people import Person
from client.access.site_access import SiteAccess
from client.api.pages import templates
from client.api.services import ServicesDependency
from client.api.sign_in import open_session, safe_target, trouble_page
from common.accounts.identity import SignInRefused
from common.accounts.pending import LIFE_SECONDS, Pending
from common.accounts.provider_settings import claim_values
from common.errors import NotFound, WardroundError

router = APIRouter(prefix="/sign-in", include_in_schema=False)

PROVIDER_COOKIE = "__Host-wardround-provider"


@router.get("/provider")
def begin(request: Request, services: ServicesDependency) -> Response:
    """Send the browser to the provider."""
    provider = services.access.provider
    if provider is None:
        raise _none()
    target = safe_target(request.query_params.get("next", ""))
    secret, pending = services.access.pending.begin(target, address=address_of(request))
    try:
        address = provider.address(pending)
    except WardroundError as error:
        return trouble_page(request, services, error, target, status=503)
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
def come_back(request: Request, services: ServicesDependency) -> Response:
    """Take the provider's answer, and open a session if all of it holds."""
    if services.access.provider is None:
        raise _none()
    from common.accounts.answer import answered

    target = safe_target("")
    cookie, state = request.cookies.get(PROVIDER_COOKIE, ""), request.query_params.get("state", "")
    response: Response
    try:
        pending = answered(services.access.pending, cookie=cookie, state=state)
        target = pending.target
        person = _admitted(request, services.access, pending)
        response = templates.TemplateResponse(
            request, "signed_in.html", {"next": target, "site": services.settings.name}
        )
        # The provider leads back to an https address: a proxy may stand before this service.
        open_session(request, response, services, person, secure=True)
    except WardroundError as error:
        status = 403 if isinstance(error, SignInRefused) else 503
        response = trouble_page(request, services, error, target, status=status)
    response.delete_cookie(PROVIDER_COOKIE, secure=True, httponly=True, samesite="lax")
    return response


def _admitted(request: Request, access: SiteAccess, pending: Pending) -> Person:
    from common.accounts.answer import identity_of, proven_claims

    settings, provider = access.settings.provider, access.provider
    assert settings is not None
    assert provider is not None
    claims = proven_claims(provider, pending, request.query_params)
    roles = settings.roles.given(claim_values(claims, settings.role_claim))
    return access.people.admit(identity_of(claims, settings), roles)


def _none() -> NotFound:
    return NotFound(
        "No identity provider is configured.",
        action="Sign in with a name and a password.",
        code="provider-none",
    )
