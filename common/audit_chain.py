"""Checking an audit log from its first line to its last, and naming every fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from common.anchor import Head
from common.audit import AuditLog
from common.audit_lines import GENESIS, AuditLine
from common.errors import StoreError

FaultCode = Literal[
    "line-changed", "lines-missing", "line-moved", "line-unreadable", "log-rewritten", "log-cut"
]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a log; ``sequence`` is the first line that it concerns."""

    code: FaultCode
    sequence: int
    text: str


def verify(log: AuditLog, visit: Callable[[AuditLine], None] | None = None) -> tuple[Fault, ...]:
    """Check a whole log.

    Parameters
    ----------
    log : AuditLog
        It may be written to meanwhile.
    visit : callable, optional
        Called with every line, oldest first.

    Returns
    -------
    tuple of Fault
        Empty for a whole log.

    Raises
    ------
    StoreError
        If the database cannot be read.
    """
    try:
        head, lost = log.anchored(), None
    except StoreError as error:
        head, lost = None, Fault("log-rewritten", 1, error.what)

    def lines() -> Iterator[AuditLine]:
        for line in log.lines():
            if visit is not None:
                visit(line)
            yield line

    found = tuple(find_faults(lines(), head))
    return found if lost is None else (lost, *found)


def find_faults(lines: Iterable[AuditLine], head: Head | None) -> Iterator[Fault]:
    """Yield what is wrong with lines that should be a whole log.

    Parameters
    ----------
    lines : iterable of AuditLine
        As stored, by sequence.
    head : Head or None
        What the anchor remembers.
    """
    expected, previous = 1, GENESIS
    anchored = head is None
    for line in lines:
        number = line.sequence
        if number != expected:
            yield _missing(expected, number)
        elif line.previous != previous:
            yield Fault("line-moved", number, f"Line {number} does not follow the line before it.")
        yield from _own_faults(line)
        if head is not None and number == head.sequence:
            anchored = True
            if line.digest != head.digest:
                said = f"Line {number} is not the one that the anchor remembers."
                yield Fault("log-rewritten", number, said)
        expected, previous = number + 1, line.digest
    if head is not None and not anchored and head.sequence >= expected:
        yield Fault("log-cut", expected, f"{_lines(expected, head.sequence)} cut off the end.")


def _own_faults(line: AuditLine) -> Iterator[Fault]:
    number = line.sequence
    if line.digest != line.expected_digest():
        yield Fault("line-changed", number, f"Line {number} was changed.")
        return
    try:
        line.entry()
    except StoreError as error:
        yield Fault("line-unreadable", number, error.what)


def _missing(expected: int, found: int) -> Fault:
    if found < expected:
        return Fault("line-moved", found, f"Line {found} stands where {expected} should.")
    return Fault("lines-missing", expected, f"{_lines(expected, found - 1)} missing.")


def _lines(first: int, last: int) -> str:
    return f"Line {first} is" if first == last else f"Lines {first} to {last} are"
