"""Each site's holdout counts of a candidate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "site_evaluations",
        sa.Column("candidate", sa.String(63), nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("evaluation", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["candidate"],
            ["candidates.id"],
            name=op.f("fk_site_evaluations_candidate_candidates"),
        ),
        sa.PrimaryKeyConstraint("candidate", "site", name=op.f("pk_site_evaluations")),
    )


def downgrade() -> None:
    op.drop_table("site_evaluations")
