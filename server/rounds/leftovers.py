"""What campaigns that are over leave on the coordinator's disk, and for how long.

A campaign that finished or was cancelled keeps its first model and its candidate alone: its
checkpoints are a few times as large as the model, and nothing will go on from them. A ServerApp
sees to that at the campaign's end; one that was cancelled has none to see to it.

A failed campaign may be resumed, so it keeps its files. Only its control variates (SCAFFOLD), each
of which says about a site what its updates did, go after `KEPT_DAYS`; resumed later, it learns them
anew, and sites that had trained the failed round are left out of that one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.model_store import ModelStore
from server.registry.campaign_states import FINAL
from server.registry.records import Campaign
from server.registry.registry import Registry
from server.rounds.checkpoints import Checkpoints
from server.rounds.control_variates import holds_variates, remove_variates
from server.rounds.driver import LOCK_NAME, campaign_folder, is_driven
from server.settings import CoordinatorSettings
from server.supervision import SupervisedTask

logger = logging.getLogger(__name__)

KEPT_DAYS = 14
LOOK_SECONDS = 3600.0


def remove_leftovers(
    settings: CoordinatorSettings, registry: Registry, *, now: datetime
) -> tuple[str, ...]:
    """Remove what nothing will use, of campaigns that nobody drives; return whose it was.

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
        if not _leaves(campaign, folder, now) or is_driven(campaign_folder(settings, campaign.id)):
            continue  # it may have been resumed between the look and here
        if campaign.state == "failed":
            remove_variates(folder)
        else:
            remove_files(settings, registry, campaign.id)
        removed.append(campaign.id)
        logger.info("leftovers-removed campaign=%s state=%s", campaign.id, campaign.state)
    return tuple(removed)


def remove_files(settings: CoordinatorSettings, registry: Registry, identifier: str) -> None:
    """Remove all that the rounds of a campaign that is over left, but what a record names.

    The rounds say which weights those were: every checkpoint's, every base that a site was asked
    about, the best ones. They go first, so that the folder tells until the end that some are left.

    Raises
    ------
    StoreError
        If the registry cannot be read.
    """
    folder, models = (
        campaign_folder(settings, identifier),
        own_models(settings, registry, identifier),
    )
    for one in registry.rounds(identifier):
        models.remove(one.base_digest)
        if one.aggregate_digest is not None:
            models.remove(one.aggregate_digest)
    Checkpoints(models, folder).clear()
    for path in _files(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def own_models(settings: CoordinatorSettings, registry: Registry, identifier: str) -> ModelStore:
    """Return the model store as a campaign may use it: it removes only what is its own."""
    return ModelStore(
        settings.models, named=lambda digest: registry.names_model(digest, beside=identifier)
    )


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


def _leaves(campaign: Campaign, folder: Path, now: datetime) -> bool:
    if campaign.state in FINAL:
        return bool(_files(folder))
    if campaign.state != "failed" or campaign.finished_at is None or not holds_variates(folder):
        return False
    return now - campaign.finished_at > timedelta(days=KEPT_DAYS)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != LOCK_NAME]
