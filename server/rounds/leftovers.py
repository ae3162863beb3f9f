"""What campaigns that are over leave on the coordinator's disk, and for how long.

A control variate (SCAFFOLD) says about a site what its updates did. A failed campaign keeps them,
since it may be resumed, for `KEPT_DAYS`; resumed later, it learns them anew, and sites that had
trained the failed round are left out of that one. A finished or cancelled campaign keeps none, even
where whoever ended it was killed before removing them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from server.registry.records import Campaign
from server.registry.registry import Registry
from server.rounds.control_variates import holds_variates, remove_variates
from server.rounds.driver import campaign_folder, is_driven
from server.settings import CoordinatorSettings
from server.supervision import SupervisedTask

logger = logging.getLogger(__name__)

KEPT_DAYS = 14
LOOK_SECONDS = 3600.0


def remove_leftovers(
    settings: CoordinatorSettings, registry: Registry, *, now: datetime
) -> tuple[str, ...]:
    """Remove control variates that nothing will use; return whose they were.

    Parameters
    ----------
    settings : CoordinatorSettings
        Whose campaigns.
    registry : Registry
        Says how they stand.
    now : datetime
        Aware.

    Raises
    ------
    StoreError
        If the registry cannot be read.
    """
    removed = []
    for campaign in registry.campaigns():
        folder = settings.data / "campaigns" / campaign.id
        if not holds_variates(folder) or not _is_over(campaign, now):
            continue
        if is_driven(campaign_folder(settings, campaign.id)):
            continue  # it was resumed between the look and here
        remove_variates(folder)
        removed.append(campaign.id)
        logger.info("leftovers-removed campaign=%s state=%s", campaign.id, campaign.state)
    return tuple(removed)


def leftovers_task(
    settings: CoordinatorSettings,
    registry: Registry,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SupervisedTask:
    """Return the coordinator's task that removes them, not yet started."""

    def look() -> None:
        remove_leftovers(settings, registry, now=clock())

    return SupervisedTask("leftovers", look, every_seconds=LOOK_SECONDS)


def _is_over(campaign: Campaign, now: datetime) -> bool:
    if campaign.state in ("finished", "cancelled"):
        return True
    if campaign.state != "failed" or campaign.finished_at is None:
        return False
    return now - campaign.finished_at > timedelta(days=KEPT_DAYS)
