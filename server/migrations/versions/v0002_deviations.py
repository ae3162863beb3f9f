"""How far each site's update lay from the others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("contributions", sa.Column("update_cosine", sa.Float(), nullable=True))
    op.add_column("contributions", sa.Column("update_distance", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("contributions", "update_distance")
    op.drop_column("contributions", "update_cosine")
