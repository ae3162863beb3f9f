"""`wardround coordinator campaign create|start|watch|pause|resume|cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.campaign_file import CampaignFile
from deploy.commands.campaign_choice import chosen_campaign
from deploy.commands.campaign_documents import emit_standing, emit_started
from deploy.commands.campaign_flags import CampaignFlags, Identifier, Watch
from deploy.commands.first_model import warn_of_first_model
from deploy.commands.flag_groups import spread_flags
from deploy.commands.flags import AsJson, Folder
from deploy.commands.registry import coordinator_settings
from deploy.commands.undeclared import warn_of_undeclared
from deploy.console import progress

if TYPE_CHECKING:
    from deploy.campaigns import OnProgress, Progress
    from server.registry.records import Campaign
    from server.settings import CoordinatorSettings


@spread_flags
def create(folder: Folder, flags: CampaignFlags, as_json: AsJson = False) -> None:
    """Create a campaign, and start nothing yet."""
    chosen = flags.read()
    settings = coordinator_settings(folder)
    emit_started(settings, _prepare(settings, chosen), as_json=as_json)


@spread_flags
def start(
    folder: Folder,
    campaign: Annotated[
        str | None, typer.Argument(help="One that was created; a new one by default.")
    ] = None,
    *,
    flags: CampaignFlags,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start a campaign; the coordinator's SuperLink must be running on this machine.

    Exit code 0 says that it was started, with --watch that it ended: the candidate may be refused.
    """
    from deploy.campaigns import start_campaign, start_prepared

    settings = coordinator_settings(folder)
    if campaign is None:
        campaign = _prepare(settings, flags.read())
        start_prepared(settings, campaign)
    else:
        start_campaign(settings, campaign)
    if watch:
        _watched(settings, campaign, quiet=as_json)
    emit_started(settings, campaign, as_json=as_json, follow=not watch)


def watch(campaign: Identifier, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Wait until a campaign is over, or paused. Exit code 1 when it fails.

    It says what became of the candidate: exit code 0 is also of one that the gate refused.
    """
    settings = coordinator_settings(folder)
    _watched(settings, campaign, quiet=as_json)
    emit_standing(settings, campaign, as_json=as_json)


def pause(campaign: Identifier, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Let a campaign rest when the round in progress is over. It stays so over a restart."""
    from deploy.campaigns import pause_campaign

    settings = coordinator_settings(folder)
    pause_campaign(settings, campaign)
    emit_standing(settings, campaign, as_json=as_json)


def resume(
    campaign: Identifier, folder: Folder = Path(), watch: Watch = False, as_json: AsJson = False
) -> None:
    """Let a paused, interrupted or failed campaign go on from where it was."""
    from deploy.campaigns import resume_campaign

    settings = coordinator_settings(folder)
    resume_campaign(settings, campaign)
    if watch:
        _watched(settings, campaign, quiet=as_json)
    emit_standing(settings, campaign, as_json=as_json)


def cancel(campaign: Identifier, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """End a campaign for ever; what single sites sent for it is removed."""
    from deploy.campaigns import cancel_campaign

    settings = coordinator_settings(folder)
    cancel_campaign(settings, campaign)
    emit_standing(settings, campaign, as_json=as_json)


def _prepare(settings: CoordinatorSettings, chosen: CampaignFile) -> str:
    from deploy.campaigns import prepare_campaign

    recipe, fields = chosen_campaign(settings, chosen)
    made = prepare_campaign(settings, recipe, **fields)
    warn_of_first_model(settings, made, weights=chosen.weights)
    return made


def _watched(settings: CoordinatorSettings, campaign: str, *, quiet: bool) -> Campaign:
    from deploy.campaigns import opened, watch_campaign

    with opened(settings) as registry:
        planned = registry.campaign(campaign).settings.rounds
    with progress(quiet=quiet) as display:
        task = display.add_task(f"campaign {campaign}", total=planned)

        def advance(seen: Progress) -> None:
            display.update(task, completed=seen.rounds_done)

        on_progress: OnProgress = advance
        try:
            return watch_campaign(settings, campaign, on_progress)
        finally:
            warn_of_undeclared(settings, campaign)
