"""A trigger, its firing, and how they stand in the registry's rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from common.moments import in_utc
from common.recipe import Recipe
from server.registry.tables import FiringRow, TriggerRow
from server.triggers.rules import RULES, Rule

FiringState = Literal["firing", "fired", "failed"]


class TriggerPlan(BaseModel):
    """How the campaign is to be, where not as the recipe says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: Annotated[int, Field(ge=1, le=100_000)] | None = None
    epsilon: Annotated[float, Field(gt=0, le=1000)] | None = None
    auto_approve: bool = False


@dataclass(frozen=True)
class Trigger:
    """A rule for one task.

    Attributes
    ----------
    recipe : Recipe
        As it was when the trigger was added.
    starts : bool
        Whether the campaign is let go at once; ``approved_by`` names who allowed that.
    looked_at : datetime
        Until when the schedule was looked at.
    standing : str or None
        Why it is due and does not fire, in words.
    """

    name: str
    rule: Rule
    recipe: Recipe
    plan: TriggerPlan
    starts: bool
    approved_by: str | None
    created_at: datetime
    looked_at: datetime
    standing: str | None

    @property
    def task(self) -> str:
        """The clinical task."""
        return self.recipe.name


@dataclass(frozen=True)
class Firing:
    """One firing: when and why, and the campaign that came of it, or the code of what failed."""

    trigger: str
    task: str
    slot: str
    state: FiringState
    reason: str
    fired_at: datetime
    campaign: str | None
    code: str | None


def trigger_of(row: TriggerRow) -> Trigger:
    """Return the trigger that a row holds."""
    return Trigger(
        name=row.name,
        rule=RULES.validate_json(row.rule),
        recipe=Recipe.model_validate_json(row.recipe),
        plan=TriggerPlan.model_validate_json(row.plan),
        starts=row.starts,
        approved_by=row.approved_by,
        created_at=in_utc(row.created_at),
        looked_at=in_utc(row.looked_at),
        standing=row.standing,
    )


def firing_of(row: FiringRow) -> Firing:
    """Return the firing that a row holds."""
    return Firing(
        trigger=row.trigger,
        task=row.task,
        slot=row.slot,
        state=cast("FiringState", row.state),
        reason=row.reason,
        fired_at=in_utc(row.fired_at),
        campaign=row.campaign,
        code=row.code,
    )
