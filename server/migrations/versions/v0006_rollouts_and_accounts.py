"""Who decided on a candidate, rollout in rings, rollbacks, and accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    # SQLite makes a table anew to change it, which it refuses while another one refers to it.
    with op.batch_alter_table("releases") as releases:
        releases.drop_constraint("fk_releases_candidate_candidates", type_="foreignkey")
    with op.batch_alter_table(
        "candidates",
        table_args=(
            sa.CheckConstraint(
                "state IN ('waiting', 'approved', 'refused', 'published')",
                name=op.f("ck_candidates_state"),
            ),
        ),
    ) as candidates:
        candidates.drop_constraint("uq_candidates_campaign", type_="unique")
        candidates.add_column(sa.Column("sites", sa.Text(), nullable=True))
        candidates.add_column(sa.Column("decided_by", sa.String(63), nullable=True))
        candidates.add_column(sa.Column("decided_at", Moment, nullable=True))
        candidates.add_column(sa.Column("reason", sa.Text(), nullable=True))
    with op.batch_alter_table("releases") as releases:
        releases.create_foreign_key(
            "fk_releases_candidate_candidates", "candidates", ["candidate"], ["id"]
        )
        releases.add_column(
            sa.Column("state", sa.String(10), nullable=False, server_default="everywhere")
        )
        releases.add_column(sa.Column("sites", sa.Text(), nullable=True))
        releases.add_column(sa.Column("changed_by", sa.String(63), nullable=True))
        releases.add_column(sa.Column("changed_at", Moment, nullable=True))
        releases.create_check_constraint(
            op.f("ck_releases_state"), "state IN ('canary', 'everywhere', 'held', 'withdrawn')"
        )
    _accounts()


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("password", sa.Text(), nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("changed_at", Moment, nullable=False),
        sa.Column("disabled_at", Moment, nullable=True),
        sa.CheckConstraint(
            "role IN ('viewer', 'operator', 'approver')", name=op.f("ck_accounts_role")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_accounts")),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(7), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("seen_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.CheckConstraint("kind IN ('browser', 'token')", name=op.f("ck_sessions_kind")),
        sa.ForeignKeyConstraint(
            ["account"], ["accounts.name"], name=op.f("fk_sessions_account_accounts")
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_account"), "sessions", ["account"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("who approved what is not thrown away; restore a backup instead")
