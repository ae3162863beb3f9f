"""What the `campaign` commands print: one JSON document each, or a line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from deploy.console import emit

if TYPE_CHECKING:
    from server.settings import CoordinatorSettings


class StartedCampaign(BaseModel):
    """The document that ``create`` and ``start`` print with ``--json``.

    ``state`` is ``created`` unless it was watched.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    recipe: str
    rounds: int
    epsilon: float | None
    state: str


class CampaignStanding(BaseModel):
    """The document that ``watch``, ``pause``, ``resume`` and ``cancel`` print with ``--json``.

    ``rounds_done`` of ``rounds`` training rounds are finished.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    state: str
    rounds: int
    rounds_done: int
    failure: str | None


def emit_started(settings: CoordinatorSettings, campaign: str, *, as_json: bool) -> None:
    """Print what was created or started."""
    from deploy.campaigns import opened

    with opened(settings) as registry:
        found = registry.campaign(campaign)
    document = StartedCampaign(
        campaign=campaign,
        recipe=found.recipe.name,
        rounds=found.settings.rounds,
        epsilon=found.settings.epsilon,
        state=found.state,
    )

    def show(console: Console) -> None:
        console.print(f"Campaign {campaign}: {found.state}.", highlight=False)
        where = f"--folder {settings.folder}"
        console.print(
            f"`wardround coordinator campaign show {where} {campaign}` tells more.",
            soft_wrap=True,
        )

    emit(document, as_json=as_json, show=show)


def emit_standing(settings: CoordinatorSettings, campaign: str, *, as_json: bool) -> None:
    """Print where a campaign stands, and why it failed if it did."""
    from deploy.campaigns import opened

    with opened(settings) as registry:
        found, rounds = registry.campaign(campaign), registry.rounds(campaign)
    done = sum(r.purpose == "train" and r.state == "finished" for r in rounds)
    document = CampaignStanding(
        campaign=campaign,
        state=found.state,
        rounds=found.settings.rounds,
        rounds_done=done,
        failure=found.failure,
    )

    def show(console: Console) -> None:
        progress = f"{done} of {found.settings.rounds} rounds are done"
        console.print(f"Campaign {campaign}: {found.state}; {progress}.", highlight=False)
        if found.failure:
            console.print(found.failure, markup=False)

    emit(document, as_json=as_json, show=show)
