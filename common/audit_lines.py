"""The lines of an audit log: their table, their hash chain, and reading what they say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, Text

from common.audit_entries import ENTRY, Entry
from common.errors import StoreError

GENESIS = "0" * 64


def audit_table(metadata: MetaData) -> Table:
    """Declare the log's table in one end's metadata; its migration makes the same."""
    return Table(
        "audit_log",
        metadata,
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("kind", String(32), nullable=False),
        Column("written_at", String(32), nullable=False),
        Column("body", Text, nullable=False),
        Column("previous", String(64), nullable=False),
        Column("digest", String(64), nullable=False),
        Index("ix_audit_log_kind_sequence", "kind", "sequence"),
    )


@dataclass(frozen=True)
class AuditLine:
    """One line as it is stored. ``written_at`` is ISO 8601 in UTC, ``body`` the entry's JSON."""

    sequence: int
    kind: str
    written_at: str
    body: str
    previous: str
    digest: str

    def expected_digest(self) -> str:
        """SHA-256 (hex) over every other field, the previous line's digest included."""
        fields = [self.sequence, self.kind, self.written_at, self.body, self.previous]
        return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()

    def entry(self) -> Entry:
        """Return what the line says.

        Raises
        ------
        StoreError
            With code ``audit-damaged`` if it is no entry of this version.
        """
        try:
            entry = ENTRY.validate_json(self.body)
        except ValidationError as error:
            raise damaged(f"Line {self.sequence} of the audit log cannot be read.") from error
        if entry.kind != self.kind:
            raise damaged(f"Line {self.sequence} of the audit log is of two kinds.")
        return entry


def damaged(what: str) -> StoreError:
    """Return the error for a log that cannot be trusted any more."""
    return StoreError(
        what,
        meaning="Somebody or something changed it; nothing more is written to it.",
        action="Run `wardround audit verify`, and restore the newest backup of the database and "
        "of data/audit-head.json.",
        code="audit-damaged",
    )
