"""What was champion when a candidate was approved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("candidates", sa.Column("approved_over", sa.String(63), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("candidates") as candidates:
        candidates.drop_column("approved_over")
