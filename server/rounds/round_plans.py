"""The plan of one round, before each site gets its own copy with a nonce and times."""

from __future__ import annotations

from common.plan import PrivacyRequest, RoundPlan
from common.recipe import Recipe
from server.registry.records import Campaign, Purpose
from server.rounds.turns import Turn

_NO_NONCE = "0" * 64


def round_plan(
    campaign: Campaign,
    number: int,
    *,
    purpose: Purpose,
    recipe: Recipe,
    base_digest: str,
    turn: Turn | None = None,
) -> RoundPlan:
    """Return what a round asks of every site.

    Parameters
    ----------
    campaign : Campaign
        Whose settings hold.
    number : int
        The round's in the registry; the plan's own stays within the campaign's rounds.
    purpose : {"train", "evaluate"}
        What is asked for.
    recipe : Recipe
        The campaign's; a champion's where that is scored.
    base_digest : str
        Of the model that travels.
    turn : Turn, optional
        Of the one site that is asked, where rounds are buffered: the plan's round is the site's
        own then, and ``number`` that of the step which its base model leads to.
    """
    settings, training = campaign.settings, campaign.training
    # What comes after the last round must not look to a site like an earlier one.
    within = max(number, 1) if number <= settings.rounds else settings.site_rounds
    one = min(max(number, 1), settings.rounds)
    scored = is_scored(one, settings.rounds, recipe.federation.evaluations)
    if campaign.base_release is not None and base_digest == campaign.initial_digest:
        scored = True  # the gate asks for the release's scores; the round before may have been lost
    if turn is not None:
        within, scored = turn.number, turn.evaluate
    return RoundPlan(
        purpose=purpose,
        campaign=campaign.id,
        round=within,
        rounds=settings.site_rounds,
        nonce=_NO_NONCE,
        base_digest=base_digest,
        recipe=recipe,
        training=training,
        trainable=settings.phase(number).scope,
        privacy=PrivacyRequest(
            epsilon=settings.epsilon,
            max_grad_norm=recipe.privacy.max_grad_norm,
            augmentation_multiplicity=recipe.privacy.augmentation_multiplicity,
        ),
        evaluate=scored,
        steps_before=(within - 1) * training.local_steps,
        issued_at=0,
        expires_at=1,
    )


def is_scored(number: int, rounds: int, evaluations: int) -> bool:
    """Tell whether round ``number`` is among the first and ``evaluations`` evenly spread ones."""
    if number == 1 or evaluations == 0:
        return True
    return number * evaluations // rounds > (number - 1) * evaluations // rounds
