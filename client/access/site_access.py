"""A site's door with all that belongs to it, put together from its settings and database."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from client.access.caller import Door, OpenDoor
from client.access.door import AccountsDoor
from client.access.endings import KeyEndings
from client.access.idempotency import Idempotency
from client.access.keys import Keys
from client.access.limits import Limits
from client.access.people import People
from client.access.settings import AccountSettings
from client.audit import site_audit
from client.cases.pseudonyms import Pseudonyms
from client.settings import SiteSettings
from common.accounts.pending import PendingSignIns
from common.accounts.throttle import Throttle
from common.audit import AuditLog
from common.audit_entries import AccountChanged
from common.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from common.accounts.provider import IdentityProvider


log = logging.getLogger(__name__)

TIDY_SECONDS = 3600.0


@dataclass(frozen=True)
class SiteAccess:
    """Who may use the service; ``limits`` is None where access is open."""

    settings: AccountSettings
    open: bool
    people: People
    keys: Keys
    door: Door
    limits: Limits | None
    provider: IdentityProvider | None
    idempotency: Idempotency
    audit: AuditLog
    endings: KeyEndings
    throttle: Throttle = field(default_factory=Throttle)
    pending: PendingSignIns = field(default_factory=PendingSignIns)
    _closed: threading.Event = field(default_factory=threading.Event)

    def nobody(self) -> bool:
        """Tell whether there is neither a user nor a key nor a provider yet."""
        return self.provider is None and not self.people.all() and not self.keys.all()

    def note_sign_in(self, name: str) -> None:
        """Write down that somebody signed in; a log that cannot be kept shuts nobody out."""
        try:
            self.audit.append(AccountChanged(account=name, change="signed-in", by=name))
        except StoreError as error:
            log.error("event=sign-in-unaudited code=%s", error.code)

    def forget_session(self, secret: str) -> None:
        """End a browser's session, also where it is remembered for a database that is away."""
        self.people.close_session(secret)
        if isinstance(self.door, AccountsDoor):
            self.door.forget(secret)

    def start(self) -> None:
        """Begin to remove, every hour, answers that are kept no longer, and to look at keys."""
        threading.Thread(target=self._tidy, name="access-tidy", daemon=True).start()

    def _tidy(self) -> None:
        while True:
            try:
                self.endings.look()
                self.idempotency.forget_old()
            except StoreError as error:
                log.warning("event=kept-answers-stay code=%s", error.code)
            if self._closed.wait(TIDY_SECONDS):
                return

    def close(self) -> None:
        """End the threads."""
        self._closed.set()
        if isinstance(self.door, AccountsDoor):
            self.door.close()


def make_access(settings: SiteSettings, engine: Engine) -> SiteAccess:
    """Put a site's access together; its database is migrated.

    Raises
    ------
    ConfigurationError
        With code ``oidc-missing`` or as `IdentityProvider`, if the provider cannot be used.
    """
    accounts = settings.accounts
    people, keys = People(engine), Keys(engine)
    is_open = settings.access == "open"
    return SiteAccess(
        settings=accounts,
        open=is_open,
        people=people,
        keys=keys,
        door=OpenDoor() if is_open else AccountsDoor(accounts, people, keys),
        limits=None
        if is_open
        else Limits(
            per_minute=accounts.requests_per_minute,
            burst=accounts.burst,
            at_once=accounts.requests_at_once,
        ),
        provider=None if is_open else _provider(settings),
        idempotency=Idempotency(engine, _secret(settings)),
        audit=site_audit(settings, engine),
        endings=KeyEndings(keys),
    )


def _secret(settings: SiteSettings) -> bytes:
    return Pseudonyms.read(settings.keys / "pseudonyms").subkey("idempotency")


def _provider(settings: SiteSettings) -> IdentityProvider | None:
    if settings.accounts.provider is None:
        return None
    try:
        from common.accounts.provider import IdentityProvider
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "site.toml has a table [accounts.provider], but OpenID Connect is not installed.",
            meaning="Nobody could sign in through the identity provider.",
            action="Install it with `pip install 'wardround[oidc]'`, or remove the table.",
            code="oidc-missing",
        ) from error
    return IdentityProvider(settings.accounts.provider, folder=settings.folder)
