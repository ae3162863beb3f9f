"""The Flower ServerApp: runs the campaign that the run's configuration names.

The coordinator's folder comes from the environment (``WARDROUND_COORDINATOR_FOLDER``), the
campaign's id from the run configuration (``campaign``). All else is in the registry, where
whoever wants to follow the campaign reads it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import ConfigurationError, WardroundError
from common.signing import SigningKey
from server.model_store import ModelStore
from server.registry.records import Candidate
from server.registry.registry import Registry
from server.rounds.checkpoints import Checkpoints
from server.rounds.clock import Clock, SystemClock
from server.rounds.exchange import Link
from server.rounds.loop import CampaignRun
from server.rounds.preflight import preflight
from server.rounds.site_directory import SiteDirectory
from server.settings import CoordinatorSettings

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "WARDROUND_COORDINATOR_FOLDER"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one campaign; a failure is written into the registry, and ends the run as failed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every poll
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise ConfigurationError(f"{FOLDER_VARIABLE} does not name the coordinator's folder.")
    settings = CoordinatorSettings.read(Path(folder))
    run_campaign(
        grid,
        settings,
        str(context.run_config.get("campaign", "")),
        flower_run=context.run_id,
    )


def run_campaign(
    grid: Grid,
    settings: CoordinatorSettings,
    identifier: str,
    *,
    flower_run: int | None = None,
    clock: Clock | None = None,
) -> Candidate | None:
    """Run a created campaign to its candidate, and say in the registry how it ended.

    None where the campaign was only to ask the sites what it would cost them.

    Raises
    ------
    WardroundError
        What made it fail; the registry says it, too.
    """
    registry = Registry.open(settings)
    try:
        campaign = registry.start_campaign(identifier, flower_run=flower_run)
        try:
            candidate = _run(grid, settings, registry, campaign.id, clock or SystemClock())
        except BaseException as error:  # an interrupted campaign must not look as if it ran on
            reason = error.line() if isinstance(error, WardroundError) else type(error).__name__
            logger.error("campaign-failed campaign=%s reason=%s", identifier, reason)
            registry.fail_campaign(identifier, reason)
            raise
        registry.finish_campaign(identifier)
        return candidate
    finally:
        registry.close()


def _run(
    grid: Grid, settings: CoordinatorSettings, registry: Registry, identifier: str, clock: Clock
) -> Candidate | None:
    campaign = registry.campaign(identifier)
    directory = SiteDirectory(grid, registry, clock, only=campaign.settings.sites)
    link = Link(
        grid=grid,
        directory=directory,
        registry=registry,
        key=SigningKey.read(settings.keys / "plan.pem"),
        clock=clock,
        settings=campaign.settings,
        plan_seconds=settings.plan_seconds,
    )
    preflight(link, campaign)
    if campaign.settings.only_preflight:
        return None
    models = ModelStore(settings.models)
    checkpoints = Checkpoints(models, settings.data / "campaigns" / campaign.id, clock)
    return CampaignRun(campaign, link=link, models=models, checkpoints=checkpoints).run()
