"""Programs' keys: 256 random bits, of which the database holds the SHA-256 alone."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

from sqlalchemy import Engine, delete, select

from client.access.bookkeeping import Bookkeeping
from client.access.caller import Caller
from client.access.names import WRITE_LOCK, check_new, digest_of, roles_of, written
from client.access.roles import Role
from client.access.tables import SiteKeyRow
from client.cases.transactions import Transactions
from common.errors import NotFound
from common.moments import utc_now

PREFIX = "wrk_"
"""So that a scanner of repositories and logs can tell what it found."""
LIFE = timedelta(days=365)
WARN = timedelta(days=30)


@dataclass(frozen=True)
class Key:
    """A program's key, without its secret; ``last_used`` is a day, no moment.

    ``ends_at`` is from when on it is refused; None is never.
    """

    name: str
    roles: frozenset[Role]
    created_at: datetime
    last_used: date | None
    ends_at: datetime | None


class Keys:
    """The keys of one site, in its database.

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

    def add(self, name: str, roles: Iterable[Role], *, life: timedelta | None = LIFE) -> str:
        """Make a key and return its secret, which nobody can read again.

        Parameters
        ----------
        name : str
            Of no other key and no user.
        roles : iterable of Role
            What it may do.
        life : timedelta or None
            After which it is refused; None is never.

        Raises
        ------
        InputRefused
            With code ``account-name``, ``account-exists`` or ``account-role``.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._transactions.writing() as session:
            check_new(session, name)
            row = SiteKeyRow(name=name, digest=digest_of(secret), roles=written(roles))
            row.created_at = self._clock()
            row.ends_at = None if life is None else row.created_at + life
            session.add(row)
        return secret

    def all(self) -> tuple[Key, ...]:
        """Return all keys, by name."""
        with self._transactions.reading() as session:
            rows = session.scalars(select(SiteKeyRow).order_by(SiteKeyRow.name))
            return tuple(
                Key(row.name, roles_of(row.roles), row.created_at, row.last_used, row.ends_at)
                for row in rows
            )

    def remove(self, name: str) -> None:
        """Revoke a key; the next request with it is refused.

        Raises
        ------
        NotFound
            If there is none of that name.
        """
        with self._transactions.writing() as session:
            row = session.get(SiteKeyRow, name)
            if row is None:
                raise NotFound(
                    f"There is no key {name!r}.", action="`wardround site key list` names them."
                )
            session.execute(delete(SiteKeyRow).where(SiteKeyRow.name == name))

    def caller(self, secret: str) -> Caller | None:
        """Return whose secret this is; None of nobody's, or of one that has ended.

        The first use of a day is noted, where the database can be written.
        """
        digest, now = digest_of(secret), self._clock()
        today = now.date()
        with self._transactions.reading() as session:
            row = session.scalars(select(SiteKeyRow).where(SiteKeyRow.digest == digest)).first()
        if row is None or not hmac.compare_digest(row.digest, digest) or _has_ended(row, now):
            return None
        if row.last_used != today:
            self._bookkeeping.note(partial(self._note, row.name, today), now=now)
        return Caller(row.name, roles_of(row.roles), person=False, ends_at=row.ends_at)

    def alive(self) -> set[str]:
        """Return the digests of all secrets that are not revoked and have not ended."""
        now = self._clock()
        with self._transactions.reading() as session:
            rows = session.scalars(select(SiteKeyRow))
            return {row.digest for row in rows if not _has_ended(row, now)}

    def ending(self) -> int:
        """Return how many keys end within `WARN`, or have ended."""
        soon = self._clock() + WARN
        return sum(key.ends_at is not None and key.ends_at <= soon for key in self.all())

    def _note(self, name: str, today: date) -> None:
        with self._transactions.writing() as session:
            row = session.get(SiteKeyRow, name)
            if row is not None:
                row.last_used = today


def _has_ended(row: SiteKeyRow, now: datetime) -> bool:
    return row.ends_at is not None and row.ends_at <= now
