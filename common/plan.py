"""The round plan: all that a coordinator may ask of a site, signed and expiring.

A site believes nothing else: not Flower's run configuration, not the message's own metadata.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import PlanRefused
from common.recipe import SMALLEST_CLIP, LocalTraining, Recipe
from common.signing import Signature, SigningKey, VerifyKey

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]

Purpose: TypeAlias = Literal["train", "evaluate", "preflight"]

MAXIMUM_PLAN_BYTES = 65_536
CLOCK_SKEW_SECONDS = 300


class PrivacyRequest(BaseModel):
    """What the coordinator wants spent, at most; the site's policy has the last word.

    ``epsilon`` is for the whole campaign at the site's own delta; None asks for a study without
    privacy, which a site refuses unless its policy allows it by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None
    max_grad_norm: Annotated[float, Field(ge=SMALLEST_CLIP, le=1e6, allow_inf_nan=False)]
    augmentation_multiplicity: Annotated[int, Field(ge=1, le=32)] = 1


class RoundPlan(BaseModel):
    """One round's request.

    ``purpose`` is ``train`` (train, and evaluate the base when ``evaluate`` is set),
    ``evaluate``, or ``preflight`` (say what the rounds from ``round`` on would cost; no model
    travels, and nothing is touched). ``steps_before`` counts the campaign's earlier local steps,
    which places a non-private study's shuffled batches. ``correction`` is the digest of what is
    added to each local step's gradient (SCAFFOLD; `common.correction`), None where nothing is;
    it is left out of the plan's JSON then, so that sites of before can read it. Times are UTC
    seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    purpose: Purpose
    campaign: Identifier
    round: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]
    nonce: Hex64
    base_digest: Hex64
    recipe: Recipe
    training: LocalTraining
    trainable: Literal["all", "bias", "head"] = "all"
    privacy: PrivacyRequest
    evaluate: bool = True
    steps_before: Annotated[int, Field(ge=0)] = 0
    correction: Annotated[Hex64 | None, Field(exclude_if=lambda value: value is None)] = None
    issued_at: Annotated[int, Field(ge=0)]
    expires_at: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _consistent(self) -> RoundPlan:
        if self.round > self.rounds:
            raise ValueError("round: beyond the campaign's rounds")
        if self.expires_at <= self.issued_at:
            raise ValueError("expires_at: not after issued_at")
        scaffold = self.recipe.federation.algorithm == "scaffold"
        if self.correction is not None and not (scaffold and self.purpose == "train"):
            raise ValueError("correction: only training with SCAFFOLD has one")
        return self


@dataclass(frozen=True)
class SignedPlan:
    """A plan's exact JSON bytes and their signature."""

    payload: bytes
    signature: Signature

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the plan's bytes."""
        return hashlib.sha256(self.payload).hexdigest()


def sign_plan(plan: RoundPlan, key: SigningKey) -> SignedPlan:
    """Serialise and sign a plan."""
    payload = plan.model_dump_json().encode()
    return SignedPlan(payload, key.sign(payload))


def verify_plan(signed: SignedPlan, keys: Iterable[VerifyKey], *, now: float) -> RoundPlan:
    """Return the plan if one of ``keys`` signed it and it is neither expired nor from the future.

    Replay is not checked here: a site remembers the plans that it accepted.

    Parameters
    ----------
    signed : SignedPlan
        As it came.
    keys : iterable of VerifyKey
        The coordinator keys in the site's start-up kit.
    now : float
        UTC seconds since 1970.

    Raises
    ------
    PlanRefused
        With code ``plan-too-large``, ``plan-signature``, ``plan-malformed``, ``plan-expired`` or
        ``plan-not-yet-valid``. The text holds nothing of the site.
    """
    if len(signed.payload) > MAXIMUM_PLAN_BYTES:
        raise PlanRefused("The plan is larger than 64 KiB.", code="plan-too-large")
    if not any(key.accepts(signed.payload, signed.signature) for key in keys):
        raise PlanRefused(
            "No coordinator key in the start-up kit signed this plan.", code="plan-signature"
        )
    try:
        plan = RoundPlan.model_validate_json(signed.payload)
    except ValidationError as error:
        raise PlanRefused("The signed plan breaks the schema.", code="plan-malformed") from error
    if now >= plan.expires_at:
        raise PlanRefused("The plan has expired.", code="plan-expired")
    if now + CLOCK_SKEW_SECONDS < plan.issued_at:
        raise PlanRefused(
            "The plan is from the future: a clock is wrong.", code="plan-not-yet-valid"
        )
    return plan
