"""Refusing, before anything is recorded, a network that the sites would refuse."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from common.errors import ConfigurationError, WardroundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.recipe import Recipe
    from server.settings import CoordinatorSettings


def check_network_choice(settings: CoordinatorSettings, recipe: Recipe, model: str | None) -> None:
    """Refuse a ``--model`` that is neither the recipe's own network nor one of its alternatives.

    Sites hold a plan to their own copy of the recipe (`Recipe.allows`). It is taken to be the one
    that is given here; where sites' folders are beside the coordinator's, as in a federation of
    `wardround local up`, theirs count as well, and so does a policy that names recipes by digest.

    Parameters
    ----------
    settings : CoordinatorSettings
        Whose sites they are.
    recipe : Recipe
        As it was read, without the campaign's changes.
    model : str or None
        The network that is asked for; None for the recipe's own.

    Raises
    ------
    ConfigurationError
        With code ``network-not-agreed``; it names the networks that sites take.
    """
    networks = [recipe.model.architecture, *recipe.model.alternatives]
    if model is None or model in networks:
        return
    for of_a_site in _of_the_sites_here(settings, recipe.name):
        if of_a_site is None or model in of_a_site:
            return
        networks += of_a_site
    raise ConfigurationError(
        f"{model} is not one of the networks of the recipe {recipe.name}.",
        meaning="Sites would refuse it (recipe-changed); nothing was recorded.",
        action=f"Choose one of {', '.join(dict.fromkeys(networks))}. For another, agree with the "
        "hospitals on a recipe file that names it, and give that as --recipe: each site needs it "
        "in its recipes folder, or its digest in policy.toml.",
        code="network-not-agreed",
    )


def _of_the_sites_here(settings: CoordinatorSettings, task: str) -> Iterator[list[str] | None]:
    """Yield each site's networks of the task; None where its policy goes by digests."""
    from client.policy import SitePolicy
    from client.settings import SiteSettings
    from client.site_recipes import own_recipe

    for file in sorted(settings.folder.parent.glob("sites/*/site.toml")):
        with suppress(WardroundError):  # what cannot be read here is that site's to say
            site = SiteSettings.read(file.parent)
            own, policy = own_recipe(site, task), SitePolicy.read(site.policy)
            if any(entry.startswith(f"{task}@") for entry in policy.allowed_recipes):
                yield None
            if own is not None:
                yield [own.model.architecture, *own.model.alternatives]
