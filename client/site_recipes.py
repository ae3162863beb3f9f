"""The site's own copies of its recipes: what it understands by a name in a plan."""

from __future__ import annotations

from client.settings import SiteSettings
from common.errors import RecipeError
from common.folders import write_public
from common.recipe import Recipe, load_recipe, shipped_recipes


def own_recipe(settings: SiteSettings, name: str) -> Recipe | None:
    """Return ``recipes/<name>.toml`` of the site's folder, else the installed recipe, else None.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    name : str
        From a plan, where it is held to letters, digits and hyphens: no path.

    Raises
    ------
    RecipeError
        If the site's file breaks a rule, or holds another recipe.
    """
    path = settings.recipes / f"{name}.toml"
    if path.is_file():
        recipe = load_recipe(str(path))
        if recipe.name != name:
            raise RecipeError(
                f"{path} holds the recipe {recipe.name}.", action="Name the file after its recipe."
            )
        return recipe
    return load_recipe(name) if name in shipped_recipes() else None


def keep_recipe(settings: SiteSettings, recipe: Recipe) -> None:
    """Write the site's own copy of a recipe, in place of an earlier one."""
    settings.recipes.mkdir(exist_ok=True)
    write_public(settings.recipes / f"{recipe.name}.toml", recipe.toml().encode())
