"""What the model answered, what readers said of each case, and what to be careful about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_answers()
    _create_reviews()
    _create_flags()


def _create_answers() -> None:
    op.create_table(
        "answers",
        sa.Column("sequence", _COUNTER, autoincrement=True, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("pixels", sa.String(64), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("head_digest", sa.String(64), nullable=True),
        sa.Column("probabilities", sa.Text(), nullable=False),
        sa.Column("positive_probability", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("uncertainty", sa.Float(), nullable=True),
        sa.Column("referred", sa.Boolean(), nullable=False),
        sa.Column("warnings", sa.Text(), nullable=False),
        sa.Column("statistics", sa.Text(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("verdict IN ('positive', 'negative')", name=op.f("ck_answers_verdict")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_answers")),
    )
    op.create_index("ix_answers_task_answered_at", "answers", ["task", "answered_at"])
    op.create_index(op.f("ix_answers_pixels"), "answers", ["pixels"])


def _create_reviews() -> None:
    op.create_table(
        "opinions",
        sa.Column("case_id", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("origin", sa.String(8), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("label", sa.String(64), nullable=True),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blinded", sa.Boolean(), nullable=False),
        sa.Column("answer_request", sa.String(64), nullable=True),
        sa.Column("answer_version", sa.Integer(), nullable=True),
        sa.Column("answer_digest", sa.String(64), nullable=True),
        sa.CheckConstraint(
            "verdict IN ('agree', 'correct', 'unsure')", name=op.f("ck_opinions_verdict")
        ),
        sa.CheckConstraint(
            "origin IN ('review', 'confirm', 'upload', 'import')", name=op.f("ck_opinions_origin")
        ),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_opinions_case_id_cases")),
        sa.PrimaryKeyConstraint("case_id", "number", name=op.f("pk_opinions")),
    )
    op.create_table(
        "case_reviews",
        sa.Column("case_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("opinions", sa.Integer(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'unsure', 'conflict', 'held', 'confirmed', 'disputed')",
            name=op.f("ck_case_reviews_state"),
        ),
        sa.ForeignKeyConstraint(
            ["case_id"], ["cases.id"], name=op.f("fk_case_reviews_case_id_cases")
        ),
        sa.PrimaryKeyConstraint("case_id", name=op.f("pk_case_reviews")),
    )
    op.create_index(op.f("ix_case_reviews_state"), "case_reviews", ["state"])
    op.create_table(
        "label_changes",
        sa.Column("case_id", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("previous", sa.String(64), nullable=True),
        sa.Column("label", sa.String(64), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"], ["cases.id"], name=op.f("fk_label_changes_case_id_cases")
        ),
        sa.PrimaryKeyConstraint("case_id", "number", name=op.f("pk_label_changes")),
    )


def _create_flags() -> None:
    op.create_table(
        "case_flags",
        sa.Column("case_id", sa.String(32), nullable=False),
        sa.Column("code", sa.String(40), nullable=False),
        sa.Column("other_case", sa.String(32), nullable=True),
        sa.Column("distance", sa.Integer(), nullable=True),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dismissed_by", sa.String(64), nullable=True),
        sa.Column("dismissed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["case_id"], ["cases.id"], name=op.f("fk_case_flags_case_id_cases")
        ),
        sa.PrimaryKeyConstraint("case_id", "code", name=op.f("pk_case_flags")),
    )


def downgrade() -> None:
    raise NotImplementedError("opinions are not thrown away; restore a backup instead")
