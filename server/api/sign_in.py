"""Signing in and out with an account's name and password."""

from __future__ import annotations

import hmac
import logging
import math
import secrets
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from common.accounts.identity import SignInRefused
from common.errors import TooMany
from server.api.authentication import (
    SESSION_COOKIE,
    SIGN_IN_COOKIE,
    FormToken,
    NotAllowed,
    Viewer,
    address_of,
    check_form,
    check_request,
    form_token,
)
from server.api.drawing import draw
from server.api.services import CoordinatorServices, Services

router = APIRouter(include_in_schema=False)
logger = logging.getLogger(__name__)

Name = Annotated[str, Form(max_length=64)]
Password = Annotated[str, Form(max_length=1024)]
Target = Annotated[str, Form(alias="next", max_length=300)]


@router.get("/sign-in")
def form(request: Request, services: Services) -> Response:
    """Show the form."""
    check_request(request, services)
    return show_form(request, services, safe_target(request.query_params.get("next", "")))


@router.post("/sign-in")
def sign_in(
    request: Request,
    services: Services,
    name: Name,
    password: Password,
    token: FormToken,
    target: Target = "",
) -> Response:
    """Open a session, or say that the name or the password is wrong, and not which."""
    check_request(request, services)
    if not services.settings.local_accounts:
        raise NotAllowed("Accounts of this page are switched off.", code="local-accounts-off")
    secret = request.cookies.get(SIGN_IN_COOKIE, "")
    if not secret or not hmac.compare_digest(form_token(secret).encode(), token.encode()):
        raise NotAllowed(
            "This form is too old.", action="Load the page and sign in again.", code="form-token"
        )
    where, address = safe_target(target), address_of(request)
    try:
        services.throttle.attempt(name, address)
    except TooMany as error:
        response = show_form(request, services, where, trouble=error.line(), status=429)
        response.headers["Retry-After"] = str(math.ceil(error.retry_seconds))
        return response
    opened = _opened(services, name, password)
    if opened is None:
        logger.warning("sign-in-refused address=%s", address)
        trouble = "The name or the password is wrong."
        return show_form(request, services, where, trouble=trouble, status=401)
    services.throttle.succeeded(name, address)
    close_session(request, services)
    response = RedirectResponse(where, 303)
    response.delete_cookie(SIGN_IN_COOKIE, secure=True, httponly=True, samesite="strict")
    set_cookie(response, SESSION_COOKIE, opened)
    return response


def _opened(services: CoordinatorServices, name: str, password: str) -> str | None:
    """Return a new session's secret; None where the password is wrong, or no longer right."""
    accounts = services.registry.accounts
    account = accounts.verify(name, password)
    if account is None:
        return None
    try:
        life = timedelta(seconds=services.settings.session_seconds)
        return accounts.open_session(account, life=life)
    except SignInRefused:
        return None


@router.post("/sign-out")
def sign_out(request: Request, services: Services, visitor: Viewer, token: FormToken) -> Response:
    """End the session."""
    check_form(visitor, token)
    close_session(request, services)
    response: Response = RedirectResponse("/sign-in", 303)
    if visitor.account.issuer is not None and services.provider is not None:
        context = {"address": services.provider.sign_out_address()}
        response = draw(request, "signed-out.html", None, context)
    response.delete_cookie(SESSION_COOKIE, secure=True, httponly=True, samesite="strict")
    return response


def sign_in_address(request: Request) -> str:
    """Return where somebody without a session is sent, to come back to this page."""
    target = safe_target(request.url.path if request.method == "GET" else "")
    return f"/sign-in?next={quote(target, safe='')}"


def show_form(
    request: Request,
    services: CoordinatorServices,
    target: str,
    *,
    trouble: str = "",
    status: int = 200,
) -> Response:
    """Return the form, with what went wrong; it leads on to ``target``, which was checked."""
    secret = request.cookies.get(SIGN_IN_COOKIE) or secrets.token_urlsafe(32)
    settings = services.settings
    context = {
        "token": form_token(secret),
        "next": target,
        "trouble": trouble,
        "nobody": settings.provider is None and not services.registry.accounts.all(),
        "local": settings.local_accounts,
        "provider": settings.provider,
    }
    response = draw(request, "sign-in.html", None, context, status=status)
    set_cookie(response, SIGN_IN_COOKIE, secret)
    return response


def close_session(request: Request, services: CoordinatorServices) -> None:
    """End the session that a browser had before."""
    old = request.cookies.get(SESSION_COOKIE)
    if old:
        services.registry.accounts.close_session(old)


def set_cookie(response: Response, name: str, value: str) -> None:
    """Keep a secret in the browser, out of reach of scripts and of other web sites."""
    response.set_cookie(name, value, path="/", secure=True, httponly=True, samesite="strict")


def safe_target(target: str) -> str:
    """Return a page of ours to go on to; never another web site's."""
    plain = target.startswith("/page/") and "//" not in target and "\\" not in target
    return target if plain and target.isprintable() else "/page/sites"
