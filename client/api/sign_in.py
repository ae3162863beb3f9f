"""``/sign-in`` and ``/sign-out``: a person's browser gets a session, and loses it."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from client.access.door import (
    PLAIN_SESSION_COOKIE,
    SESSION_COOKIE,
    check_own_page,
    session_secret,
)
from client.access.guard import address_of
from client.access.people import Person
from client.api.pages import templates
from client.api.services import Services, ServicesDependency
from common.accounts.identity import SignInRefused
from common.errors import TooMany, WardroundError

router = APIRouter(include_in_schema=False)
log = logging.getLogger(__name__)

Name = Annotated[str, Form(max_length=64)]
Password = Annotated[str, Form(max_length=1024)]
Target = Annotated[str, Form(alias="next", max_length=300)]


@router.get("/sign-in")
def form(request: Request, services: ServicesDependency) -> Response:
    """Show the form; where access is open there is nothing to sign in to."""
    target = safe_target(request.query_params.get("next", ""))
    if services.access.open:
        return RedirectResponse(target, 303)
    return show_form(request, services, target)


@router.post("/sign-in")
def sign_in(
    request: Request,
    services: ServicesDependency,
    name: Name = "",
    password: Password = "",
    target: Target = "",
) -> Response:
    """Open a session, or say that the name or the password is wrong, and not which.

    That the form was our own page's, its origin says: nobody is signed in as somebody else by a
    foreign page.
    """
    check_own_page(request)
    access, where = services.access, safe_target(target)
    if access.open:
        return RedirectResponse(where, 303)
    if not access.settings.local_users:
        trouble = "Users with a password are switched off here."
        return show_form(request, services, where, trouble=trouble, status=403)
    address = address_of(request)
    try:
        access.throttle.attempt(name, address)
    except TooMany as error:
        response = show_form(request, services, where, trouble=error.line(), status=429)
        response.headers["Retry-After"] = str(math.ceil(error.retry_seconds))
        return response
    response = RedirectResponse(where, 303)
    if not _signed_in(request, response, services, name, password):
        log.warning("event=sign-in-refused address=%s", address)
        trouble = "The name or the password is wrong."
        return show_form(request, services, where, trouble=trouble, status=401)
    access.throttle.succeeded(name, address)
    return response


def _signed_in(
    request: Request, response: Response, services: Services, name: str, password: str
) -> bool:
    """Open a session; False where the password is wrong, or is no longer right."""
    person = services.access.people.verify(name, password)
    if person is None:
        return False
    try:
        open_session(request, response, services, person, secure=over_tls(request))
    except SignInRefused:
        return False
    return True


@router.post("/sign-out")
def sign_out(request: Request, services: ServicesDependency) -> Response:
    """End the session."""
    check_own_page(request)
    close_session(request, services)
    response = RedirectResponse("/sign-in", 303)
    for cookie in (SESSION_COOKIE, PLAIN_SESSION_COOKIE):
        secure = cookie == SESSION_COOKIE
        response.delete_cookie(cookie, secure=secure, httponly=True, samesite="strict")
    return response


def show_form(
    request: Request, services: Services, target: str, *, trouble: str = "", status: int = 200
) -> Response:
    """Return the form, with what went wrong; it leads on to ``target``, which was checked."""
    access = services.access
    context = {
        "site": services.settings.name,
        "next": target,
        "trouble": trouble,
        "nobody": access.nobody(),
        "local": access.settings.local_users,
        "provider": access.settings.provider,
    }
    return templates.TemplateResponse(request, "sign_in.html", context, status_code=status)


def open_session(
    request: Request, response: Response, services: Services, person: Person, *, secure: bool
) -> None:
    """Give the browser a session in place of its old one; ``secure`` over TLS.

    Raises
    ------
    SignInRefused
        As `People.open_session`.
    """
    life = timedelta(seconds=services.access.settings.session_seconds)
    secret = services.access.people.open_session(person, life=life)
    close_session(request, services)
    services.access.note_sign_in(person.name)
    cookie = SESSION_COOKIE if secure else PLAIN_SESSION_COOKIE
    response.set_cookie(cookie, secret, path="/", secure=secure, httponly=True, samesite="strict")


def close_session(request: Request, services: Services) -> None:
    """End the session that a browser had before."""
    secret = session_secret(request)
    if secret:
        services.access.forget_session(secret)


def over_tls(request: Request) -> bool:
    """Tell whether the browser speaks TLS, to us or to a proxy before us."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


def safe_target(target: str) -> str:
    """Return a page of ours to go on to; never another web site's."""
    plain = target.startswith("/") and "//" not in target and "\\" not in target
    return target if plain and target.isprintable() and len(target) <= 300 else "/"


def trouble_page(
    request: Request, services: Services, error: WardroundError, target: str, *, status: int
) -> Response:
    """Return the form with an error's text."""
    log.warning("event=provider-sign-in-refused code=%s", error.code)
    trouble = f"{error.line()} ({error.code})"
    return show_form(request, services, target, trouble=trouble, status=status)
