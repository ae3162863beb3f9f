"""The plans that a site accepted: against replay, and for its limits a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plans",
        sa.Column("nonce", sa.String(64), nullable=False),
        sa.Column("campaign", sa.String(63), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.String(9), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("scores", sa.Boolean(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "purpose IN ('train', 'evaluate', 'preflight')", name=op.f("ck_plans_purpose")
        ),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_plans")),
    )
    op.create_index("ix_plans_campaign", "plans", ["campaign"])
    op.create_index("ix_plans_accepted_at", "plans", ["accepted_at"])


def downgrade() -> None:
    raise NotImplementedError("plans stay known for ever; restore a backup instead")
