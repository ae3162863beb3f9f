"""Accounts, browser sessions and script tokens in the registry's database.

A secret is 32 random bytes; the database holds its SHA-256 alone, so that whoever reads it cannot
sign in with what stands there. A browser's session ends when it was idle, when it is old, when its
owner signs out, changes the password or is disabled; a script's token at its own date.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, cast

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from common.accounts.identity import Identity
from common.accounts.passwords import hashed, matches
from common.audit import AuditLog
from common.audit_entries import AccountChanged
from common.errors import InputRefused, NotFound
from common.moments import in_utc, utc_now
from server.accounts import provider_accounts
from server.accounts.checks import NAME, check_admitted, check_name, check_role, check_unchanged
from server.accounts.records import Account, Role, SessionKind
from server.registry.sessions import Sessions
from server.registry.tables import AccountRow, SessionRow

SEEN_EVERY = timedelta(seconds=30)
LONGEST_TOKEN = timedelta(days=366)
MOMENT = timedelta(microseconds=1)

Change = Literal["added", "role", "password", "token", "disabled", "enabled", "signed-in"]


class Accounts:
    """Who may sign in. Use it as ``registry.accounts``; ``by`` is who asks for a change."""

    def __init__(
        self, sessions: Sessions, audit: AuditLog, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._sessions = sessions
        self._audit = audit
        self._clock = clock

    def add(self, name: str, role: Role, *, password: str | None, by: str) -> Account:
        """Make an account; without a password it can only use tokens.

        Raises
        ------
        InputRefused
            With code ``account-name``, ``account-exists``, ``account-role`` or ``password-weak``.
        """
        check_name(name)
        check_role(role)
        now = self._clock()
        row = AccountRow(name=name, role=role, created_at=now, changed_at=now)
        row.password = None if password is None else hashed(password, name=name)
        with self._sessions.writing() as session:
            if session.get(AccountRow, name) is not None:
                raise InputRefused(
                    f"The account {name} exists already.",
                    action="Choose another name; `wardround coordinator user list` names them.",
                    code="account-exists",
                )
            session.add(row)
        self._note(name, "added", by)
        return _account(row)

    def all(self) -> tuple[Account, ...]:
        """Return all accounts, by name."""
        query = select(AccountRow).order_by(AccountRow.name)
        return tuple(_account(row) for row in self._sessions.all(query))

    def set_password(self, name: str, password: str, *, by: str) -> None:
        """Change a password, and end all sessions and tokens; raises as `add`, or `NotFound`."""
        with self._sessions.writing() as session:
            row = _own_row(session, name)
            row.password = hashed(password, name=name)
            self._touch(row)
            _end_all(session, name)
        self._note(name, "password", by)

    def set_role(self, name: str, role: Role, *, by: str) -> None:
        """Change a role; it holds from the next request on."""
        check_role(role)
        with self._sessions.writing() as session:
            row = _own_row(session, name)
            row.role = role
            self._touch(row)
        self._note(name, "role", by)

    def disable(self, name: str, *, by: str) -> None:
        """Shut an account out at once; it stays, for what it did is on record."""
        with self._sessions.writing() as session:
            row = _row(session, name)
            row.disabled_at = row.disabled_at or self._clock()
            self._touch(row)
            _end_all(session, name)
        self._note(name, "disabled", by)

    def enable(self, name: str, *, by: str) -> None:
        """Let a disabled account in again."""
        with self._sessions.writing() as session:
            row = _row(session, name)
            row.disabled_at = None
            self._touch(row)
        self._note(name, "enabled", by)

    def verify(self, name: str, password: str) -> Account | None:
        """Return the account if the password is right and it is not disabled; slow by design.

        It is as it was when the password was looked up: `open_session` sees what changed since.
        """
        with self._sessions.reading() as session:
            row = session.get(AccountRow, name) if NAME.fullmatch(name) else None
        right = matches(None if row is None else row.password, password)
        return _account(row) if right and row is not None and row.disabled_at is None else None

    def admit(self, identity: Identity, role: Role | None) -> Account:
        """Return the account of somebody whom the identity provider vouches for, made if new.

        The role is the provider's word of this moment; without one, sessions end, too.

        Raises
        ------
        SignInRefused
            With code ``provider-role`` or ``account-disabled``.
        """
        with self._sessions.writing() as session:
            row = provider_accounts.find(session, identity)
            if row is not None and role is None:
                self._touch(row)
                _end_all(session, row.name)
            if role is not None and (row is None or row.role != role):
                change: Change = "added" if row is None else "role"
                now = self._clock()
                row = row or provider_accounts.make(session, identity, role, now=now)
                row.role = role
                self._touch(row)
            else:
                change = "signed-in"
        check_admitted(row, role)
        assert row is not None
        if change != "signed-in":
            self._note(row.name, change, "provider")
        return _account(row)

    def open_session(self, account: Account, *, life: timedelta) -> str:
        """Return the secret of a new browser session of whom `verify` or `admit` returned.

        Raises
        ------
        SignInRefused
            With code ``account-changed``, if the account was changed since then: what ended its
            sessions ends a sign-in that was under way, too.
        """
        secret = self._open(account.name, "browser", life, known=account)
        self._note(account.name, "signed-in", account.name)
        return secret

    def issue_token(self, account: str, *, life: timedelta, by: str) -> str:
        """Return the secret of a new token for scripts, with the account's role.

        Raises
        ------
        NotFound, InputRefused
            If there is no such account, or with code ``token-life``.
        """
        if not timedelta(0) < life <= LONGEST_TOKEN:
            raise InputRefused(
                "A token lives for at most a year.",
                action="Ask for 1 to 366 days.",
                code="token-life",
            )
        with self._sessions.reading() as session:
            _own_row(session, account)
        secret = self._open(account, "token", life)
        self._note(account, "token", by)
        return secret

    def _open(
        self, account: str, kind: SessionKind, life: timedelta, *, known: Account | None = None
    ) -> str:
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._sessions.writing() as session:
            row = _row(session, account)
            if known is not None:
                check_unchanged(row, known)
            session.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
            session.add(
                SessionRow(
                    digest=_digest(secret),
                    account=account,
                    kind=kind,
                    created_at=now,
                    seen_at=now,
                    expires_at=now + life,
                )
            )
        return secret

    def session(
        self, secret: str, *, kind: SessionKind, idle: timedelta, touch: bool = True
    ) -> Account | None:
        """Return whose secret this is, None where it has ended.

        Parameters
        ----------
        secret : str
            From a cookie or a header.
        kind : str
            A token is no session, and the other way round.
        idle : timedelta
            How long a browser's session lives without a request.
        touch : bool, default True
            Whether this request counts for that; a page that refreshes itself does not.
        """
        now = self._clock()
        with self._sessions.reading() as session:
            row = session.get(SessionRow, _digest(secret))
            if row is None or row.kind != kind or in_utc(row.expires_at) <= now:
                return None
            if kind == "browser" and in_utc(row.seen_at) + idle <= now:
                return None
            owner = session.get(AccountRow, row.account)
        if owner is None or owner.disabled_at is not None:
            return None
        if touch and now - in_utc(row.seen_at) >= SEEN_EVERY:
            with self._sessions.writing() as session:
                seen = session.get(SessionRow, _digest(secret))
                if seen is not None:
                    seen.seen_at = now
        return _account(owner)

    def close_session(self, secret: str) -> None:
        """End a session; harmless where it has ended."""
        with self._sessions.writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.digest == _digest(secret)))

    def _touch(self, row: AccountRow) -> None:
        """Note a change, as a moment that the account never had, whatever the clock does."""
        row.changed_at = max(self._clock(), in_utc(row.changed_at) + MOMENT)

    def _note(self, account: str, change: Change, by: str) -> None:
        self._audit.append(AccountChanged(account=account, change=change, by=by))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _end_all(session: Session, name: str) -> None:
    session.execute(delete(SessionRow).where(SessionRow.account == name))


def _row(session: Session, name: str) -> AccountRow:
    row = session.get(AccountRow, name, with_for_update=True)
    if row is None:
        raise NotFound(
            f"There is no account {name!r}.", action="`wardround coordinator user list` names them."
        )
    return row


def _own_row(session: Session, name: str) -> AccountRow:
    row = _row(session, name)
    if row.issuer is not None:
        raise InputRefused(
            f"The account {name} belongs to the identity provider.",
            meaning="Its role comes from there at each sign-in, and it has no password or token.",
            action="Change it at the provider; disable shuts it out here at once.",
            code="account-of-provider",
        )
    return row


def _account(row: AccountRow) -> Account:
    return Account(
        name=row.name,
        role=cast("Role", row.role),
        created_at=in_utc(row.created_at),
        changed_at=in_utc(row.changed_at),
        disabled_at=in_utc(row.disabled_at),
        has_password=row.password is not None,
        issuer=row.issuer,
    )
