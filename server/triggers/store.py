"""Triggers, their firings and the sites' signals in the registry's database."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Engine, and_, delete, func, not_, select

from common.errors import InputRefused, NotFound, RoundFailed, StoreError
from common.moments import in_utc
from server.registry.campaign_states import ENDED
from server.registry.sessions import Sessions
from server.registry.tables import CampaignRow, FiringRow, TriggerRow
from server.triggers.records import (
    Firing,
    Trigger,
    TriggerPlan,
    firing_of,
    trigger_of,
)
from server.triggers.rules import CLOCK_SET_BACK, Signal, SignalKind
from server.triggers.signals import keep_signal, signals_of

__all__ = ["Firing", "Trigger", "TriggerPlan", "TriggerStore"]

_POLL = CampaignRow.settings.contains('"only_preflight":true')
"""A campaign that only asks: it trains nothing, so it keeps no trigger waiting."""

LEFT_AFTER = timedelta(minutes=15)
"""A campaign that only asks and has not begun by then was left: it begins in seconds."""


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
        return trigger_of(found[0])

    def all(self) -> tuple[Trigger, ...]:
        """Return all triggers by name."""
        return tuple(
            map(trigger_of, self._sessions.all(select(TriggerRow).order_by(TriggerRow.name)))
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
                CampaignRow.task == trigger.task, CampaignRow.state.not_in(ENDED), ~_POLL
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
        return tuple(map(firing_of, self._sessions.all(query)))

    def report(self, site: str, task: str, kind: SignalKind, level: int, *, now: datetime) -> None:
        """Keep what a registered site reports, in place of what it reported before."""
        with self._sessions.writing() as session:
            keep_signal(session, site, task, kind, level, now=now)

    def newest_campaign(self, task: str) -> tuple[str, datetime] | None:
        """Return the id of a task's newest campaign that trains, and when it was created."""
        return self._newest(task, ~_POLL)

    def signals_since(self, task: str) -> datetime | None:
        """Return from when on sites' reports count: what came before was trained on, or was to be.

        That is when the task's last campaign finished, or when its newest was created where that
        is later: one that failed or was cancelled leaves what was told while it ran.
        """
        trains = (CampaignRow.task == task, ~_POLL)
        finished = (*trains, CampaignRow.state == "finished")
        with self._sessions.reading() as session:
            moments = (
                session.scalar(select(func.max(CampaignRow.created_at)).where(*trains)),
                session.scalar(select(func.max(CampaignRow.finished_at)).where(*finished)),
            )
        return max((in_utc(moment) for moment in moments if moment is not None), default=None)

    def newest_poll(self, task: str) -> tuple[str, datetime] | None:
        """Return the id of the newest campaign that only asked the sites, and when it was."""
        return self._newest(task, _POLL)

    def is_busy(self, task: str, *, now: datetime) -> bool:
        """Tell whether a campaign of the task has not ended, one that only asks included.

        One that only asks and was left where it was created, or paused, is none: nothing goes on
        with it, and it would keep the task's triggers from hearing anything, for ever.
        """
        row = CampaignRow
        # One from the future is a clock that was set back.
        new = row.created_at.between(now - LEFT_AFTER, now + CLOCK_SET_BACK)
        left = and_(_POLL, row.state.in_(("created", "paused")), not_(new))
        query = select(row).where(row.task == task, row.state.not_in(ENDED), not_(left))
        return bool(self._sessions.all(query.limit(1)))

    def _newest(self, task: str, which: ColumnElement[bool]) -> tuple[str, datetime] | None:
        query = select(CampaignRow).where(CampaignRow.task == task, which)
        found = self._sessions.all(query.order_by(CampaignRow.created_at.desc()).limit(1))
        return (found[0].id, in_utc(found[0].created_at)) if found else None

    def signals(self, task: str) -> tuple[Signal, ...]:
        """Return the sites' last reports for a task."""
        with self._sessions.reading() as session:
            return signals_of(session, task)
