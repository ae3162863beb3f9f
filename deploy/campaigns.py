"""A campaign on a running federation: create, start, watch, pause, resume, cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from common.errors import ProcessError, RoundFailed
from common.recipe import Recipe
from deploy import flower_run
from deploy.keeper import keeper_lock
from server.registry.campaign_states import DRIVEN
from server.registry.records import Campaign, Contribution, Round
from server.registry.registry import Registry
from server.rounds.control_variates import remove_variates
from server.rounds.driver import campaign_folder, is_driven
from server.rounds.kept_answers import remove_answers
from server.settings import CoordinatorSettings

POLL_SECONDS = 0.25
ALONE_SECONDS = 120.0
"""For which nobody need drive a campaign: the keeper may have to start more than one Flower run."""


@dataclass(frozen=True)
class Progress:
    """Where a campaign stands: its rounds so far and what every site said in them."""

    campaign: Campaign
    rounds: tuple[Round, ...]
    contributions: tuple[Contribution, ...]

    @property
    def rounds_done(self) -> int:
        """Training rounds that are finished."""
        return sum(r.purpose == "train" and r.state == "finished" for r in self.rounds)


OnProgress = Callable[[Progress], None]


def launch_campaign(
    settings: CoordinatorSettings, recipe: Recipe, *, weights: Path | None = None, **chosen: Any
) -> str:
    """Create a campaign in the registry and start the Flower run that carries it.

    Parameters
    ----------
    settings : CoordinatorSettings
        Of a coordinator whose SuperLink runs on this machine.
    recipe : Recipe
        What is trained.
    weights : Path, optional
        A safetensors file to start from, in place of random weights. Where it holds BatchNorm
        statistics (timm's published weights do), they are kept, frozen.
    **chosen
        What is not to be as the recipe says; see `server.campaigns.create_campaign`.

    Returns
    -------
    str
        The campaign's id.

    Raises
    ------
    ProcessError
        If the SuperLink does not take the run; the campaign is marked as failed.
    """
    identifier = prepare_campaign(settings, recipe, weights=weights, **chosen)
    start_prepared(settings, identifier)
    return identifier


def start_prepared(settings: CoordinatorSettings, identifier: str) -> None:
    """Start a campaign that the same command has created.

    Where that fails, the campaign has failed, too: as one that was only created, it would keep
    the triggers of its task waiting, and nobody would know of it.

    Raises
    ------
    ProcessError
        If the SuperLink does not take the run; the text names the campaign.
    """
    try:
        start_campaign(settings, identifier)
    except BaseException as error:
        with opened(settings) as registry:
            registry.fail_campaign(identifier, "The SuperLink did not take the run.")
        if not isinstance(error, ProcessError):
            raise
        raise ProcessError(
            f"Campaign {identifier} was not started: {error.what}",
            meaning=error.meaning,
            action=f"{error.action} Then `wardround coordinator campaign resume {identifier}` "
            "lets it go on.".lstrip(),
            code=error.code,
        ) from error


def prepare_campaign(
    settings: CoordinatorSettings, recipe: Recipe, *, weights: Path | None = None, **chosen: Any
) -> str:
    """Create a campaign and start nothing; see `launch_campaign`."""
    from common.model_files import keeping_batch_norm  # these import torch
    from server.campaigns import create_campaign

    recipe = keeping_batch_norm(recipe, weights)
    with opened(settings) as registry:
        return create_campaign(settings, registry, recipe, weights=weights, **chosen)


def start_campaign(settings: CoordinatorSettings, identifier: str) -> Campaign:
    """Start a Flower run for a campaign that was created.

    Raises
    ------
    RoundFailed
        With code ``campaign-state``, if it was started before.
    ProcessError
        If the SuperLink does not take the run.
    """
    with opened(settings) as registry:
        campaign = registry.campaign(identifier)
        if campaign.state != "created" or campaign.launches:
            raise RoundFailed(
                f"Campaign {identifier} was started before; it is {campaign.state}.",
                action="`wardround coordinator campaign resume` lets a paused one go on.",
                code="campaign-state",
            )
        flower_run.start_run(settings, identifier)
        return registry.moves.note_launch(identifier)


def resume_campaign(settings: CoordinatorSettings, identifier: str) -> Campaign:
    """Let a paused, interrupted or failed campaign go on, at once where no keeper runs.

    Raises
    ------
    RoundFailed
        With code ``campaign-state``, if it cannot be resumed.
    ProcessError
        If no keeper runs, and the SuperLink does not take the run.
    """
    with opened(settings) as registry:
        found = registry.campaign(identifier)
        if found.state in DRIVEN and not is_driven(campaign_folder(settings, identifier)):
            registry.moves.interrupt(identifier, "Its ServerApp was killed.", code="driver-gone")
        resumed = registry.moves.resume(identifier)
        if resumed.state != "interrupted":
            return resumed  # a pause was taken back
        lock = keeper_lock(settings)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return resumed  # the keeper starts it within a second
        try:
            flower_run.start_run(settings, identifier)
        finally:
            lock.release()
        return registry.moves.note_launch(identifier)


def cancel_campaign(settings: CoordinatorSettings, identifier: str) -> Campaign:
    """End a campaign for ever; what single sites sent for it is removed at once.

    Raises
    ------
    RoundFailed
        With code ``campaign-state``, if it is over.
    """
    with opened(settings) as registry:
        cancelled = registry.moves.cancel(identifier)
    remove_answers(campaign_folder(settings, identifier))
    remove_variates(campaign_folder(settings, identifier))
    if cancelled.flower_run is not None:
        with suppress(ProcessError):  # its next write is refused anyway
            flower_run.stop_run(settings, int(cancelled.flower_run))
    return cancelled


def pause_campaign(settings: CoordinatorSettings, identifier: str) -> Campaign:
    """Let a campaign rest when the round in progress is over; raises as `cancel_campaign`."""
    with opened(settings) as registry:
        return registry.moves.pause(identifier)


@contextmanager
def opened(settings: CoordinatorSettings) -> Iterator[Registry]:
    """Open a coordinator's registry until the block ends."""
    registry = Registry.open(settings)
    try:
        yield registry
    finally:
        registry.close()


def watch_campaign(
    settings: CoordinatorSettings,
    identifier: str,
    on_progress: OnProgress | None = None,
    *,
    check: Callable[[], None] = lambda: None,
    timeout: float | None = None,
) -> Campaign:
    """Wait until a campaign is over, or paused.

    Parameters
    ----------
    settings : CoordinatorSettings
        The coordinator's.
    identifier : str
        The campaign's id.
    on_progress : callable, optional
        Called with each change.
    check : callable, optional
        Called at every look; what it raises ends the watch.
    timeout : float, optional
        Seconds; None waits as long as the campaign's own deadlines allow.

    Raises
    ------
    RoundFailed
        If the campaign fails, if nobody drives it for two minutes (code ``run-died``: no keeper
        runs) or the time is over (``campaign-timeout``).
    """
    begin = alone_since = time.monotonic()
    folder = campaign_folder(settings, identifier)
    seen: Progress | None = None
    with opened(settings) as registry:
        while True:
            check()
            progress = _progress(registry, identifier)
            if on_progress is not None and progress != seen:
                on_progress(progress)
            seen = progress
            campaign, now = progress.campaign, time.monotonic()
            if campaign.state in ("finished", "cancelled", "paused"):
                return campaign
            if campaign.state == "failed":
                raise _failed(campaign)
            if is_driven(folder):
                alone_since = now
            elif now - alone_since > ALONE_SECONDS:
                raise RoundFailed(
                    f"Nobody drives campaign {identifier}, which is {campaign.state}.",
                    action="Is its keeper running? `wardround coordinator campaign resume` "
                    "starts it, too.",
                    code="run-died",
                )
            if timeout is not None and now - begin > timeout:
                raise RoundFailed(
                    f"Campaign {identifier} was not done within {timeout:.0f} s.",
                    action="It goes on; `wardround coordinator campaign watch` waits again.",
                    code="campaign-timeout",
                )
            time.sleep(POLL_SECONDS)


def _failed(campaign: Campaign) -> RoundFailed:
    return RoundFailed(
        f"Campaign {campaign.id} failed: {campaign.failure or 'no reason given'}",
        action=f"`wardround coordinator campaign show {campaign.id}` lists its rounds.",
    )


def _progress(registry: Registry, identifier: str) -> Progress:
    return Progress(
        campaign=registry.campaign(identifier),
        rounds=registry.rounds(identifier),
        contributions=registry.contributions(identifier),
    )
