"""Who stands at the door: a key in ``Authorization``, or a browser's session.

A change that a browser asks for must say that it comes from our own page: its cookie alone would
also be sent by a page of another service on the same host.
"""

from __future__ import annotations

import ipaddress
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from fastapi import Request

from client.access.caller import Caller, NotAllowed, NotSignedIn, Role
from client.access.keys import Keys
from client.access.people import People
from client.access.remembered import Remembered
from client.access.settings import AccountSettings

SESSION_COOKIE = "__Host-wardround-session"
PLAIN_SESSION_COOKIE = "wardround-session"
"""On loopback without TLS, where a browser refuses the prefix ``__Host-`` (RFC 6265bis, 4.1.3)."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
METRICS = Caller("metrics", frozenset({Role.it}))
THREADS = 4


class AccountsDoor:
    """Lets in keys and sessions of one site.

    Parameters
    ----------
    settings : AccountSettings
        The site's.
    people, keys
        Who there is.
    """

    def __init__(self, settings: AccountSettings, people: People, keys: Keys) -> None:
        self._settings = settings
        self._people = people
        self._keys = keys
        self._idle = timedelta(seconds=settings.session_idle_seconds)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="access")
        self._remembered = Remembered(self._threads, lambda: people.alive() | keys.alive())

    async def caller(self, request: Request) -> Caller:
        """Return who asks.

        Raises
        ------
        NotSignedIn
            If there is no key and no session, or one that has ended.
        NotAllowed
            With code ``cross-origin``, if a session's change does not say where it comes from.
        """
        given = request.headers.get("authorization")
        if given is not None:
            return await self._by_key(given)
        secret = session_secret(request)
        if secret:
            return await self._by_session(secret, request)
        if self._settings.metrics_on_loopback and _asks_for_metrics_here(request):
            return METRICS
        raise _refused("Sign in first, or send a key.")

    def forget(self, secret: str) -> None:
        """Let a session that was ended not go on while the database is away."""
        self._remembered.forget(secret)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    async def _by_key(self, given: str) -> Caller:
        scheme, _, secret = given.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise _refused("The Authorization header holds no bearer key.")
        secret = secret.strip()
        found = await self._remembered.ask(secret, partial(self._keys.caller, secret))
        if found is None:
            raise _refused("This key is not known here.")
        return found

    async def _by_session(self, secret: str, request: Request) -> Caller:
        look = partial(self._people.caller, secret, idle=self._idle)
        idle = self._idle.total_seconds()
        found = await self._remembered.ask(secret, look, idle=idle)
        if found is None:
            raise _refused("Your session has ended.")
        if request.method not in SAFE_METHODS:
            check_own_page(request)
        return found


def session_secret(request: Request) -> str:
    """Return the secret of a browser's session, empty where there is none.

    Over TLS only the cookie with the prefix counts: the other one could have been set by whoever
    answers for this host without TLS, and people would work in a stranger's session.
    """
    cookies = request.cookies
    secret = cookies.get(SESSION_COOKIE, "")
    # Anybody may send the header: it takes away a way in, and opens none.
    tls = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    return secret if secret or tls else cookies.get(PLAIN_SESSION_COOKIE, "")


def check_own_page(request: Request) -> None:
    """Refuse a change that does not say that our own page asks for it.

    Every browser sends ``Origin`` with a POST (Fetch, 3.2). That both headers are ours where they
    are sent, `client.api.middleware` has checked.

    Raises
    ------
    NotAllowed
        With code ``cross-origin``.
    """
    headers = request.headers
    if "origin" not in headers and headers.get("sec-fetch-site") != "same-origin":
        raise NotAllowed(
            "It cannot be told where this comes from; nothing was done.",
            action="Use this service's own page, or a key instead of a session.",
            code="cross-origin",
        )


def _asks_for_metrics_here(request: Request) -> bool:
    host = request.client.host if request.client is not None else ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
    forwarded = {"forwarded", "x-forwarded-for", "x-real-ip"} & set(request.headers.keys())
    return here and not forwarded and request.method == "GET" and request.url.path == "/metrics"


def _refused(what: str) -> NotSignedIn:
    return NotSignedIn(
        what,
        action="Sign in at /sign-in, or send `Authorization: Bearer KEY`; hospital IT makes both.",
    )
