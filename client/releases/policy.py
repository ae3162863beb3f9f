"""The ``[releases]`` table of ``policy.toml``: which releases answer here, and how old one may be.

It stands in the policy and not in ``site.toml``: what answers clinicians is the hospital's own
decision, each change of it is to be in the audit log, and it is read anew for each release.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share: TypeAlias = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]

DAY = 86_400.0


class ReleasePolicy(BaseModel):
    """What becomes of a newer release that was verified and passed its self-test.

    Attributes
    ----------
    on_release : {"accept", "hold", "check"}
        ``accept`` serves it, ``hold`` has it wait for a person, ``check`` scores it and the one
        that answers on the site's own holdout and lets the figures decide.
    margin : float
        With ``check``: by how much macro AUROC may be lower than that of the one that answers.
    sensitivity_margin : float
        The same of sensitivity, each at its own threshold.
    if_worse : {"hold", "refuse"}
        With ``check``: what becomes of one that is worse by more than a margin, chance excluded.
    if_unclear : {"accept", "hold"}
        With ``check``: what becomes of one of which the holdout has too few cases to tell.
    stale_after : float
        Seconds since the coordinator last vouched for the release until that is an alarm; by
        default the life of its signed timestamp.
    refuse_after : float or None
        Seconds until the service answers no more (503, ``model-stale``). None, the default: never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_release: Literal["accept", "hold", "check"] = "check"
    margin: Share = 0.02
    sensitivity_margin: Share = 0.05
    if_worse: Literal["hold", "refuse"] = "hold"
    if_unclear: Literal["accept", "hold"] = "accept"
    stale_after: Seconds = DAY
    refuse_after: Seconds | None = None

    @model_validator(mode="after")
    def _warned_first(self) -> ReleasePolicy:
        if self.refuse_after is not None and self.refuse_after <= self.stale_after:
            raise ValueError("refuse_after: not later than stale_after, which warns first")
        return self
