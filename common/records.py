"""What a site says about a round: the receipt, the refusal and the reply as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from common.evaluation import SiteEvaluation
from common.plan import Hex64, Identifier
from common.update import ModelUpdate

Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]

MAXIMUM_NOISE_MULTIPLIER = 100.0
"""No site trains with more noise, and no coordinator takes in an update that was trained so."""
MAXIMUM_DELTA = 1e-3
"""A site's delta is below it, on both ends; an epsilon at a larger one says little."""


class Receipt(BaseModel):
    """What a round cost at one site, as the site's own ledger says it.

    ``epsilon_campaign`` and ``epsilon_life`` are upper bounds (RDP) at ``delta`` after this round,
    the latter over everything the site ever spent; both are None without privacy, and the latter
    where a round without privacy has ended the guarantee for the site's life.
    ``public_patients`` is the number of training patients that the site declares, never the
    counted one. ``seconds`` is rounded to ten. ``evaluation_outside_guarantee`` says that released
    holdout counts are not noised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Identifier
    campaign: Identifier
    round: Annotated[int, Field(ge=1)]
    nonce: Hex64
    base_digest: Hex64
    update_digest: Hex64 | None
    privacy_unit: Literal["patient", "none"]
    epsilon_campaign: Finite | None
    epsilon_life: Finite | None
    delta: Finite | None
    max_grad_norm: Finite | None
    noise_multiplier: Finite | None
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=0, le=10_000)]
    public_patients: Annotated[int, Field(ge=0, le=10_000_000)]
    seconds: Finite
    evaluation_outside_guarantee: bool = True

    @property
    def life_unbounded(self) -> bool:
        """Whether the round was private, and nothing bounds what the site's life has cost."""
        return self.privacy_unit == "patient" and self.epsilon_life is None


NEW_CASE_BANDS = (0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Floors of the bands in which new cases are told: never an exact number."""


def band_floor(count: int, minimum: int) -> int:
    """Return the floor of the band that a count is in; 0 below ``minimum``."""
    return max(floor for floor in NEW_CASE_BANDS if floor == 0 or minimum <= floor <= count)


class SiteStatus(BaseModel):
    """What a site tells of itself for the triggers of retraining, where its policy lists it.

    ``new_cases`` is the floor of the band of patients with a case that was confirmed since the
    site last trained for the task. ``drift`` compares them with those before: 0 is none that
    chance does not explain, 1 some, 2 much (``client.drift``); ``prediction_drift`` compares the
    model's newest answers with those on the holdout of its release (``client.monitoring.told``).
    None is not told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    new_cases: Annotated[int, Field(ge=0)] | None = None
    drift: Annotated[int, Field(ge=0, le=2)] | None = None
    prediction_drift: Annotated[int, Field(ge=0, le=2)] | None = None

    @field_validator("new_cases")
    @classmethod
    def _a_band(cls, value: int | None) -> int | None:
        if value is not None and value not in NEW_CASE_BANDS:
            raise ValueError("not the floor of a band")
        return value


class Forecast(BaseModel):
    """What the rounds of a plan would cost a site, from its policy and ledger alone.

    ``affordable`` is False where the policy or the budget would refuse, and ``code`` says why.
    Epsilons are upper bounds (RDP) at ``delta`` after ``rounds`` rounds; None without privacy, or
    where the site cannot afford them; ``epsilon_life`` also as on a receipt. ``scores`` is False
    where no count over the site's holdout could leave, so that it cannot score a candidate; where
    it is True, which is not sent, it can, or does not say. Nothing else in it depends on a case but
    ``status``, which is there only where the policy lists something of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Identifier
    campaign: Identifier
    nonce: Hex64
    rounds: Annotated[int, Field(ge=1)]
    affordable: bool
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")] | None = None
    noise_multiplier: Finite | None = None
    epsilon_round: Finite | None = None
    epsilon_campaign: Finite | None = None
    epsilon_life: Finite | None = None
    delta: Finite | None = None
    status: SiteStatus | None = None
    scores: Annotated[bool, Field(exclude_if=lambda value: value is True)] = True

    @property
    def life_unbounded(self) -> bool:
        """Whether the site can afford it, and nothing bounds what its life has cost."""
        return self.epsilon_campaign is not None and self.epsilon_life is None


class Refusal(BaseModel):
    """Why a site did not do as asked: a stable code, and no text from inside the site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


@dataclass(frozen=True)
class SiteReply:
    """One site's answer to one plan: exactly one of refusal, receipt and forecast is set."""

    site: str
    refusal: Refusal | None = None
    receipt: Receipt | None = None
    update: ModelUpdate | None = None
    evaluation: SiteEvaluation | None = None
    forecast: Forecast | None = None
