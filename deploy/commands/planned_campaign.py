"""What `site budget --rounds` tells: the answer that this site would give to a preflight."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from common.errors import ConfigurationError, PlanRefused, PrivacyRefused
from common.plan import PrivacyRequest, RoundPlan
from common.recipe import Recipe
from common.refusals import SITE_REFUSALS

if TYPE_CHECKING:
    from client.policy import SitePolicy
    from client.privacy.ledger import PrivacyLedger
    from client.settings import SiteSettings


class PlannedCampaign(BaseModel):
    """What a campaign that is only planned would cost; None where this site would refuse it.

    ``code`` is then what the coordinator would be told, ``reason`` and ``action`` what the site's
    own log would say. Epsilons are upper bounds (RDP) after its last round. ``scores`` is False
    where nothing of the holdout could leave, so that this site could not help to judge the model.
    """

    model_config = ConfigDict(frozen=True)

    rounds: int
    affordable: bool
    code: str | None = None
    reason: str | None = None
    action: str | None = None
    noise_multiplier: float | None = None
    epsilon_round: float | None = None
    epsilon_campaign: float | None = None
    epsilon_life: float | None = None
    scores: bool = True


def plan_campaign(
    ledger: PrivacyLedger,
    settings: SiteSettings,
    policy: SitePolicy,
    rounds: int,
    asked: float | None,
) -> PlannedCampaign:
    """Hold a plan that nobody sent against policy and ledger, as a preflight's would be.

    Raises
    ------
    ConfigurationError
        If the site has no recipe of its task.
    StoreError
        If the ledger cannot be read.
    """
    from client.privacy.forecast import forecast_plan
    from client.scores_told import could_score
    from client.site_recipes import own_recipe

    recipe = own_recipe(settings, settings.task)
    if recipe is None:
        raise ConfigurationError(
            f"There is no recipe {settings.task}.",
            action=f"Put {settings.task}.toml into {settings.recipes}.",
        )
    now = time.time()
    plan = _imagined(recipe, rounds=rounds, epsilon=asked or recipe.privacy.epsilon, now=int(now))
    try:
        policy.check(plan, own=recipe, now=now)
        told = forecast_plan(ledger, plan, policy, site=settings.name)
    except (PlanRefused, PrivacyRefused) as error:
        return PlannedCampaign(
            rounds=rounds, affordable=False, code=error.code, reason=error.what, action=error.action
        )
    if told.code is not None:
        return PlannedCampaign(
            rounds=rounds, affordable=False, code=told.code, reason=SITE_REFUSALS.get(told.code)
        )
    cost = told.model_dump(include=PlannedCampaign.model_fields.keys() - {"rounds", "code"})
    scores = could_score(settings, recipe, policy)
    return PlannedCampaign(rounds=rounds, **(cost | {"scores": scores}))


def _imagined(recipe: Recipe, *, rounds: int, epsilon: float, now: int) -> RoundPlan:
    return RoundPlan(
        purpose="preflight",
        campaign="planned",
        round=1,
        rounds=rounds,
        nonce="0" * 64,
        base_digest="0" * 64,
        recipe=recipe,
        training=recipe.federation.local(recipe.privacy.training),
        trainable=recipe.privacy.trainable,
        privacy=PrivacyRequest(
            epsilon=epsilon,
            max_grad_norm=recipe.privacy.max_grad_norm,
            augmentation_multiplicity=recipe.privacy.augmentation_multiplicity,
        ),
        evaluate=False,
        issued_at=now,
        expires_at=now + 60,
    )
