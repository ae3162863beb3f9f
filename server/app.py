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

from common.errors import (
    ConfigurationError,
    NotFound,
    RoundFailed,
    WardroundError,
)
from common.signing import SigningKey
from common.tracing import Place, traced
from server.audit import note_candidate
from server.registry.records import Candidate
from server.registry.registry import Registry
from server.revocations import revoked_sites
from server.rounds.buffered_loop import BufferedRun
from server.rounds.checkpoints import Checkpoints
from server.rounds.clock import Clock, SystemClock
from server.rounds.driver import campaign_folder, driving
from server.rounds.kept_answers import remove_answers
from server.rounds.leftovers import own_models, remove_files
from server.rounds.link import Link
from server.rounds.loop import CampaignPaused, CampaignRun
from server.rounds.preflight import preflight
from server.rounds.site_directory import SiteDirectory
from server.settings import CoordinatorSettings

logger = logging.getLogger(__name__)

KINDS = ("candidate", "gate-decision")
"""Of the audit lines that a candidate has."""

FOLDER_VARIABLE = "WARDROUND_COORDINATOR_FOLDER"

FLOWER_LOGGER = "flwr"
"""Name of the logger by which Flower says that a ServerApp failed."""


class _OneLine(logging.Filter):
    """Says in one line why the app ends, where Flower would print its own way there, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change what is to be printed; keep it in any case."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, WardroundError):
            record.msg, record.args = "%s: %s", (error.code, error.line())
            record.exc_info = record.exc_text = None
        return True


_ONE_LINE = _OneLine()

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one campaign; a failure is written into the registry, and ends the run as failed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every poll
    logging.getLogger(FLOWER_LOGGER).addFilter(_ONE_LINE)
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
    """Run a created or interrupted campaign, and say in the registry how it ended.

    None where the campaign was only to ask the sites what it would cost them, or was paused.

    A campaign that was interrupted goes on from its newest checkpoint; so does one whose
    ServerApp was killed before it could say so. Where this one ends without the campaign's being
    over, the campaign is interrupted, and the next one goes on.

    Raises
    ------
    RoundFailed
        With code ``campaign-state``, if it cannot be driven, or ``campaign-driven``, if another
        process on this machine drives it.
    WardroundError
        What made it fail; the registry says it, too.
    """
    registry = Registry.open(settings)
    folder = campaign_folder(settings, identifier)
    try:
        registry.campaign(identifier)
        with driving(folder):
            registry.moves.interrupt(identifier, "Its ServerApp was killed.", code="driver-gone")
            registry.start_campaign(identifier, flower_run=flower_run)
            return _drive(grid, settings, registry, identifier, clock or SystemClock())
    finally:
        registry.close()


def _drive(
    grid: Grid, settings: CoordinatorSettings, registry: Registry, identifier: str, clock: Clock
) -> Candidate | None:
    moves, folder = registry.moves, campaign_folder(settings, identifier)
    try:
        with traced("campaign", Place(identifier)):
            candidate = _run(grid, settings, registry, identifier, clock)
        moves.finish(identifier)
    except CampaignPaused:
        moves.settle(identifier)
        return None
    except BaseException as error:  # a campaign that nobody drives must not look as if it ran on
        reason = error.line() if isinstance(error, WardroundError) else type(error).__name__
        code = error.code if isinstance(error, WardroundError) else "unexpected"
        logger.error("campaign-ended campaign=%s reason=%s", identifier, reason)
        if code == "campaign-lost":
            raise
        if isinstance(error, RoundFailed | NotFound | ConfigurationError):
            moves.fail(identifier, reason, code=code)
            remove_answers(folder)
        else:
            moves.interrupt(identifier, reason, code=code)
        raise
    remove_answers(folder)
    return candidate


def _run(
    grid: Grid, settings: CoordinatorSettings, registry: Registry, identifier: str, clock: Clock
) -> Candidate | None:
    campaign = registry.campaign(identifier)
    directory = SiteDirectory(
        grid,
        registry,
        clock,
        only=campaign.settings.sites,
        revoked=lambda: revoked_sites(settings.pki),
    )
    link = Link(
        grid=grid,
        directory=directory,
        registry=registry,
        key=SigningKey.read(settings.keys / "plan.pem"),
        clock=clock,
        settings=campaign.settings,
        plan_seconds=settings.plan_seconds,
    )
    models = own_models(settings, registry, identifier)
    checkpoints = Checkpoints(models, campaign_folder(settings, identifier))
    done = registry.candidates(campaign=identifier)
    if done:  # killed after its last deed
        remove_files(settings, registry, identifier)
        if not any(f'"{done[0].id}"' in line.body for line in registry.audit.lines(kinds=KINDS)):
            note_candidate(registry.audit, done[0])
        return done[0]
    if not registry.rounds(identifier):
        preflight(link, campaign)
    if campaign.settings.only_preflight:
        return None
    kind = CampaignRun if campaign.settings.buffer is None else BufferedRun
    return kind(campaign, link=link, models=models, checkpoints=checkpoints).run()
