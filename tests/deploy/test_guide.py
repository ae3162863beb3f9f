"""The commands of docs/running-a-federation.md: they exist, and name as many sites as it takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from common.recipe import load_recipe
from deploy.cli import app

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "running-a-federation.md"
COMMANDS = re.findall(r"(?m)^    (wardround .*)$|`(wardround [^`]*--[^`]*)`", GUIDE.read_text())
LINES = [one or other for one, other in COMMANDS]


@pytest.mark.parametrize("line", LINES)
def test_each_command_and_its_flags_exist(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(
    "line", [line for line in LINES if "--recipe" in line and "--site" in line]
)
def test_as_many_sites_are_named_as_the_recipe_asks_for(line: str) -> None:
    words = shlex.split(line, comments=True)
    recipe = load_recipe(words[words.index("--recipe") + 1])
    assert words.count("--site") >= max(recipe.federation.quorum, recipe.release.minimum_sites)
