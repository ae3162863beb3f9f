"""The JSON headers of all messages: what they say, and what may stand together in one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.compression import Compression
from common.evaluation import SiteEvaluation
from common.plan import MAXIMUM_PLAN_BYTES, Hex64, Identifier
from common.records import Forecast, Receipt, Refusal
from common.update import UpdateBinding


class SiteDescription(BaseModel):
    """A site's answer to ``describe``: who it is and what software it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Identifier
    software: Annotated[str, Field(min_length=1, max_length=64)]


class Query(BaseModel):
    """The question who a site is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: Literal["describe"] = "describe"


class ModelStep(BaseModel):
    """What a request's tensors are where they are no whole model: a step from another one.

    ``base_digest`` is that of the model that the step starts from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_digest: Hex64
    compression: Compression


class Request(BaseModel):
    """What a round asks of a site: the plan as it was signed, and what the tensors are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Annotated[str, Field(max_length=2 * MAXIMUM_PLAN_BYTES)]
    signature: Annotated[str, Field(max_length=128)]
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    step: ModelStep | None = None
    correction: Annotated[Compression | None, Field(exclude_if=lambda value: value is None)] = None


class Binding(BaseModel):
    """The one request that an update answers, as it travels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: Identifier
    round: Annotated[int, Field(ge=1)]
    nonce: Hex64
    base_digest: Hex64


class Reply(BaseModel):
    """What a site answers: a refusal, a forecast, or a receipt with or without an update."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Identifier
    refusal: Refusal | None = None
    receipt: Receipt | None = None
    binding: Binding | None = None
    compression: Compression = "none"
    evaluation: SiteEvaluation | None = None
    forecast: Forecast | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Reply:
        if [self.refusal, self.receipt, self.forecast].count(None) != 2:
            raise ValueError("exactly one of refusal, receipt and forecast is needed")
        forecast = self.forecast
        if forecast is not None and (forecast.site != self.site or self.evaluation is not None):
            raise ValueError("a forecast is another site's, or carries an evaluation")
        if self.receipt is None:
            if self.binding is not None:
                raise ValueError("only a receipt carries an update")
            return self
        if self.binding is None and self.compression != "none":
            raise ValueError("nothing is compressed")
        if self.receipt.site != self.site:
            raise ValueError("the receipt is another site's")
        if (self.receipt.update_digest is None) != (self.binding is None):
            raise ValueError("the receipt and the update do not belong together")
        if self.binding is not None and self.binding != binding_of(self.receipt):
            raise ValueError("the update is bound to another request than its receipt")
        return self


def binding_of(source: UpdateBinding | Receipt) -> Binding:
    """Return what an update, or a receipt, is bound to."""
    return Binding(
        campaign=source.campaign,
        round=source.round,
        nonce=source.nonce,
        base_digest=source.base_digest,
    )
