"""What a withdrawal has still to do, written down together with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "unfinished_withdrawals",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("step", sa.String(6), nullable=False),
        sa.Column("task", sa.String(63), nullable=True),
        sa.Column("cases", sa.Integer(), nullable=True),
        sa.Column("by", sa.String(64), nullable=True),
        sa.CheckConstraint(
            "step IN ('forget', 'tell')", name=op.f("ck_unfinished_withdrawals_step")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_unfinished_withdrawals")),
    )


def downgrade() -> None:
    op.drop_table("unfinished_withdrawals")
