"""Triggers for training a task again, their firings, and what sites report beside the rounds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "triggers",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("starts", sa.Boolean(), nullable=False),
        sa.Column("approved_by", sa.String(63), nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("looked_at", Moment, nullable=False),
        sa.Column("standing", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_triggers")),
    )
    op.create_index(op.f("ix_triggers_task"), "triggers", ["task"], unique=False)
    op.create_table(
        "firings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("trigger", sa.String(63), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("slot", sa.String(63), nullable=False),
        sa.Column("state", sa.String(6), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("fired_at", Moment, nullable=False),
        sa.Column("campaign", sa.String(63), nullable=True),
        sa.Column("code", sa.String(63), nullable=True),
        sa.CheckConstraint("state IN ('firing', 'fired', 'failed')", name=op.f("ck_firings_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_firings")),
        sa.UniqueConstraint("trigger", "slot", name=op.f("uq_firings_trigger_slot")),
    )
    op.create_table(
        "signals",
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(9), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("reported_at", Moment, nullable=False),
        sa.CheckConstraint("kind IN ('new-cases', 'drift')", name=op.f("ck_signals_kind")),
        sa.ForeignKeyConstraint(["site"], ["sites.name"], name=op.f("fk_signals_site_sites")),
        sa.PrimaryKeyConstraint("site", "task", "kind", name=op.f("pk_signals")),
    )


def downgrade() -> None:
    op.drop_table("signals")
    op.drop_table("firings")
    op.drop_table("triggers")
