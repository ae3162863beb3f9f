"""Recipes as they are read: the shipped ones by name, any other by the path of its TOML."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from common.errors import RecipeError
from common.recipe.faults import recipe_error
from common.recipe.task import Recipe


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with Wardround, sorted."""
    folder = resources.files("common") / "recipes"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or any recipe by the path of its TOML file.

    Raises
    ------
    RecipeError
        If there is no such recipe, it is no TOML, or it breaks a rule; the message names the
        field.
    """
    if name_or_path in shipped_recipes():
        text = (resources.files("common") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
        return parse_recipe(text, origin=name_or_path)
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"The recipe {path} cannot be read: {error}.",
                action="Check the path and its permissions.",
            ) from error
        return parse_recipe(text, origin=str(path))
    raise RecipeError(
        f"There is no recipe {name_or_path!r}.",
        action=f"Use one of {', '.join(shipped_recipes())}, or the path of a .toml file.",
    )


def parse_recipe(text: str, *, origin: str = "recipe") -> Recipe:
    """Parse a recipe's TOML (or the JSON of `Recipe.model_dump_json`).

    Raises
    ------
    RecipeError
        As for `load_recipe`.
    """
    try:
        if text.lstrip().startswith("{"):
            return Recipe.model_validate_json(text)
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(
            f"{origin} is not valid TOML: {error}.",
            action="Correct the line that is named; common/recipes has examples.",
        ) from error
    except ValidationError as error:
        raise recipe_error(error, origin) from error
    return Recipe.checked(data, origin=origin)
