"""What a plan asks of the privacy budget: for a round, and for a campaign before it begins."""

from __future__ import annotations

from client.policy import SitePolicy
from client.privacy.accounting import Budget
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from common.errors import PrivacyRefused
from common.plan import RoundPlan
from common.records import Forecast

UNAFFORDABLE = {"budget-exhausted", "delta-changed", "privacy-changed"}
"""What a forecast says of a campaign; anything else is wrong with the ledger itself."""


def round_request(plan: RoundPlan, policy: SitePolicy) -> RoundRequest:
    """Return what a plan asks to spend, its clip lowered to the policy's."""
    return RoundRequest(
        campaign=plan.campaign,
        round=plan.round,
        nonce=plan.nonce,
        rounds_left=plan.rounds - plan.round + 1,
        sampling_rate=plan.training.sampling_rate,
        steps=plan.training.local_steps,
        max_grad_norm=min(plan.privacy.max_grad_norm, policy.max_grad_norm),
    )


def round_budget(epsilon: float, policy: SitePolicy) -> Budget:
    """Return the limits of a campaign that asks for ``epsilon``: never beyond the policy's."""
    return Budget(
        epsilon_campaign=min(epsilon, policy.epsilon_campaign),
        epsilon_life=policy.epsilon_life,
        delta=policy.delta,
        min_noise_multiplier=policy.min_noise_multiplier,
        epsilon_round=policy.epsilon_round,
    )


def forecast_plan(
    ledger: PrivacyLedger, plan: RoundPlan, policy: SitePolicy, *, site: str
) -> Forecast:
    """Say what the plan's rounds, from its own round on, would cost.

    Only the ledger and the policy are looked at, and nothing is written.

    Raises
    ------
    PrivacyRefused
        With code ``ledger-damaged``.
    StoreError
        If the ledger cannot be read.
    """
    request = round_request(plan, policy)
    nothing = Forecast(
        site=site,
        campaign=plan.campaign,
        nonce=plan.nonce,
        rounds=request.rounds_left,
        affordable=True,
        delta=policy.delta if plan.privacy.epsilon is not None else None,
    )
    try:
        if plan.privacy.epsilon is None:
            ledger.check(request, delta=policy.delta, private=False)
            return nothing
        cost = ledger.forecast(request, round_budget(plan.privacy.epsilon, policy))
    except PrivacyRefused as error:
        if error.code not in UNAFFORDABLE:
            raise
        return nothing.model_copy(update={"affordable": False, "code": error.code})
    return Forecast.model_validate(nothing.model_dump() | vars(cost))
