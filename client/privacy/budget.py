"""What a site has spent of its privacy budget, what is left, and whether the ledger is whole."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from common.errors import PrivacyRefused

if TYPE_CHECKING:
    from client.policy import SitePolicy
    from client.privacy.ledger import PrivacyLedger
    from client.settings import SiteSettings


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Epsilon(_Document):
    """Upper bounds by Renyi and by PRV accounting; None where no finite bound can be given."""

    rdp: float | None
    prv: float | None
    limit: float
    left: float


class CampaignBudget(_Document):
    """One campaign's spending. ``rounds`` counts reservations, whatever became of them."""

    campaign: str
    rounds: int
    without_privacy: int
    epsilon: Epsilon


class LedgerEntry(_Document):
    """One line of the ledger."""

    sequence: int
    kind: str
    campaign: str
    round: int
    noise_multiplier: float
    sampling_rate: float
    steps: int
    max_grad_norm: float
    outcome: str | None
    written_at: datetime


class LedgerState(_Document):
    """The ledger's state.

    ``chain_whole`` is False when a line was changed or lost; ``fault`` then says which.
    ``guaranteed`` is False when a round without privacy has ended the guarantee for the site's
    life: ``life`` then covers the other rounds only. ``left`` is by the running (RDP) bound.
    """

    site: str
    delta: float
    chain_whole: bool
    fault: str | None
    guaranteed: bool
    rounds_without_privacy: int
    life: Epsilon
    campaigns: tuple[CampaignBudget, ...]
    lines: tuple[LedgerEntry, ...]


def read_budget(settings: SiteSettings, policy: SitePolicy, ledger: PrivacyLedger) -> LedgerState:
    """Recompute a site's budget, PRV included; takes seconds where there are many rounds.

    Raises
    ------
    StoreError
        If the database cannot be read.
    """
    fault = None
    try:
        ledger.verify_chain()
    except PrivacyRefused as error:
        fault = error.what
    lines = ledger.entries()
    rdp = ledger.spent(policy.delta)
    prv = ledger.spent(policy.delta, kind="prv")
    reserved = [line for line in lines if line.kind == "reserve"]
    campaigns = []
    for campaign, spent in rdp.campaigns.items():
        own = [line for line in reserved if line.campaign == campaign]
        campaigns.append(
            CampaignBudget(
                campaign=campaign,
                rounds=len(own),
                without_privacy=sum(line.spend is None for line in own),
                epsilon=_epsilon(spent, prv.campaigns[campaign], policy.epsilon_campaign),
            )
        )
    return LedgerState(
        site=settings.name,
        delta=policy.delta,
        chain_whole=fault is None,
        fault=fault,
        guaranteed=rdp.rounds_without_privacy == 0,
        rounds_without_privacy=rdp.rounds_without_privacy,
        life=_epsilon(rdp.life, prv.life, policy.epsilon_life),
        campaigns=tuple(campaigns),
        lines=tuple(LedgerEntry.model_validate(vars(line)) for line in lines),
    )


def _epsilon(rdp: float, prv: float, limit: float) -> Epsilon:
    finite = float("inf")
    return Epsilon(
        rdp=rdp if rdp < finite else None,
        prv=prv if prv < finite else None,
        limit=limit,
        left=max(0.0, limit - rdp),
    )
