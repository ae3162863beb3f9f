"""Looking at all triggers, and firing those that are due: each at most once for one slot.

What a firing goes through is durable: ``firing`` is written before the campaign is created,
``fired`` or ``failed`` after it. A coordinator that died in between finds its firing at the next
look, and either the campaign that came of it or none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from common.errors import RoundFailed, WardroundError
from common.moments import utc_now
from server.triggers.rules import Due, ScheduleRule, clock_was_set_back, due
from server.triggers.store import Trigger, TriggerStore

logger = logging.getLogger(__name__)

FIRING_LASTS = timedelta(minutes=15)
"""A firing that is not over by then was cut short: creating a campaign takes seconds."""


@dataclass(frozen=True)
class TriggerEvaluator:
    """Fires triggers.

    Parameters
    ----------
    store : TriggerStore
        The coordinator's.
    create : callable
        Creates a trigger's campaign and returns its id; may raise a `WardroundError`.
    clock : callable, optional
        The present, UTC. It may jump.
    """

    store: TriggerStore
    create: Callable[[Trigger], str]
    clock: Callable[[], datetime] = utc_now

    def look(self) -> tuple[str, ...]:
        """Look at every trigger once; return the campaigns that came of it."""
        self._settle()
        made = [self._look_at(trigger) for trigger in self.store.all()]
        return tuple(campaign for campaign in made if campaign is not None)

    def fire(self, name: str) -> str:
        """Fire a trigger by hand; return the campaign.

        Raises
        ------
        NotFound
            If there is none of that name.
        RoundFailed
            With code ``task-busy``, if a campaign of the task has not ended.
        WardroundError
            What kept the campaign from being created.
        """
        self._settle()
        trigger, now = self.store.get(name), self.clock()
        found = Due(slot=f"hand-{now.isoformat(timespec='microseconds')}", reason="By hand.")
        self.store.begin(trigger, found.slot, found.reason, now=now)
        return self._campaign(trigger, found)

    def _look_at(self, trigger: Trigger) -> str | None:
        now = self.clock()
        if clock_was_set_back(now=now, looked_at=trigger.looked_at):
            logger.warning("trigger-clock-back trigger=%s", trigger.name)
            self.store.mark(trigger.name, looked_at=now, standing=trigger.standing)
            return None
        found = due(
            trigger.rule,
            now=now,
            looked_at=trigger.looked_at,
            signals=self.store.signals(trigger.task),
            since=self.store.signals_since(trigger.task),
        )
        if found is None:
            if trigger.standing is not None and not isinstance(trigger.rule, ScheduleRule):
                self.store.mark(trigger.name, looked_at=trigger.looked_at, standing=None)
            return None
        return self._fire_due(trigger, found, now)

    def _fire_due(self, trigger: Trigger, found: Due, now: datetime) -> str | None:
        try:
            begun = self.store.begin(trigger, found.slot, found.reason, now=now)
        except RoundFailed as error:
            self._hold(trigger, found, error, now)
            return None
        self.store.mark(trigger.name, looked_at=now, standing=None)
        if not begun:
            return None
        try:
            return self._campaign(trigger, found)
        except WardroundError:
            return None  # it is on record, and the other triggers have their turn

    def _hold(self, trigger: Trigger, found: Due, error: RoundFailed, now: datetime) -> None:
        """Say why it does not fire. A schedule's occurrence is over; reports of sites wait."""
        scheduled = isinstance(trigger.rule, ScheduleRule)
        standing = f"{found.reason} {error.what}{' It is left out.' if scheduled else ''}"
        if standing == trigger.standing and not scheduled:
            return
        logger.info("trigger-held trigger=%s code=%s", trigger.name, error.code)
        looked_at = now if scheduled else trigger.looked_at
        self.store.mark(trigger.name, looked_at=looked_at, standing=standing)

    def _campaign(self, trigger: Trigger, found: Due) -> str:
        try:
            campaign = self.create(trigger)
        except Exception as error:
            code = error.code if isinstance(error, WardroundError) else "unexpected"
            logger.error("trigger-failed trigger=%s code=%s", trigger.name, code, exc_info=error)
            self.store.end(trigger.name, found.slot, campaign=None, code=code)
            raise
        self.store.end(trigger.name, found.slot, campaign=campaign)
        logger.info("trigger-fired trigger=%s campaign=%s", trigger.name, campaign)
        return campaign

    def _settle(self) -> None:
        """End the firings that a crash cut short."""
        for firing in self.store.firings():
            # One from the future is a clock that was set back.
            if firing.state != "firing" or abs(self.clock() - firing.fired_at) < FIRING_LASTS:
                continue
            newest = self.store.newest_campaign(firing.task)
            made = newest is not None and newest[1] >= firing.fired_at
            campaign = newest[0] if newest is not None and made else None
            code = None if made else "firing-interrupted"
            logger.warning("trigger-settled trigger=%s campaign=%s", firing.trigger, campaign)
            self.store.end(firing.trigger, firing.slot, campaign=campaign, code=code)
