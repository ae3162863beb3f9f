"""What a withdrawal has still to do, written down together with it.

Whether a withdrawal of the version before was killed on its way nobody knows: what learnt from the
tasks of all withdrawn cases is forgotten once more. Their lines in the audit log stay as they are,
since whether one is missing, and what would be in it, cannot be known.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    rows = op.create_table(
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
    cases = sa.table("cases", *(sa.column(name) for name in ("task", "status", "confirmed_at")))
    learnt_from = sa.select(cases.c.task).where(
        cases.c.status == "withdrawn", cases.c.confirmed_at.is_not(None)
    )
    tasks = op.get_bind().scalars(learnt_from.distinct()).all()
    op.bulk_insert(
        rows, [{"id": uuid.uuid4().hex, "step": "forget", "task": task} for task in tasks]
    )


def downgrade() -> None:
    op.drop_table("unfinished_withdrawals")
