"""Who asks: a browser's session or a script's token, and what the account may do.

What sites need (TUF files, health) is open, and signed where it matters. Everything else asks for
an account, in this order: the host's name is one of ours (DNS rebinding), the request is not
another web site's (cross-site request forgery), a session or token that has not ended, the role,
and for a form the token that only our own page could have put into it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, TypeAlias

from fastapi import Depends, Form, Request

from common.accounts.address import share_of
from common.errors import WardroundError
from server.accounts.records import Account, Role
from server.api.services import CoordinatorServices, Services

SESSION_COOKIE = "__Host-wardround-session"
SIGN_IN_COOKIE = "__Host-wardround-sign-in"
PROVIDER_COOKIE = "__Host-wardround-provider"
LIVE_HEADER = "wardround-live"
LIVE_PATH = "/page/live"
SAFE_METHODS = frozenset({"GET", "HEAD"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class NotSignedIn(WardroundError):
    """No session or token, or one that has ended."""

    default_code = "not-signed-in"


class NotAllowed(WardroundError):
    """The request is refused, whoever asks, or this account may not do it."""

    default_code = "not-allowed"


@dataclass(frozen=True)
class Visitor:
    """A signed-in account; ``form_token`` stands in every form of its pages."""

    account: Account
    form_token: str


def check_request(request: Request, services: CoordinatorServices) -> None:
    """Refuse foreign host names, and changes that another web site asked for.

    Raises
    ------
    NotAllowed
        With code ``unknown-host`` or ``cross-origin``.
    """
    host = request.headers.get("host", "")
    known = {*LOOPBACK_NAMES, services.settings.host, *services.settings.host_names}
    if _host_name(host) not in {name.lower() for name in known}:
        raise NotAllowed(
            "This service does not go by that host name.",
            action="Add the name to host_names in coordinator.toml.",
            code="unknown-host",
        )
    if request.method not in SAFE_METHODS and _from_elsewhere(request, host):
        raise NotAllowed("Another web site asked for this; nothing was done.", code="cross-origin")


def signed_in(role: Role) -> Callable[[Request, CoordinatorServices], Visitor]:
    """Return the dependency that lets in accounts with a role, or more."""

    def visitor(request: Request, services: Services) -> Visitor:
        check_request(request, services)
        found = _session(request, services) or _token(request, services)
        if found is None:
            raise NotSignedIn("Sign in first.")
        if not found.account.may(role):
            raise NotAllowed(
                f"The account {found.account.name} is {_article(found.account.role)}.",
                meaning=f"This takes {_article(role)}.",
                code="role-missing",
            )
        return found

    return visitor


Viewer: TypeAlias = Annotated[Visitor, Depends(signed_in("viewer"))]
Operator: TypeAlias = Annotated[Visitor, Depends(signed_in("operator"))]
Approver: TypeAlias = Annotated[Visitor, Depends(signed_in("approver"))]


def check_form(visitor: Visitor, token: str) -> None:
    """Refuse a form that our own page did not make for this very session.

    Raises
    ------
    NotAllowed
        With code ``form-token``.
    """
    if not hmac.compare_digest(visitor.form_token.encode(), token.encode()):
        raise NotAllowed(
            "This form is not of your present session; nothing was done.",
            action="Go back, load the page again and repeat it.",
            code="form-token",
        )


def form_token(secret: str) -> str:
    """Return the token of a session's forms; it does not lead back to the session's secret."""
    return hmac.new(secret.encode(), b"wardround form", hashlib.sha256).hexdigest()


FormToken: TypeAlias = Annotated[str, Form(alias="token", max_length=128)]


def _session(request: Request, services: CoordinatorServices) -> Visitor | None:
    secret = request.cookies.get(SESSION_COOKIE, "")
    if not secret:
        return None
    idle = timedelta(seconds=services.settings.session_idle_seconds)
    by_itself = LIVE_HEADER in request.headers or request.url.path == LIVE_PATH
    account = services.registry.accounts.session(
        secret, kind="browser", idle=idle, touch=not by_itself
    )
    if account is None or not _may_sign_in(account, services):
        return None
    return Visitor(account, form_token(secret))


def _may_sign_in(account: Account, services: CoordinatorServices) -> bool:
    """Tell whether accounts of this kind still sign in: the settings may have changed."""
    provider = services.settings.provider
    if account.issuer is None:
        return services.settings.local_accounts
    return provider is not None and account.issuer == provider.issuer


def _token(request: Request, services: CoordinatorServices) -> Visitor | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret:
        return None
    account = services.registry.accounts.session(secret, kind="token", idle=timedelta.max)
    # A token sends no forms: there is no page of its own that a form could come from.
    return None if account is None else Visitor(account, form_token(""))


def _from_elsewhere(request: Request, host: str) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    return origin is not None and origin.lower() != f"https://{host.lower()}"


def _host_name(host: str) -> str:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def address_of(request: Request) -> str:
    """Return what a request's sender is counted as, for throttling: one address, one network."""
    return share_of(request.client.host if request.client is not None else "unknown")


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
