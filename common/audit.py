"""The audit log: append-only, hash-chained, the same at both ends of a federation.

Each line's digest covers its content and the line before it, so a line that was changed, dropped,
inserted or moved is found; an `Anchor` outside the database shows a tail that was cut off, or a
database from an old backup. Who can rewrite both could still forge a whole log: that is what the
other end's log is for (`common.audit_compare`).

Lines are appended in one serialised transaction, after a look at the newest line and the anchor
alone: the whole chain is `common.audit_chain.find_faults`'s to check.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, Table, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from common.anchor import Anchor, Head
from common.audit_entries import Entry
from common.audit_lines import GENESIS, AuditLine, damaged
from common.errors import StoreError

LINES_AT_ONCE = 1000
BEFORE_ALL = -(2**62)
"""Below every sequence number, those that nobody but a forger writes included."""


class AuditLog:
    """The log in one database.

    Parameters
    ----------
    engine : Engine
        From `common.database.open_database`, migrated.
    table : Table
        As `common.audit_lines.audit_table` declared it.
    anchor : Anchor, optional
        Without one, a tail that was cut off is not noticed.
    clock : callable, optional
        Returns an aware datetime; for tests.
    """

    def __init__(
        self,
        engine: Engine,
        table: Table,
        *,
        anchor: Anchor | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._table = table
        self._anchor = anchor
        self._clock = clock

    def append(self, *entries: Entry, remember: bool = True) -> tuple[AuditLine, ...]:
        """Write entries, all or none; when this returns they are on disk.

        Parameters
        ----------
        *entries : Entry
            In their order.
        remember : bool, default True
            Whether to move the anchor at once, which costs two more waits for the disk. Who
            says no calls `remember` soon: until then, a tail that is cut off is not noticed.

        Raises
        ------
        StoreError
            If the database or the anchor cannot be written, or, with code ``audit-damaged``, if
            the log's end is not as it was left.
        """
        if not entries:
            return ()
        try:
            with self._engine.begin() as connection:
                lines = self.append_in(connection, *entries)
        except SQLAlchemyError as error:
            raise _unusable(error) from error
        if remember:
            self.remember(lines[-1])
        return lines

    def append_in(self, connection: Connection, *entries: Entry) -> tuple[AuditLine, ...]:
        """Write entries in a transaction of the caller's, who calls `remember` after it.

        For what must be on disk together with its line, or not at all.

        Raises
        ------
        StoreError
            With code ``audit-damaged``, if the log's end is not as it was left.
        """
        if connection.dialect.name == "postgresql":
            # SQLite begins IMMEDIATE (common.database); here one writer at a time, too.
            connection.execute(text(f"LOCK TABLE {self._table.name} IN SHARE ROW EXCLUSIVE MODE"))
        last = self._checked_end(connection)
        lines = self._chained(last, entries)
        connection.execute(insert(self._table), [vars(line) for line in lines])
        return lines

    def remember(self, line: AuditLine) -> None:
        """Move the anchor to a line that was appended.

        Raises
        ------
        StoreError
            If the anchor cannot be written.
        """
        if self._anchor is not None:
            self._anchor.advance(line.sequence, line.digest)

    def lines(self, *, kinds: Collection[str] = (), after: int = BEFORE_ALL) -> Iterator[AuditLine]:
        """Yield lines, oldest first, of some kinds or of all, from ``after`` on.

        They are read in parts, so that a long log does not hold up its writers.

        Raises
        ------
        StoreError
            If the database cannot be read.
        """
        table = self._table
        query = select(table).order_by(table.c.sequence).limit(LINES_AT_ONCE)
        if kinds:
            query = query.where(table.c.kind.in_(kinds))
        while True:
            found = self._read(query.where(table.c.sequence > after))
            yield from found
            if len(found) < LINES_AT_ONCE:
                return
            after = found[-1].sequence

    def newest(self, kind: str) -> AuditLine | None:
        """Return the newest line of a kind; raises as `lines`."""
        table = self._table
        query = select(table).where(table.c.kind == kind).order_by(table.c.sequence.desc()).limit(1)
        found = self._read(query)
        return found[0] if found else None

    def anchored(self) -> Head | None:
        """Return the line that the anchor remembers; read it BEFORE the lines to compare."""
        return self._anchor.read() if self._anchor is not None else None

    def _read(self, query: object) -> list[AuditLine]:
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(query).mappings()  # type: ignore[call-overload]
                return [AuditLine(**row) for row in rows]
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def _checked_end(self, connection: Connection) -> AuditLine | None:
        table = self._table
        query = select(table).order_by(table.c.sequence.desc()).limit(1)
        row = connection.execute(query).mappings().first()
        last = AuditLine(**row) if row is not None else None
        if last is not None and last.digest != last.expected_digest():
            raise damaged("The newest line of the audit log was changed.")
        head = self.anchored()
        if head is not None:
            digest = connection.scalar(
                select(table.c.digest).where(table.c.sequence == head.sequence)
            )
            if digest != head.digest:
                raise damaged("The audit log has lost lines, or is an old copy.")
        return last

    def _chained(self, last: AuditLine | None, entries: tuple[Entry, ...]) -> tuple[AuditLine, ...]:
        written_at = self._clock().astimezone(UTC).isoformat(timespec="microseconds")
        sequence, previous = (last.sequence, last.digest) if last is not None else (0, GENESIS)
        lines = []
        for number, entry in enumerate(entries, start=sequence + 1):
            body = entry.model_dump_json()
            draft = AuditLine(number, entry.kind, written_at, body, previous, digest="")
            lines.append(replace(draft, digest=draft.expected_digest()))
            previous = lines[-1].digest
        return tuple(lines)


def _unusable(error: SQLAlchemyError) -> StoreError:
    return StoreError(
        f"The audit log cannot be used ({type(error).__name__}).",
        action="Check that the database runs and that the disk has room.",
        code="audit-unavailable",
    )
