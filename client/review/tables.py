"""The tables of the review: opinions, where each case stands, label changes and flags."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from client.cases.tables import Base, UtcDateTime


class OpinionRow(Base):
    """What one reader said of one case; append-only, numbered from 1 in each case.

    ``reader`` is an account's name: of the staff, never of a patient. ``answer_*`` name the
    model's answer that the reader had before them, None where there was none or where they read
    blind.
    """

    __tablename__ = "opinions"
    __table_args__ = (
        CheckConstraint("verdict IN ('agree', 'correct', 'unsure')", name="verdict"),
        CheckConstraint("origin IN ('review', 'confirm', 'upload', 'import')", name="origin"),
    )

    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    reader: Mapped[str] = mapped_column(String(64))
    origin: Mapped[str] = mapped_column(String(8))
    verdict: Mapped[str] = mapped_column(String(8))
    label: Mapped[str | None] = mapped_column(String(64))
    given_at: Mapped[datetime] = mapped_column(UtcDateTime)
    blinded: Mapped[bool] = mapped_column(Boolean)
    answer_request: Mapped[str | None] = mapped_column(String(64))
    answer_version: Mapped[int | None] = mapped_column(Integer)
    answer_digest: Mapped[str | None] = mapped_column(String(64))


class CaseReviewRow(Base):
    """Where a case stands, of which somebody has an opinion; made anew with each opinion."""

    __tablename__ = "case_reviews"
    __table_args__ = (
        CheckConstraint(
            "state IN ('waiting', 'unsure', 'conflict', 'held', 'confirmed', 'disputed')",
            name="state",
        ),
    )

    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    state: Mapped[str] = mapped_column(String(9), index=True)
    opinions: Mapped[int] = mapped_column(Integer)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LabelChangeRow(Base):
    """A case's label became another; append-only. None: it had, or has, no confirmed label."""

    __tablename__ = "label_changes"

    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    previous: Mapped[str | None] = mapped_column(String(64))
    label: Mapped[str | None] = mapped_column(String(64))
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CaseFlagRow(Base):
    """Something about a case that a reader should look at, until one sets it aside.

    ``other_case`` and ``distance`` (differing bits of 256) are of a near-duplicate.
    """

    __tablename__ = "case_flags"

    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id"), primary_key=True)
    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    other_case: Mapped[str | None] = mapped_column(String(32))
    distance: Mapped[int | None] = mapped_column(Integer)
    raised_at: Mapped[datetime] = mapped_column(UtcDateTime)
    dismissed_by: Mapped[str | None] = mapped_column(String(64))
    dismissed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
