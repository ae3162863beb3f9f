"""Numbers and names in sentences: one patient, two patients; north, south and west."""

from __future__ import annotations

from collections.abc import Sequence


def number(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun; the plural ends in ``s`` unless it is given."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them, the last after an "and"."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
