"""Numbers in sentences: one patient, two patients."""

from __future__ import annotations


def number(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun; the plural ends in ``s`` unless it is given."""
    return f"{count} {one if count == 1 else many or one + 's'}"
