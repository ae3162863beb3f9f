"""The coordinator's SQL tables. `server/migrations` holds the Alembic revisions that make them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from common.audit_lines import audit_table

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
Moment = DateTime(timezone=True)


class Base(DeclarativeBase):
    """Declarative base with a naming convention, so that migrations can name constraints."""

    metadata = MetaData(naming_convention=NAMING)


class SiteRow(Base):
    """A hospital that may take part. ``node_id`` is Flower's, unsigned 64-bit, hence text."""

    __tablename__ = "sites"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    node_id: Mapped[str] = mapped_column(String(20), unique=True)
    public_key: Mapped[str] = mapped_column(Text)
    registered_at: Mapped[datetime] = mapped_column(Moment)


class CampaignRow(Base):
    """A campaign: a recipe, its settings, and the model that it starts from.

    ``epoch`` counts the ServerApps that took it; ``launches`` the Flower runs that were started
    for it since its last finished round of training.
    """

    __tablename__ = "campaigns"
    __table_args__ = (
        CheckConstraint(
            "state IN ('created', 'running', 'interrupted', 'pausing', 'paused', 'finished', "
            "'failed', 'cancelled')",
            name="state",
        ),
    )

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    task: Mapped[str] = mapped_column(String(63), index=True)
    recipe: Mapped[str] = mapped_column(Text)
    settings: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(11))
    base_release: Mapped[int | None] = mapped_column(Integer)
    initial_digest: Mapped[str] = mapped_column(String(64))
    flower_run: Mapped[str | None] = mapped_column(String(20))
    failure: Mapped[str | None] = mapped_column(Text)
    epoch: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    launches: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    launched_at: Mapped[datetime | None] = mapped_column(Moment)
    created_at: Mapped[datetime] = mapped_column(Moment)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)


class RoundRow(Base):
    """One exchange with the sites. ``metrics`` are of the base model, as the sites scored it."""

    __tablename__ = "rounds"
    __table_args__ = (
        CheckConstraint("purpose IN ('train', 'evaluate')", name="purpose"),
        CheckConstraint("state IN ('running', 'finished', 'failed')", name="state"),
    )

    campaign: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    purpose: Mapped[str] = mapped_column(String(8))
    state: Mapped[str] = mapped_column(String(8))
    base_digest: Mapped[str] = mapped_column(String(64))
    aggregate_digest: Mapped[str | None] = mapped_column(String(64))
    metrics: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Moment)
    finished_at: Mapped[datetime | None] = mapped_column(Moment)


class ContributionRow(Base):
    """What became of one request to one site."""

    __tablename__ = "contributions"
    __table_args__ = (
        ForeignKeyConstraint(["campaign", "round"], ["rounds.campaign", "rounds.number"]),
        CheckConstraint(
            "outcome IN ('accepted', 'refused', 'failed', 'late', 'absent', 'rejected')",
            name="outcome",
        ),
    )

    campaign: Mapped[str] = mapped_column(String(63), primary_key=True)
    round: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    site: Mapped[str] = mapped_column(String(63), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    outcome: Mapped[str] = mapped_column(String(8))
    code: Mapped[str | None] = mapped_column(String(63))
    receipt: Mapped[str | None] = mapped_column(Text)
    update_norm: Mapped[float | None] = mapped_column(Float)
    update_cosine: Mapped[float | None] = mapped_column(Float)
    update_distance: Mapped[float | None] = mapped_column(Float)
    bytes: Mapped[int] = mapped_column(Integer)
    seconds: Mapped[float] = mapped_column(Float)
    recorded_at: Mapped[datetime] = mapped_column(Moment)


class ForecastRow(Base):
    """What a site said, before the first round, that a campaign would cost it."""

    __tablename__ = "forecasts"

    campaign: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    site: Mapped[str] = mapped_column(String(63), primary_key=True)
    code: Mapped[str | None] = mapped_column(String(63))
    refuses: Mapped[bool] = mapped_column(Boolean)
    forecast: Mapped[str | None] = mapped_column(Text)
    recorded_at: Mapped[datetime] = mapped_column(Moment)


class CandidateRow(Base):
    """A trained model that the release gate has judged, or an old one that is to come back.

    ``sites`` is the JSON list of its first ring, NULL for every site. ``approved_over`` is the
    champion's own candidate at the approval, '' for none; NULL on what waits, on rollbacks, and on
    approvals from before it was kept.
    """

    __tablename__ = "candidates"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'approved', 'refused', 'published')", name="state"),
    )

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    campaign: Mapped[str] = mapped_column(ForeignKey("campaigns.id"))
    model_digest: Mapped[str] = mapped_column(String(64))
    evaluation: Mapped[str | None] = mapped_column(Text)
    draft: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(9), index=True)
    created_at: Mapped[datetime] = mapped_column(Moment)
    sites: Mapped[str | None] = mapped_column(Text)
    decided_by: Mapped[str | None] = mapped_column(String(63))
    decided_at: Mapped[datetime | None] = mapped_column(Moment)
    reason: Mapped[str | None] = mapped_column(Text)
    approved_over: Mapped[str | None] = mapped_column(String(63))


class SiteEvaluationRow(Base):
    """One site's holdout counts of a candidate."""

    __tablename__ = "site_evaluations"

    candidate: Mapped[str] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    site: Mapped[str] = mapped_column(String(63), primary_key=True)
    evaluation: Mapped[str] = mapped_column(Text)


class ReleaseRow(Base):
    """A published release. ``sites`` is the JSON list of its ring, NULL for every site."""

    __tablename__ = "releases"
    __table_args__ = (
        UniqueConstraint("candidate"),
        CheckConstraint("state IN ('canary', 'everywhere', 'held', 'withdrawn')", name="state"),
    )

    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    task: Mapped[str] = mapped_column(String(63), index=True)
    candidate: Mapped[str] = mapped_column(ForeignKey("candidates.id"))
    model_digest: Mapped[str] = mapped_column(String(64))
    manifest: Mapped[str] = mapped_column(Text)
    published_at: Mapped[datetime] = mapped_column(Moment)
    state: Mapped[str] = mapped_column(String(10), server_default="everywhere")
    sites: Mapped[str | None] = mapped_column(Text)
    changed_by: Mapped[str | None] = mapped_column(String(63))
    changed_at: Mapped[datetime | None] = mapped_column(Moment)


class AccountRow(Base):
    """A person's account, or a script's. ``password`` is an Argon2id hash, NULL without one.

    ``issuer`` and ``subject`` say who it is at an identity provider; NULL for the page's own.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint("role IN ('viewer', 'operator', 'approver')", name="role"),
        UniqueConstraint("issuer", "subject"),
    )

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    role: Mapped[str] = mapped_column(String(8))
    password: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Moment)
    changed_at: Mapped[datetime] = mapped_column(Moment)
    disabled_at: Mapped[datetime | None] = mapped_column(Moment)
    issuer: Mapped[str | None] = mapped_column(String(255))
    subject: Mapped[str | None] = mapped_column(String(255))


class SessionRow(Base):
    """A browser's session or a script's token, by the SHA-256 of its secret."""

    __tablename__ = "sessions"
    __table_args__ = (CheckConstraint("kind IN ('browser', 'token')", name="kind"),)

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"), index=True)
    kind: Mapped[str] = mapped_column(String(7))
    created_at: Mapped[datetime] = mapped_column(Moment)
    seen_at: Mapped[datetime] = mapped_column(Moment)
    expires_at: Mapped[datetime] = mapped_column(Moment)


class TriggerRow(Base):
    """A rule by which a task is trained again; ``rule``, ``recipe`` and ``plan`` are JSON.

    ``looked_at`` is the moment up to which a schedule was held against the clock.
    """

    __tablename__ = "triggers"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    task: Mapped[str] = mapped_column(String(63), index=True)
    rule: Mapped[str] = mapped_column(Text)
    recipe: Mapped[str] = mapped_column(Text)
    plan: Mapped[str] = mapped_column(Text)
    starts: Mapped[bool] = mapped_column(Boolean)
    approved_by: Mapped[str | None] = mapped_column(String(63))
    created_at: Mapped[datetime] = mapped_column(Moment)
    looked_at: Mapped[datetime] = mapped_column(Moment)
    standing: Mapped[str | None] = mapped_column(Text)


class FiringRow(Base):
    """One firing. A trigger fires once for one ``slot``, whatever the clock does."""

    __tablename__ = "firings"
    __table_args__ = (
        UniqueConstraint("trigger", "slot"),
        CheckConstraint("state IN ('firing', 'fired', 'failed')", name="state"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    trigger: Mapped[str] = mapped_column(String(63))
    task: Mapped[str] = mapped_column(String(63))
    slot: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(String(6))
    reason: Mapped[str] = mapped_column(Text)
    fired_at: Mapped[datetime] = mapped_column(Moment)
    campaign: Mapped[str | None] = mapped_column(String(63))
    code: Mapped[str | None] = mapped_column(String(63))


class SignalRow(Base):
    """The last that a site said of itself beside the rounds: new cases in bands, or drift."""

    __tablename__ = "signals"
    __table_args__ = (CheckConstraint("kind IN ('new-cases', 'drift')", name="kind"),)

    site: Mapped[str] = mapped_column(ForeignKey("sites.name"), primary_key=True)
    task: Mapped[str] = mapped_column(String(63), primary_key=True)
    kind: Mapped[str] = mapped_column(String(9), primary_key=True)
    level: Mapped[int] = mapped_column(Integer)
    reported_at: Mapped[datetime] = mapped_column(Moment)


AUDIT = audit_table(Base.metadata)
