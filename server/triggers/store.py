"""Triggers, their firings and the sites' signals in the registry's database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, delete, select

from common.errors import InputRefused, NotFound, RoundFailed, StoreError
from common.recipe import Recipe
from server.registry.campaign_states import ENDED
from server.registry.sessions import Sessions
from server.registry.tables import CampaignRow, FiringRow, SignalRow, TriggerRow
from server.triggers.rules import RULES, Rule, Signal, SignalKind

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


class TriggerStore:
    """The triggers of a coordinator.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        Of the registry, its schema up to date.
    """

    def __init__(self, engine: Engine) -> None:
        self._sessions = Sessions(engine)

    def add(self, trigger: Trigger) -> None:
        """Add a trigger.

        Raises
        ------
        InputRefused
            With code ``trigger-exists`` or ``trigger-unapproved``.
        """
        if trigger.starts and not trigger.approved_by:
            raise InputRefused(
                "A trigger that starts campaigns by itself needs a person who allowed it.",
                action="Name them with --approved-by.",
                code="trigger-unapproved",
            )
        row = TriggerRow(
            name=trigger.name,
            task=trigger.task,
            rule=trigger.rule.model_dump_json(),
            recipe=trigger.recipe.model_dump_json(),
            plan=trigger.plan.model_dump_json(),
            starts=trigger.starts,
            approved_by=trigger.approved_by,
            created_at=trigger.created_at,
            looked_at=trigger.looked_at,
        )
        try:
            with self._sessions.writing() as session:
                session.add(row)
        except StoreError as error:
            if error.code != "registry-conflict":
                raise
            raise InputRefused(
                f"There is a trigger {trigger.name!r} already.", code="trigger-exists"
            ) from error

    def remove(self, name: str) -> None:
        """Remove a trigger; what it fired stays on record.

        Raises
        ------
        NotFound
            If there is none of that name.
        """
        self.get(name)
        with self._sessions.writing() as session:
            session.execute(delete(TriggerRow).where(TriggerRow.name == name))

    def get(self, name: str) -> Trigger:
        """Return a trigger; NotFound if there is none of that name."""
        found = self._sessions.all(select(TriggerRow).where(TriggerRow.name == name))
        if not found:
            raise NotFound(
                f"There is no trigger {name!r}.",
                action="`wardround coordinator trigger list` names them.",
            )
        return _trigger(found[0])

    def all(self) -> tuple[Trigger, ...]:
        """Return all triggers by name."""
        return tuple(
            map(_trigger, self._sessions.all(select(TriggerRow).order_by(TriggerRow.name)))
        )

    def mark(self, name: str, *, looked_at: datetime, standing: str | None) -> None:
        """Record until when a trigger was looked at, and why it stands where it is due."""
        with self._sessions.writing() as session:
            row = session.get(TriggerRow, name)
            if row is not None:
                row.looked_at, row.standing = looked_at, standing

    def begin(self, trigger: Trigger, slot: str, reason: str, *, now: datetime) -> bool:
        """Record that a trigger begins to fire; False where it fired for this slot before.

        Raises
        ------
        RoundFailed
            With code ``task-busy``, if a campaign of the task has not ended, or another trigger
            of it is firing at this moment.
        """
        row = FiringRow(
            trigger=trigger.name, task=trigger.task, slot=slot, state="firing", reason=reason,
            fired_at=now,
        )  # fmt: skip
        with self._sessions.writing() as session:
            # Locked in order, so that of two that fire at once the second sees the first.
            session.execute(select(TriggerRow).where(TriggerRow.task == trigger.task)
                            .order_by(TriggerRow.name).with_for_update())  # fmt: skip
            known = select(FiringRow).where(
                FiringRow.trigger == trigger.name, FiringRow.slot == slot
            )
            if session.scalars(known).first() is not None:
                return False
            active = select(CampaignRow).where(
                CampaignRow.task == trigger.task, CampaignRow.state.not_in(ENDED)
            )
            firing = select(FiringRow).where(
                FiringRow.task == trigger.task, FiringRow.state == "firing"
            )
            campaign, other = session.scalars(active).first(), session.scalars(firing).first()
            if campaign is not None or other is not None:
                what = (
                    f"campaign {campaign.id} is {campaign.state}"
                    if campaign is not None
                    else f"trigger {other.trigger if other else ''} is firing"
                )
                raise RoundFailed(
                    f"Task {trigger.task} is not free: {what}.",
                    meaning="One task is never trained twice at the same time.",
                    code="task-busy",
                )
            session.add(row)
            session.flush()
        return True

    def end(self, name: str, slot: str, *, campaign: str | None, code: str | None = None) -> None:
        """Record what came of a firing."""
        with self._sessions.writing() as session:
            query = select(FiringRow).where(FiringRow.trigger == name, FiringRow.slot == slot)
            for row in session.scalars(query):
                row.state = "fired" if code is None else "failed"
                row.campaign, row.code = campaign, code

    def firings(self, name: str | None = None) -> tuple[Firing, ...]:
        """Return firings, the newest first."""
        query = select(FiringRow).order_by(FiringRow.id.desc())
        if name is not None:
            query = query.where(FiringRow.trigger == name)
        return tuple(map(_firing, self._sessions.all(query)))

    def report(self, site: str, task: str, kind: SignalKind, level: int, *, now: datetime) -> None:
        """Keep what a registered site reports, in place of what it reported before."""
        with self._sessions.writing() as session:
            session.merge(SignalRow(site=site, task=task, kind=kind, level=level, reported_at=now))

    def newest_campaign(self, task: str) -> tuple[str, datetime] | None:
        """Return the id of a task's newest campaign and when it was created."""
        query = select(CampaignRow).where(CampaignRow.task == task)
        found = self._sessions.all(query.order_by(CampaignRow.created_at.desc()).limit(1))
        return (found[0].id, _utc(found[0].created_at)) if found else None

    def signals(self, task: str) -> tuple[Signal, ...]:
        """Return the sites' last reports for a task."""
        query = select(SignalRow).where(SignalRow.task == task).order_by(SignalRow.site)
        return tuple(
            Signal(row.site, cast("SignalKind", row.kind), row.level, _utc(row.reported_at))
            for row in self._sessions.all(query)
        )


def _trigger(row: TriggerRow) -> Trigger:
    return Trigger(
        name=row.name,
        rule=RULES.validate_json(row.rule),
        recipe=Recipe.model_validate_json(row.recipe),
        plan=TriggerPlan.model_validate_json(row.plan),
        starts=row.starts,
        approved_by=row.approved_by,
        created_at=_utc(row.created_at),
        looked_at=_utc(row.looked_at),
        standing=row.standing,
    )


def _firing(row: FiringRow) -> Firing:
    return Firing(
        trigger=row.trigger,
        task=row.task,
        slot=row.slot,
        state=cast("FiringState", row.state),
        reason=row.reason,
        fired_at=_utc(row.fired_at),
        campaign=row.campaign,
        code=row.code,
    )


def _utc(moment: datetime) -> datetime:
    """SQLite forgets the zone; what we write is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
