"""How a command speaks: progress and tables for people, one JSON document for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from common.errors import (
    ConfigurationError,
    InputRefused,
    NotFound,
    PlanRefused,
    PrivacyRefused,
    UpdateRefused,
    WardroundError,
)
from common.recipe import shipped_recipes

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_EXPIRING = 4
EXIT_INTERRUPTED = 130

RECIPE_HELP = f"A shipped recipe ({', '.join(shipped_recipes())}), or a .toml file."

ENDLESS = 1000
"""Columns where stdout is no terminal: more than any table has."""

progress_console = Console(stderr=True)
"""For progress and warnings; a script that reads stdout never sees it."""


class ErrorDocument(BaseModel):
    """The JSON document that a failed command prints with ``--json``."""

    error: str
    what: str
    meaning: str
    action: str


def emit(document: BaseModel, *, as_json: bool, show: Callable[[Console], None]) -> None:
    """Print a command's result: the JSON of ``document``, or what ``show`` draws for a person."""
    if as_json:
        sys.stdout.write(document.model_dump_json(indent=2) + "\n")
        sys.stdout.flush()
    else:
        show(result_console())


def result_console() -> Console:
    """Return the console for a result; in a file or a pipe no line is wrapped."""
    console = Console()
    return console if console.is_terminal else Console(width=ENDLESS)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Yield a progress display on stderr; silent where that is no terminal, or ``quiet``."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    hidden = quiet or not progress_console.is_terminal
    with Progress(*columns, console=progress_console, disable=hidden) as display:
        yield display


def exit_code(error: WardroundError) -> int:
    """Map an error to the exit code that scripts see (docs/commands.md)."""
    if isinstance(error, (PlanRefused, PrivacyRefused, UpdateRefused)):
        return EXIT_REFUSED
    if isinstance(error, (ConfigurationError, InputRefused, NotFound)):
        return EXIT_USAGE
    return EXIT_FAILED


def report_error(error: WardroundError, *, as_json: bool) -> None:
    """Print an error: one clear line on stderr, or one JSON document on stdout."""
    if as_json:
        document = ErrorDocument(
            error=error.code, what=error.what, meaning=error.meaning, action=error.action
        )
        sys.stdout.write(json.dumps(document.model_dump(), indent=2) + "\n")
        return
    progress_console.print(f"[bold red]{error.code}[/]: ", end="", highlight=False)
    progress_console.print(error.line(), markup=False, highlight=False, soft_wrap=True)
