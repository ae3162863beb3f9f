"""The flags that say how a data set is written, of every command that reads one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigurationError

LabelsFile = Annotated[
    Path | None, typer.Option("--labels", help="Labels CSV; DATA/labels.csv by default.")
]
FileColumn = Annotated[str, typer.Option(help="Column of the file's path.")]
LabelColumn = Annotated[str, typer.Option(help="Column of the label.")]
PatientColumn = Annotated[str, typer.Option(help="Column of the patient.")]
LabelAlias = Annotated[
    list[str] | None, typer.Option(help="A label of the data as a class: NAME=CLASS.")
]
ClassOrder = Annotated[
    str | None, typer.Option(help="What the numeric labels 0, 1, … mean: CLASS,CLASS,…")
]
PatientPattern = Annotated[
    str | None, typer.Option(help=r"Patient out of the file's name: a pattern like '^(\d+)_'.")
]


def aliases_of(options: Sequence[str] | None) -> dict[str, str]:
    """Read ``NAME=CLASS`` options.

    Raises
    ------
    ConfigurationError
        If one is not of that form.
    """
    aliases = {}
    for option in options or ():
        name, separator, label = option.rpartition("=")
        if not separator or not name.strip() or not label.strip():
            raise ConfigurationError(
                f"The alias {option!r} is not of the form NAME=CLASS.",
                action="For example: --label-alias 'melanoma in situ=mel'.",
            )
        aliases[name.strip()] = label.strip()
    return aliases


def order_of(option: str | None) -> tuple[str, ...]:
    """Read ``CLASS,CLASS,…``."""
    return tuple(part.strip() for part in (option or "").split(",") if part.strip())
