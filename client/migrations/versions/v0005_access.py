"""People and programs that may use the site's service, sessions, and answers that are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "site_accounts",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("roles", sa.String(64), nullable=False),
        sa.Column("password", sa.String(255), nullable=True),
        sa.Column("issuer", sa.String(255), nullable=True),
        sa.Column("subject", sa.String(255), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_site_accounts")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_site_accounts_issuer_subject")),
    )
    op.create_table(
        "site_sessions",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["account"],
            ["site_accounts.name"],
            name=op.f("fk_site_sessions_account_site_accounts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_site_sessions")),
    )
    op.create_index(op.f("ix_site_sessions_account"), "site_sessions", ["account"])
    _create_keys()


def _create_keys() -> None:
    op.create_table(
        "site_keys",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("roles", sa.String(64), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("last_used", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_site_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_site_keys_digest")),
    )
    op.create_table(
        "kept_answers",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("process", sa.String(32), nullable=False),
        sa.Column("begun_at", _MOMENT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("media_type", sa.String(64), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_kept_answers")),
    )
    op.create_index(op.f("ix_kept_answers_begun_at"), "kept_answers", ["begun_at"])


def downgrade() -> None:
    for table in ("kept_answers", "site_keys", "site_sessions", "site_accounts"):
        op.drop_table(table)
