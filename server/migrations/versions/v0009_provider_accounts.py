"""Accounts of people who sign in at an identity provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("accounts") as accounts:
        accounts.add_column(sa.Column("issuer", sa.String(255), nullable=True))
        accounts.add_column(sa.Column("subject", sa.String(255), nullable=True))
        accounts.create_unique_constraint(op.f("uq_accounts_issuer_subject"), ["issuer", "subject"])


def downgrade() -> None:
    with op.batch_alter_table("accounts") as accounts:
        accounts.drop_constraint(op.f("uq_accounts_issuer_subject"), type_="unique")
        accounts.drop_column("subject")
        accounts.drop_column("issuer")
