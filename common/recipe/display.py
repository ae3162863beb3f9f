"""Words in which pages name a class, for those whose own name is a code."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer


def _pairs(table: object) -> object:
    return tuple(table.items()) if isinstance(table, dict) else table


_Words = Annotated[str, Field(min_length=1, max_length=80)]
DisplayNames = Annotated[
    tuple[tuple[str, _Words], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict, return_type=dict[str, str]),
    Field(exclude_if=lambda names: not names),
]
"""Words for classes, a TOML table; kept as pairs, so that a recipe stays frozen."""
