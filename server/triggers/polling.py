"""Asking the sites how they are, once a day, for the triggers that wait for what they say.

The question is a campaign that only asks (a preflight): nothing is trained, no privacy is spent,
and a site answers what its policy lists, so often a day as its policy says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from common.errors import WardroundError
from common.moments import utc_now
from server.triggers.rules import CLOCK_SET_BACK, DriftRule, NewCasesRule
from server.triggers.store import Trigger, TriggerStore

logger = logging.getLogger(__name__)

EVERY = timedelta(hours=24)
AFTER_A_FAILURE = timedelta(hours=1)


@dataclass(frozen=True)
class StatusPolls:
    """Asks for each task that a trigger on new cases or drift waits for.

    Parameters
    ----------
    store : TriggerStore
        The coordinator's.
    create : callable
        Creates the campaign that asks for a trigger's task, and lets it go; returns its id.
    clock : callable, optional
        The present, UTC.
    every : timedelta, optional
        How long a poll is good for.
    """

    store: TriggerStore
    create: Callable[[Trigger], str]
    clock: Callable[[], datetime] = utc_now
    every: timedelta = EVERY
    _failed: dict[str, datetime] = field(default_factory=dict)

    def look(self) -> tuple[str, ...]:
        """Ask for each task whose sites were not asked for a day; return the campaigns."""
        waiting = {
            trigger.task: trigger
            for trigger in self.store.all()
            if isinstance(trigger.rule, NewCasesRule | DriftRule)
        }
        asked = [self._ask(trigger) for trigger in waiting.values() if self._is_due(trigger.task)]
        return tuple(campaign for campaign in asked if campaign is not None)

    def _is_due(self, task: str) -> bool:
        now = self.clock()
        failed = self._failed.get(task)
        if failed is not None and failed <= now < failed + AFTER_A_FAILURE:
            return False
        if self.store.is_busy(task, now=now):
            return False
        newest = self.store.newest_poll(task)
        # A poll from the future is a clock that was set back: ask again.
        return newest is None or not (newest[1] - CLOCK_SET_BACK <= now < newest[1] + self.every)

    def _ask(self, trigger: Trigger) -> str | None:
        try:
            campaign = self.create(trigger)
        except WardroundError as error:
            self._failed[trigger.task] = self.clock()
            logger.error("status-poll-failed task=%s code=%s", trigger.task, error.code)
            return None
        logger.info("status-poll task=%s campaign=%s", trigger.task, campaign)
        return campaign
