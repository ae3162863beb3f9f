"""Flags that several commands share: a dataclass whose fields Typer sees as a command's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

Command = Callable[..., None]


def spread_flags(command: Command) -> Command:
    """Let Typer see the fields of a command's dataclass parameters, in their place, as flags.

    Typer reads a command's signature and calls it by keywords. The command returned has the fields
    in its signature, makes the dataclass of what it is called with, and hands that on.

    Parameters
    ----------
    command : callable
        Its dataclass parameters' fields are annotated as Typer's parameters are, and each has a
        default.
    """
    given = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {
        name: parameter.annotation
        for name, parameter in given.parameters.items()
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)
    }
    shown: list[inspect.Parameter] = []
    for name, parameter in given.parameters.items():
        if name in groups:
            shown += _fields_of(groups[name])
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def called(**values: Any) -> None:
        made = {
            name: group(**{f.name: values.pop(f.name) for f in fields(group) if f.name in values})
            for name, group in groups.items()
        }
        command(**made, **values)

    called.__annotations__ = {one.name: one.annotation for one in shown}
    called.__signature__ = given.replace(parameters=shown)  # type: ignore[attr-defined]
    return called


def _fields_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
