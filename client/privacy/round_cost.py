"""What a round must cost: the noise that it needs, and what the rounds that are left come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from client.privacy.accounting import Budget, Spend, epsilon, noise_multiplier_for
from client.privacy.ledger_lines import (
    Cost,
    LedgerLine,
    RoundRequest,
    rounds_without_privacy,
    spends,
)


def noise_of(lines: Sequence[LedgerLine], request: RoundRequest, budget: Budget) -> float:
    """Return the smallest noise multiplier that keeps the rest of the campaign within a budget.

    Raises
    ------
    PrivacyRefused
        With code ``budget-exhausted``, if there is none.
    """
    earlier = spends(lines, request.campaign)
    return noise_multiplier_for(
        campaign=earlier,
        life=spends(lines),
        sampling_rate=request.sampling_rate,
        steps=request.steps,
        rounds_left=request.rounds_left,
        budget=budget,
        guess=earlier[-1].noise_multiplier if earlier else None,
    )


def cost_of(lines: Sequence[LedgerLine], request: RoundRequest, budget: Budget) -> Cost:
    """Return what all rounds that are left would cost with that noise; raises as `noise_of`."""
    sigma = noise_of(lines, request, budget)
    one = Spend(sigma, request.sampling_rate, request.steps)
    rest = replace(one, steps=request.steps * request.rounds_left)
    whole = rounds_without_privacy(lines) == 0
    return Cost(
        noise_multiplier=sigma,
        epsilon_round=epsilon([one], budget.delta),
        epsilon_campaign=epsilon([*spends(lines, request.campaign), rest], budget.delta),
        epsilon_life=epsilon([*spends(lines), rest], budget.delta) if whole else None,
    )
