"""The table of the model's answers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Float,
    Index,
    Integer,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from client.cases.tables import Base, UtcDateTime

# SQLite counts up by itself only where the column is INTEGER, which has 64 bits there.
Counter = BigInteger().with_variant(Integer(), "sqlite")


class AnswerRow(Base):
    """One answer of the model, found by the pixels that it was asked about.

    ``probabilities``, ``warnings`` and ``statistics`` are JSON arrays.
    """

    __tablename__ = "answers"
    __table_args__ = (
        CheckConstraint("verdict IN ('positive', 'negative')", name="verdict"),
        Index("ix_answers_task_answered_at", "task", "answered_at"),
    )

    sequence: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    request_id: Mapped[str] = mapped_column(String(64))
    task: Mapped[str] = mapped_column(String(63))
    pixels: Mapped[str] = mapped_column(String(64), index=True)
    model_version: Mapped[int] = mapped_column(Integer)
    model_digest: Mapped[str] = mapped_column(String(64))
    head_digest: Mapped[str | None] = mapped_column(String(64))
    probabilities: Mapped[str] = mapped_column(Text)
    positive_probability: Mapped[float] = mapped_column(Float)
    threshold: Mapped[float] = mapped_column(Float)
    verdict: Mapped[str] = mapped_column(String(8))
    uncertainty: Mapped[float | None] = mapped_column(Float)
    referred: Mapped[bool] = mapped_column(Boolean)
    warnings: Mapped[str] = mapped_column(Text)
    statistics: Mapped[str] = mapped_column(Text)
    answered_at: Mapped[datetime] = mapped_column(UtcDateTime)
