"""Reading an audit log's lines of some kinds while the whole of it is verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.audit_chain import verify
from common.errors import StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from common.audit import AuditLog
    from common.audit_entries import Entry
    from common.audit_lines import AuditLine


def verified_entries(
    log: AuditLog, *kinds: str
) -> tuple[list[tuple[AuditLine, Entry]], tuple[str, ...]]:
    """Return a log's lines of these kinds with what they hold, and its faults, as sentences.

    A line that cannot be read is left out; the faults name it.
    """
    found: list[tuple[AuditLine, Entry]] = []

    def visit(line: AuditLine) -> None:
        if line.kind not in kinds:
            return
        try:
            found.append((line, line.entry()))
        except StoreError:
            return  # `verify` names it

    faults = verify(log, visit)
    return found, tuple(fault.text for fault in faults)


def placed(line: AuditLine, entry: Entry) -> dict[str, Any]:
    """Return an entry's fields with its place in the log, for a document's model."""
    place = {"sequence": line.sequence, "written_at": line.written_at}
    return place | entry.model_dump(exclude={"kind"})


def show_faults(faults: tuple[str, ...], console: Console) -> None:
    """Print what was changed in the log, or that nothing was."""
    for fault in faults:
        console.print(fault, style="bold red", markup=False)
    if not faults:
        console.print("The audit log is whole.")
