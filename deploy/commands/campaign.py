"""`wardround coordinator campaign start`: launch a campaign on a running federation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from common.recipe import AggregationName, load_recipe
from deploy.console import emit, progress

if TYPE_CHECKING:
    from deploy.campaigns import OnProgress, Progress


class StartedCampaign(BaseModel):
    """The document that ``--json`` prints. ``state`` is ``created`` unless it was watched."""

    model_config = ConfigDict(frozen=True)

    campaign: str
    recipe: str
    rounds: int
    epsilon: float | None
    state: str


def start(
    folder: Annotated[Path, typer.Option(help="The federation's or the coordinator's folder.")],
    recipe: Annotated[str, typer.Option(help="A shipped recipe, or the path of one.")],
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Training rounds; the recipe's own by default.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(min=0.01, help="Each site's epsilon for the campaign.")
    ] = None,
    no_privacy: Annotated[
        bool, typer.Option("--no-privacy", help="A study without differential privacy.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Another timm network.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Another image size, pixels.")] = None,
    aggregation: Annotated[
        AggregationName | None,
        typer.Option(help="How updates become one; the recipe's own by default."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Safetensors to start from: timm's for this network, or Wardround's."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for its end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Start a campaign; the coordinator's SuperLink must be running on this machine."""
    from deploy.campaigns import launch_campaign, watch_campaign
    from server.settings import CoordinatorSettings

    nested = folder / "coordinator"
    settings = CoordinatorSettings.read(nested if nested.is_dir() else folder)
    chosen = load_recipe(recipe).with_changes(
        model=model, image_size=image_size, aggregation=aggregation
    )
    campaign = launch_campaign(
        settings,
        chosen,
        rounds=rounds,
        epsilon=epsilon,
        private=not no_privacy,
        weights=weights,
    )
    planned = rounds or chosen.federation.rounds
    state = "created"
    if watch:
        with progress(quiet=as_json) as display:
            task = display.add_task(f"campaign {campaign}", total=planned)

            def advance(seen: Progress) -> None:
                display.update(task, completed=seen.rounds_done)

            on_progress: OnProgress = advance
            state = watch_campaign(settings, campaign, on_progress).state
    asked = None if no_privacy else epsilon or chosen.privacy.epsilon
    document = StartedCampaign(
        campaign=campaign, recipe=chosen.name, rounds=planned, epsilon=asked, state=state
    )

    def show(console: Console) -> None:
        console.print(f"Campaign {campaign}: {state}.", highlight=False)
        console.print(f"`wardround coordinator campaign show {campaign}` tells more.")

    emit(document, as_json=as_json, show=show)
