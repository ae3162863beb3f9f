"""Rounds that end without a step, as training was cut off at sites that the quorum lacks.

A site reserves a round's epsilon before it trains, and trains it once. Cut off after that, it never
answers that round, however often the campaign is resumed: without it there may be no quorum for
ever. So such a round is over, without a step; the next one starts from the same model, and the
sites' budgets hold, as they count rounds, not steps.
"""

from __future__ import annotations

from dataclasses import replace

from common.errors import RoundFailed
from common.wording import listed, number
from server.outcome_reasons import ROUND_LOST, TRAINING_LOST
from server.registry.registry import Registry
from server.rounds.exchange_records import Collected
from server.rounds.scoring import OUTAGES

LOST_IN_A_ROW = 3
"""So many, one after the other, are no accident: a person should look before more is spent."""


def lost_sites(collected: Collected) -> tuple[str, ...]:
    """Return who was cut off, where the quorum was missed by that alone; else nobody.

    Then nothing makes up for it. A quorum that is missed for other reasons, or that sites which
    were only silent could make, may be met when the round is asked for again.
    """
    lost = sorted(site for site, code in collected.faults.items() if code == TRAINING_LOST)
    accepted, quorum = len(collected.accepted), collected.quorum
    silent = sum(code in OUTAGES for code in collected.faults.values())
    is_lost = accepted + silent < quorum <= accepted + len(lost)
    return tuple(lost) if is_lost else ()


def give_up_updates(registry: Registry, campaign: str, round_number: int) -> None:
    """Say of a lost round's updates that they are not in the model; harmless when said again."""
    for told in registry.contributions(campaign, number=round_number):
        if told.outcome == "accepted":
            registry.record_contribution(replace(told, outcome="failed", code=ROUND_LOST))


def rounds_lost(campaign: str, last: int, sites: tuple[str, ...], *, count: int) -> RoundFailed:
    """Return the error for a campaign that loses one round after the other, now ``count``."""
    return RoundFailed(
        f"{number(count, 'round')} in a row of campaign {campaign}, the last being round "
        f"{last}, ended without a step: training was cut off at {listed(sites)}.",
        meaning="Each has cost the sites their privacy, and the model is as it was before them.",
        action="Find out what ends the training there (memory, restarts), then resume the "
        f"campaign: it goes on after round {last}.",
        code="rounds-lost",
    )


def nothing_trained(registry: Registry, campaign: str, *, count: int) -> RoundFailed:
    """Return the error for a campaign of which all rounds, ``count``, ended without a step."""
    told = registry.contributions(campaign)
    sites = sorted({c.site for c in told if c.code == TRAINING_LOST})
    return RoundFailed(
        f"Campaign {campaign} made no step in {number(count, 'round')}, which were all that it "
        f"had: training was cut off at {listed(sites)}.",
        meaning="Its rounds have cost the sites their privacy, and there is no model to judge.",
        action="Find out what ends the training there (memory, restarts), then start a new "
        "campaign: in this one no round is left.",
        code="rounds-lost",
    )
