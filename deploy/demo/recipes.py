"""A recipe as the demo uses it: for as few hospitals as there are, and without noise to compare."""

from __future__ import annotations

from common.recipe import Recipe
from common.wording import number
from server.campaigns import check_majority
from simulations.warned import Warned

UNCLIPPED_HEAD_RATE, UNCLIPPED_RATE = 1e-2, 1e-3


def for_hospitals(recipe: Recipe, count: int) -> tuple[Recipe, tuple[Warned, ...]]:
    """Return a recipe that so many hospitals can meet, and what was lowered, in words.

    The quorum of a round and the release gate's ``minimum_sites`` go down to ``count`` where they
    are above it: else the demo would train twice and could release nothing.

    Raises
    ------
    ConfigurationError
        With code ``campaign-settings``, if an aggregator cannot work with so few.
    """
    quorum = min(recipe.federation.quorum, count)
    sites = min(recipe.release.minimum_sites, count)
    check_majority(recipe, quorum)
    if (quorum, sites) == (recipe.federation.quorum, recipe.release.minimum_sites):
        return recipe, ()
    text = (
        f"The recipe asks for {number(recipe.federation.quorum, 'hospital')} in a round and for "
        f"{recipe.release.minimum_sites} before a release. Here are {count}, and this demo asks "
        f"for {quorum} and {sites}; a real campaign by this recipe would not release."
    )
    changes = {
        "federation": recipe.federation.model_copy(update={"quorum": quorum}),
        "release": recipe.release.model_copy(update={"minimum_sites": sites}),
    }
    return recipe.model_copy(update=changes), (Warned(code="few-hospitals", message=text),)


def without_noise(recipe: Recipe, *, patients: int, images: int) -> Recipe:
    """Return a recipe whose studies without privacy train as much as its private campaigns do.

    The same parameters move in as many steps on as many images: a private step draws patients and
    one image of each, one without privacy draws images, so that ``patients`` of ``images`` are its
    share. The step's length cannot be the same: a private one is fitted to clipped gradients, and
    unclipped ones would diverge with it, so AdamW finds its own.
    """
    model = recipe.model.model_copy(update={"trainable": recipe.privacy.trainable})
    private = recipe.privacy.training
    changes = {
        "optimizer": "adamw",
        "learning_rate": UNCLIPPED_HEAD_RATE if model.trainable == "head" else UNCLIPPED_RATE,
        "momentum": 0.0,
        "sampling_rate": private.sampling_rate * patients / images,
    }
    return recipe.model_copy(
        update={
            "model": model,
            "training": private.model_copy(update=changes),
            "federation": recipe.federation.model_copy(
                update={"server": recipe.federation.server_with_privacy}
            ),
        }
    )
