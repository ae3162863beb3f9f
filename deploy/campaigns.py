"""Launching a campaign on a running federation, and watching it to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import ProcessError, RoundFailed
from common.recipe import Recipe
from deploy import flower_run
from server.registry.records import Campaign, Contribution, Round
from server.registry.registry import Registry
from server.settings import CoordinatorSettings

POLL_SECONDS = 0.25
RUN_CHECK_SECONDS = 20.0
"""Between looks at Flower's own state of the run: each costs a process."""
UNANSWERED_CHECKS = 5
"""Looks in a row that may fail before the watch ends: a busy machine answers late."""


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
    settings: CoordinatorSettings,
    recipe: Recipe,
    *,
    rounds: int | None = None,
    epsilon: float | None = None,
    private: bool = True,
    quorum: int | None = None,
    weights: Path | None = None,
    only_preflight: bool = False,
) -> str:
    """Create a campaign in the registry and start the Flower run that carries it.

    Parameters
    ----------
    settings : CoordinatorSettings
        Of a coordinator whose SuperLink runs on this machine.
    recipe : Recipe
        What is trained.
    rounds, quorum : int, optional
        The recipe's own by default.
    epsilon : float, optional
        Asked of each site for the whole campaign; the recipe's own by default.
    private : bool, default True
        False asks for a study without privacy, which a site's policy may refuse.
    weights : Path, optional
        A safetensors file to start from, in place of random weights. Where it holds BatchNorm
        statistics (timm's published weights do), they are kept, frozen.
    only_preflight : bool, default False
        Only ask the sites what the campaign would cost them.

    Returns
    -------
    str
        The campaign's id.

    Raises
    ------
    ProcessError
        If the SuperLink does not take the run; the campaign is marked as failed.
    """
    from common.model_files import holds_batch_norm  # these import torch
    from server.campaigns import create_campaign

    if weights is not None and holds_batch_norm(weights):
        recipe = recipe.with_changes(normalisation="frozen")
    registry = Registry.open(settings)
    try:
        identifier = create_campaign(
            settings,
            registry,
            recipe,
            rounds=rounds,
            epsilon=epsilon,
            private=private,
            quorum=quorum,
            weights=weights,
            only_preflight=only_preflight,
        )
        try:
            flower_run.start_run(settings, identifier)
        except BaseException:
            registry.fail_campaign(identifier, "The SuperLink did not take the run.")
            raise
    finally:
        registry.close()
    return identifier


def watch_campaign(
    settings: CoordinatorSettings,
    identifier: str,
    on_progress: OnProgress | None = None,
    *,
    check: Callable[[], None] = lambda: None,
    timeout: float | None = None,
    failing: bool = True,
) -> Campaign:
    """Wait for a campaign's end.

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
    failing : bool, default True
        Whether a failed campaign raises; it is returned otherwise.

    Raises
    ------
    RoundFailed
        If the campaign fails, its run dies (code ``run-died``) or the time is over
        (``campaign-timeout``).
    """
    registry = Registry.open(settings)
    begin = last_run_check = time.monotonic()
    seen: Progress | None = None
    unanswered = 0
    try:
        while True:
            check()
            progress = _progress(registry, identifier)
            if on_progress is not None and progress != seen:
                on_progress(progress)
            seen = progress
            campaign = progress.campaign
            if campaign.state == "finished" or (campaign.state == "failed" and not failing):
                return campaign
            if campaign.state == "failed":
                raise RoundFailed(
                    f"Campaign {identifier} failed: {campaign.failure or 'no reason given'}",
                    action=f"`wardround coordinator campaign show {identifier}` lists its rounds.",
                )
            now = time.monotonic()
            if now - last_run_check > RUN_CHECK_SECONDS:
                last_run_check = now
                unanswered = _check_run(settings, registry, campaign, unanswered)
            if timeout is not None and now - begin > timeout:
                raise RoundFailed(
                    f"Campaign {identifier} was not done within {timeout:.0f} s.",
                    code="campaign-timeout",
                )
            time.sleep(POLL_SECONDS)
    finally:
        registry.close()


def _progress(registry: Registry, identifier: str) -> Progress:
    return Progress(
        campaign=registry.campaign(identifier),
        rounds=registry.rounds(identifier),
        contributions=registry.contributions(identifier),
    )


def _check_run(
    settings: CoordinatorSettings, registry: Registry, campaign: Campaign, unanswered: int
) -> int:
    """Fail a campaign whose ServerApp is gone: nothing else would ever say so.

    Returns how many looks in a row were not answered.
    """
    if campaign.flower_run is None:
        return 0
    try:
        state = flower_run.run_state(settings, int(campaign.flower_run))
    except ProcessError:
        if unanswered + 1 >= UNANSWERED_CHECKS:
            raise
        return unanswered + 1
    if state in ("failed", "stopped") or (
        state == "completed" and registry.campaign(campaign.id).state == "running"
    ):
        registry.fail_campaign(campaign.id, f"Its Flower run is {state}.")
        raise RoundFailed(
            f"Campaign {campaign.id} lost its Flower run ({state}).",
            action="Read logs/superexec.log and logs/superlink.log, then start a new campaign.",
            code="run-died",
        )
    return 0
