"""The site's SQL tables. `client/migrations` holds the Alembic revisions that make them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from common.audit_lines import audit_table
from common.moments import in_utc

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets time zones; this gives UTC back, as PostgreSQL would."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Refuse naive times, which would mean something else on every machine."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a time zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Return an aware UTC time."""
        return in_utc(value)


class Base(DeclarativeBase):
    """Declarative base with a naming convention, so that migrations can name constraints."""

    metadata = MetaData(naming_convention=NAMING)


class StoreIdentityRow(Base):
    """One row: which secret key the pseudonyms are made with, as an HMAC that does not show it.

    With another key every patient would get a new pseudonym, and with it perhaps the other side
    of the split; opening the store with another key is therefore refused.
    """

    __tablename__ = "store_identity"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key_check: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PatientRow(Base):
    """A patient, under a keyed pseudonym, and the side of the split that is theirs for ever.

    ``withdrawn_at`` is set when the patient took part no longer; the row stays, so that a later
    import does not bring the patient back.
    """

    __tablename__ = "patients"
    __table_args__ = (CheckConstraint("split IN ('train', 'holdout')", name="split"),)

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    split: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    withdrawn_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class CaseRow(Base):
    """One image of one patient.

    ``digest`` is the SHA-256 of the stored bytes, and names them in the image store; ``pixels``
    that of the decoded pixels, by which a copy is recognised in whatever file format it comes;
    ``likeness`` a perceptual hash (256 bits), by which a near-duplicate is.
    """

    __tablename__ = "cases"
    __table_args__ = (
        UniqueConstraint("task", "digest"),
        UniqueConstraint("task", "pixels"),
        CheckConstraint("status IN ('waiting', 'confirmed', 'withdrawn')", name="status"),
        CheckConstraint("status <> 'confirmed' OR label IS NOT NULL", name="confirmed_label"),
        Index("ix_cases_task_status", "task", "status"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    task: Mapped[str] = mapped_column(String(63))
    patient: Mapped[str] = mapped_column(ForeignKey("patients.key"), index=True)
    digest: Mapped[str] = mapped_column(String(64))
    pixels: Mapped[str] = mapped_column(String(64))
    likeness: Mapped[str] = mapped_column(String(64))
    label: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(9))
    source: Mapped[str] = mapped_column(String(16))
    age_band: Mapped[str | None] = mapped_column(String(8))
    sex: Mapped[str | None] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LedgerRow(Base):
    """One line of the privacy ledger: append-only, chained by hash.

    ``kind`` is ``reserve`` (epsilon is spent from here on) or ``outcome`` (what became of the
    reservation with the same nonce; it never gives anything back).
    """

    __tablename__ = "privacy_ledger"
    __table_args__ = (
        UniqueConstraint("nonce", "kind"),
        UniqueConstraint("campaign", "round", "kind"),
        CheckConstraint("kind IN ('reserve', 'outcome')", name="kind"),
    )

    sequence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(8))
    campaign: Mapped[str] = mapped_column(String(63), index=True)
    round: Mapped[int] = mapped_column(Integer)
    nonce: Mapped[str] = mapped_column(String(64))
    noise_multiplier: Mapped[float] = mapped_column(Float)
    sampling_rate: Mapped[float] = mapped_column(Float)
    steps: Mapped[int] = mapped_column(Integer)
    max_grad_norm: Mapped[float] = mapped_column(Float)
    delta: Mapped[float] = mapped_column(Float)
    outcome: Mapped[str | None] = mapped_column(String(32))
    written_at: Mapped[datetime] = mapped_column(UtcDateTime)
    previous: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64), unique=True)


class PlanRow(Base):
    """A round plan that the site accepted. ``scores``: it was let score the holdout.

    ``issued_at`` is the coordinator's signed time, UTC seconds since 1970.
    """

    __tablename__ = "plans"
    __table_args__ = (
        CheckConstraint("purpose IN ('train', 'evaluate', 'preflight')", name="purpose"),
        Index("ix_plans_campaign", "campaign"),
        Index("ix_plans_accepted_at", "accepted_at"),
    )

    nonce: Mapped[str] = mapped_column(String(64), primary_key=True)
    campaign: Mapped[str] = mapped_column(String(63))
    round: Mapped[int] = mapped_column(Integer)
    purpose: Mapped[str] = mapped_column(String(9))
    task: Mapped[str] = mapped_column(String(63))
    scores: Mapped[bool] = mapped_column(Boolean)
    issued_at: Mapped[int] = mapped_column(BigInteger)
    accepted_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UnfinishedRow(Base):
    """One thing that a withdrawal has still to do; see `client.cases.unfinished`.

    ``forget``: what learnt from the ``task``'s cases goes. ``tell``: a line in the audit log, with
    ``cases`` and ``by``.
    """

    __tablename__ = "unfinished_withdrawals"
    __table_args__ = (CheckConstraint("step IN ('forget', 'tell')", name="step"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    step: Mapped[str] = mapped_column(String(6))
    task: Mapped[str | None] = mapped_column(String(63))
    cases: Mapped[int | None] = mapped_column(Integer)
    by: Mapped[str | None] = mapped_column(String(64))


AUDIT = audit_table(Base.metadata)
