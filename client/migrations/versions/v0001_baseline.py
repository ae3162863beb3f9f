"""The first schema: identity, patients, cases and the privacy ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "store_identity",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key_check", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_store_identity_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_identity")),
    )
    op.create_table(
        "patients",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("split", sa.String(8), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("split IN ('train', 'holdout')", name=op.f("ck_patients_split")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_patients")),
    )
    _create_cases()
    _create_ledger()


def _create_cases() -> None:
    op.create_table(
        "cases",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("patient", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("pixels", sa.String(64), nullable=False),
        sa.Column("likeness", sa.String(64), nullable=False),
        sa.Column("label", sa.String(64), nullable=True),
        sa.Column("status", sa.String(9), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("age_band", sa.String(8), nullable=True),
        sa.Column("sex", sa.String(8), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('waiting', 'confirmed', 'withdrawn')", name=op.f("ck_cases_status")
        ),
        sa.CheckConstraint(
            "status <> 'confirmed' OR label IS NOT NULL", name=op.f("ck_cases_confirmed_label")
        ),
        sa.ForeignKeyConstraint(
            ["patient"], ["patients.key"], name=op.f("fk_cases_patient_patients")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cases")),
        sa.UniqueConstraint("task", "digest", name=op.f("uq_cases_task_digest")),
        sa.UniqueConstraint("task", "pixels", name=op.f("uq_cases_task_pixels")),
    )
    op.create_index(op.f("ix_cases_patient"), "cases", ["patient"])
    op.create_index("ix_cases_task_status", "cases", ["task", "status"])


def _create_ledger() -> None:
    op.create_table(
        "privacy_ledger",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("campaign", sa.String(63), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("nonce", sa.String(64), nullable=False),
        sa.Column("noise_multiplier", sa.Float(), nullable=False),
        sa.Column("sampling_rate", sa.Float(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("max_grad_norm", sa.Float(), nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=True),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.CheckConstraint("kind IN ('reserve', 'outcome')", name=op.f("ck_privacy_ledger_kind")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_privacy_ledger")),
        sa.UniqueConstraint(
            "campaign", "round", "kind", name=op.f("uq_privacy_ledger_campaign_round_kind")
        ),
        sa.UniqueConstraint("nonce", "kind", name=op.f("uq_privacy_ledger_nonce_kind")),
        sa.UniqueConstraint("digest", name=op.f("uq_privacy_ledger_digest")),
    )
    op.create_index(op.f("ix_privacy_ledger_campaign"), "privacy_ledger", ["campaign"])


def downgrade() -> None:
    raise NotImplementedError("a site's ledger is never dropped; restore a backup instead")
