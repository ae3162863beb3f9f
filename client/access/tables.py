"""The SQL tables of people, their sessions, programs' keys, and answers that are kept."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Date, ForeignKey, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from client.cases.tables import Base, UtcDateTime


class SiteAccountRow(Base):
    """Somebody who may sign in: with a password, or at the identity provider that ``issuer`` names.

    ``roles`` is their names, sorted, with commas between them.
    """

    __tablename__ = "site_accounts"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    roles: Mapped[str] = mapped_column(String(64))
    password: Mapped[str | None] = mapped_column(String(255))
    issuer: Mapped[str | None] = mapped_column(String(255))
    subject: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SiteSessionRow(Base):
    """A browser's session, under the SHA-256 of its secret."""

    __tablename__ = "site_sessions"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(
        ForeignKey("site_accounts.name", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SiteKeyRow(Base):
    """A program's key, under the SHA-256 of its secret; of its use, the last day alone is kept.

    One without an end counts until it is removed.
    """

    __tablename__ = "site_keys"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    roles: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used: Mapped[date | None] = mapped_column(Date)
    ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class KeptAnswerRow(Base):
    """What was answered to a request with an ``Idempotency-Key``; no status yet: it is being done.

    ``key`` and ``fingerprint`` are keyed digests, for a caller may have put anything into them.
    ``process`` is the run of the service that works, or worked, on it.
    """

    __tablename__ = "kept_answers"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    process: Mapped[str] = mapped_column(String(32))
    begun_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    status: Mapped[int | None] = mapped_column(Integer)
    media_type: Mapped[str | None] = mapped_column(String(64))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
