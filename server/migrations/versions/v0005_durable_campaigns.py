"""Campaigns that can be interrupted, paused, resumed and cancelled; who drives them, how often."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATES = (
    "state IN ('created', 'running', 'interrupted', 'pausing', 'paused', 'finished', 'failed', "
    "'cancelled')"
)
NAME = "ck_campaigns_state"


def upgrade() -> None:
    with op.batch_alter_table("campaigns") as table:
        table.drop_constraint(op.f(NAME), type_="check")
        table.alter_column("state", existing_type=sa.String(8), type_=sa.String(11))
        table.create_check_constraint(op.f(NAME), STATES)
    for name in ("epoch", "launches"):
        column = sa.Column(name, sa.Integer(), nullable=False, server_default="0")
        op.add_column("campaigns", column)
    op.add_column("campaigns", sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("an older version cannot know these states; restore a backup instead")
