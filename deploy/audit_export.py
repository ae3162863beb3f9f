"""What left a site, as a file for the coordinator to hold its own log against.

Only `left` lines are in it, each with what proves that it was not changed, and the log's newest
line. What it tells besides: by its numbering, how many other lines stand between.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.anchor import Head
from common.audit import AuditLog
from common.audit_entries import Left
from common.audit_lines import AuditLine
from common.errors import InputRefused, StoreError
from common.folders import write_private
from common.plan import Hex64, Identifier

MAXIMUM_BYTES = 1024**3


class ExportedLine(BaseModel):
    """A line of the log as it is stored; see `common.audit_lines.AuditLine`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int
    kind: str
    written_at: str
    body: str
    previous: Hex64
    digest: Hex64


class AuditExport(BaseModel):
    """The file, and the document that ``--json`` prints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Identifier
    head: Head | None
    lines: tuple[ExportedLine, ...]


def export_left(site: str, log: AuditLog) -> AuditExport:
    """Collect what left a site, oldest first."""
    newest: AuditLine | None = None
    lines: list[ExportedLine] = []
    for line in log.lines():
        newest = line
        if line.kind == "left":
            lines.append(ExportedLine.model_validate(vars(line)))
    head = Head(sequence=newest.sequence, digest=newest.digest) if newest is not None else None
    return AuditExport(site=site, head=head, lines=tuple(lines))


def write_export(export: AuditExport, path: Path) -> None:
    """Write the file, readable by its owner alone."""
    write_private(path, export.model_dump_json(indent=1).encode() + b"\n")


def read_export(path: Path) -> AuditExport:
    """Read a file that `write_export` made.

    Raises
    ------
    InputRefused
        With code ``export-unreadable``.
    """
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise InputRefused(f"{path} is larger than 1 GiB.", code="export-unreadable")
        return AuditExport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputRefused(
            f"{path} is no file of `wardround audit export`.",
            action="Ask the site for it again.",
            code="export-unreadable",
        ) from error


def checked_lines(export: AuditExport) -> tuple[list[Left], list[str]]:
    """Return what left, and a sentence for each line that is not as the site's log wrote it."""
    left: list[Left] = []
    faults: list[str] = []
    before = 0
    for exported in export.lines:
        line = AuditLine(**exported.model_dump())
        number = line.sequence
        if number <= before:
            faults.append(f"Line {number} stands after line {before}.")
        before = number
        try:
            entry = line.entry()
        except StoreError:
            entry = None
        if line.digest != line.expected_digest() or not isinstance(entry, Left):
            faults.append(f"Line {number} was changed.")
        else:
            left.append(entry)
    if before > (export.head.sequence if export.head is not None else 0):
        faults.append(f"Line {before} stands after the log's newest.")
    return left, faults
