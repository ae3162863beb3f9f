from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from deploy.commands.flag_groups import spread_flags


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="How wide.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name")] = None


@spread_flags
def draw(
    what: Annotated[str, typer.Argument()],
    colour: Annotated[str | None, typer.Argument()] = None,
    *,
    size: Size,
    quiet: Annotated[bool, typer.Option("--quiet")] = False,
) -> None:
    """Draw it."""
    typer.echo(f"{what} {colour} {size} {quiet}")


def said(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(draw)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_the_fields_are_flags_among_the_commands_own() -> None:
    code, text = said("box", "red", "--width", "5", "--name", "a", "--name", "b", "--quiet")
    assert code == 0
    assert text == "box red Size(width=5, names=['a', 'b']) True\n"


def test_what_is_left_out_is_as_the_dataclass_has_it() -> None:
    assert said("box") == (0, "box None Size(width=3, names=None) False\n")


def test_a_fields_limits_hold_and_its_help_is_shown() -> None:
    assert said("box", "--width", "0")[0] == 2
    shown = said("--help")[1]
    assert "Draw it." in shown
    assert shown.index("How wide.") < shown.index("--quiet")
    assert "--size" not in shown
