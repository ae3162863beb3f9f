"""Settings that make any recipe small enough for phantoms on two cores."""

from __future__ import annotations

from common.recipe import LocalTraining, Recipe

NETWORK = "test_resnet"
IMAGE_SIZE = 48
ADAMW = LocalTraining(optimizer="adamw", learning_rate=2e-3, local_steps=15, sampling_rate=0.2)
SGD = LocalTraining(optimizer="sgd", learning_rate=0.05, local_steps=15, sampling_rate=0.2)


def for_phantoms(recipe: Recipe, *, plain_sgd: bool = False) -> Recipe:
    """Return the recipe with a tiny network (0.37 M parameters) and steps that suit it.

    With ``plain_sgd`` the sites take steps that SCAFFOLD can work with.
    """
    training = SGD if plain_sgd else ADAMW
    privacy = recipe.privacy.model_copy(update={"training": training, "trainable": "all"})
    # About a hundred holdout patients: two macro AUROCs closer than this cannot be told apart, and
    # a hospital holds out fewer than ten with cancer.
    release = recipe.release.model_copy(
        update={"non_inferiority_margin": 0.05, "interval_margin": 0.2, "judged_cases": 5}
    )
    federation = recipe.federation.model_copy(update={"early_stopping_rounds": 0})
    changed = recipe.model_copy(
        update={
            "training": training,
            "privacy": privacy,
            "release": release,
            "federation": federation,
        }
    )
    return changed.with_changes(model=NETWORK, image_size=IMAGE_SIZE)
