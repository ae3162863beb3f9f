"""One command of `wardround` as an application of its own."""

from collections.abc import Callable

import typer


def single_command(function: Callable[..., object]) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(function)
    return app
