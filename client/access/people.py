"""People's accounts and their browsers' sessions.

A session's secret is 32 random bytes; the database holds its SHA-256 alone. It ends when it was
idle, when it is old, when its owner signs out, gets another password or is removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from client.access.bookkeeping import Bookkeeping
from client.access.caller import Caller
from client.access.names import (
    NAME,
    WRITE_LOCK,
    check_name,
    check_new,
    digest_of,
    roles_of,
    written,
)
from client.access.roles import Role
from client.access.tables import SiteAccountRow, SiteSessionRow
from client.cases.transactions import Transactions
from common.accounts.identity import Identity, SignInRefused, readable_name
from common.accounts.passwords import hashed, matches
from common.errors import InputRefused, NotFound
from common.moments import utc_now

SEEN_EVERY = timedelta(seconds=30)
MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Person:
    """Somebody who may sign in; ``issuer`` is the identity provider, None with a password here."""

    name: str
    roles: frozenset[Role]
    created_at: datetime
    changed_at: datetime
    issuer: str | None


class People:
    """The people of one site, in its database.

    Parameters
    ----------
    engine : Engine
        Migrated.
    clock : callable
        Returns the moment, aware.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._transactions = Transactions(engine, WRITE_LOCK)
        self._clock = clock
        self._bookkeeping = Bookkeeping()
        self._unwritten: dict[str, datetime] = {}

    def add(self, name: str, roles: Iterable[Role], *, password: str) -> Person:
        """Make an account.

        Raises
        ------
        InputRefused
            With code ``account-name``, ``account-exists``, ``account-role`` or ``password-weak``.
        """
        check_name(name)
        known, now = hashed(password, name=name), self._clock()
        with self._transactions.writing() as session:
            check_new(session, name)
            row = SiteAccountRow(name=name, roles=written(roles), password=known)
            row.created_at = row.changed_at = now
            session.add(row)
            return _person(row)

    def all(self) -> tuple[Person, ...]:
        """Return everybody, by name."""
        with self._transactions.reading() as session:
            rows = session.scalars(select(SiteAccountRow).order_by(SiteAccountRow.name))
            return tuple(_person(row) for row in rows)

    def remove(self, name: str) -> None:
        """Remove an account, and end its sessions at once; raises `NotFound`."""
        with self._transactions.writing() as session:
            _row(session, name)
            session.execute(delete(SiteSessionRow).where(SiteSessionRow.account == name))
            session.execute(delete(SiteAccountRow).where(SiteAccountRow.name == name))

    def set_password(self, name: str, password: str) -> None:
        """Change a password and end all sessions.

        Raises
        ------
        InputRefused
            With code ``password-weak``, or ``account-of-provider``.
        NotFound
            If there is no such account.
        """
        known = hashed(password, name=name)
        with self._transactions.writing() as session:
            row = _row(session, name)
            if row.issuer is not None:
                raise InputRefused(
                    f"{name} signs in at the identity provider.",
                    action="Change the password there.",
                    code="account-of-provider",
                )
            row.password = known
            self._change(row)
            session.execute(delete(SiteSessionRow).where(SiteSessionRow.account == name))

    def verify(self, name: str, password: str) -> Person | None:
        """Return whose password this is; slow by design, also without an account.

        It is as it was when the password was looked up: `open_session` sees what changed since.
        """
        known = found = None
        if NAME.fullmatch(name):
            with self._transactions.reading() as session:
                row = session.get(SiteAccountRow, name)
                if row is not None:
                    known, found = row.password, _person(row)
        return found if matches(known, password) else None

    def admit(self, identity: Identity, roles: frozenset[Role]) -> Person:
        """Return somebody whom the provider vouches for, made if new.

        Raises
        ------
        SignInRefused
            With code ``provider-role``, if no role is given; the person's sessions end then.
        """
        with self._transactions.writing() as session:
            query = select(SiteAccountRow).where(
                SiteAccountRow.issuer == identity.issuer,
                SiteAccountRow.subject == identity.subject,
            )
            row = session.scalars(query).one_or_none()
            if roles:
                return _person(self._admitted(session, row, identity, roles))
            if row is not None:
                self._change(row)
                session.execute(delete(SiteSessionRow).where(SiteSessionRow.account == row.name))
        raise SignInRefused(
            "The identity provider gives you no role here.",
            action="Ask whoever looks after it to put you into one of the groups for this page.",
            code="provider-role",
        )

    def open_session(self, person: Person, *, life: timedelta) -> str:
        """Return the secret of a new session; old ones of everybody are cleared away.

        Parameters
        ----------
        person : Person
            Whom `verify` or `admit` returned.
        life : timedelta
            How long it lasts at most.

        Raises
        ------
        SignInRefused
            With code ``account-changed``, if the account was changed or removed since then: what
            ended its sessions ends a sign-in that was under way, too.
        """
        secret, now = secrets.token_urlsafe(32), self._clock()
        with self._transactions.writing() as session:
            _check_unchanged(session, person)
            session.execute(delete(SiteSessionRow).where(SiteSessionRow.expires_at <= now))
            row = SiteSessionRow(digest=digest_of(secret), account=person.name)
            row.created_at, row.seen_at, row.expires_at = now, now, now + life
            session.add(row)
        return secret

    def caller(self, secret: str, *, idle: timedelta) -> Caller | None:
        """Return whose session this is; None where it has ended.

        That it was used is noted; in memory, while the database can be read and not written.
        """
        digest, now = digest_of(secret), self._clock()
        with self._transactions.reading() as session:
            row = session.get(SiteSessionRow, digest)
            if row is None or row.expires_at <= now:
                return None
            seen = max(row.seen_at, self._unwritten.get(digest, row.seen_at))
            if seen + idle <= now:
                return None
            owner = session.get(SiteAccountRow, row.account)
        if owner is None:
            return None
        if now - seen >= SEEN_EVERY:
            self._note_use(digest, now)
        return Caller(owner.name, roles_of(owner.roles), ends_at=row.expires_at)

    def alive(self) -> set[str]:
        """Return the digests of the secrets of sessions that are not too old."""
        with self._transactions.reading() as session:
            query = select(SiteSessionRow.digest).where(SiteSessionRow.expires_at > self._clock())
            return set(session.scalars(query))

    def close_session(self, secret: str) -> None:
        """End a session; harmless where it has ended."""
        with self._transactions.writing() as session:
            session.execute(
                delete(SiteSessionRow).where(SiteSessionRow.digest == digest_of(secret))
            )

    def _note_use(self, digest: str, now: datetime) -> None:
        if self._bookkeeping.note(partial(self._touch, digest, now), now=now):
            self._unwritten.pop(digest, None)
        else:
            self._unwritten[digest] = now

    def _touch(self, digest: str, now: datetime) -> None:
        with self._transactions.writing() as session:
            row = session.get(SiteSessionRow, digest)
            if row is not None:
                row.seen_at = now

    def _admitted(
        self,
        session: Session,
        row: SiteAccountRow | None,
        identity: Identity,
        roles: frozenset[Role],
    ) -> SiteAccountRow:
        now = self._clock()
        if row is None:
            name = readable_name(identity)
            check_new(session, name)
            row = SiteAccountRow(name=name, issuer=identity.issuer, subject=identity.subject)
            row.roles, row.created_at, row.changed_at = written(roles), now, now
            session.add(row)
        elif row.roles != written(roles):
            row.roles = written(roles)
            self._change(row)
        return row

    def _change(self, row: SiteAccountRow) -> None:
        """Note a change, as a moment that the account never had, whatever the clock does."""
        row.changed_at = max(self._clock(), row.changed_at + MOMENT)


def _row(session: Session, name: str) -> SiteAccountRow:
    row = session.get(SiteAccountRow, name)
    if row is None:
        raise NotFound(
            f"There is no user {name!r}.", action="`wardround site user list` names them."
        )
    return row


def _check_unchanged(session: Session, person: Person) -> None:
    row = session.get(SiteAccountRow, person.name)
    if row is None or row.changed_at != person.changed_at:
        raise SignInRefused(
            "Your account was changed while you signed in.",
            action="Sign in again.",
            code="account-changed",
        )


def _person(row: SiteAccountRow) -> Person:
    return Person(row.name, roles_of(row.roles), row.created_at, row.changed_at, row.issuer)
