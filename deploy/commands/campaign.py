"""`wardround coordinator campaign create|start|watch|pause|resume|cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from common.recipe import AggregationName, AlgorithmName, load_recipe
from deploy.campaign_file import CampaignFile, read_campaign
from deploy.console import emit, progress

if TYPE_CHECKING:
    from deploy.campaigns import OnProgress, Progress
    from server.registry.records import Campaign
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


Folder = Annotated[Path, typer.Option(help="The federation's or the coordinator's folder.")]
File = Annotated[Path | None, typer.Option("--file", help="A campaign as TOML; flags go before.")]
RecipeName = Annotated[str | None, typer.Option(help="A shipped recipe, or the path of one.")]
Rounds = Annotated[
    int | None, typer.Option(min=1, help="Training rounds; the recipe's own by default.")
]
Epsilon = Annotated[
    float | None, typer.Option(min=0.01, help="Each site's epsilon for the campaign.")
]
NoPrivacy = Annotated[
    bool, typer.Option("--no-privacy", help="A study without differential privacy.")
]
Sites = Annotated[list[str] | None, typer.Option("--site", help="Who takes part; may repeat.")]
Quorum = Annotated[int | None, typer.Option(min=1, help="Successes that a round needs.")]
Deadline = Annotated[
    float | None, typer.Option(min=1, help="Longest wait for a site's answer, seconds.")
]
SiteWait = Annotated[float | None, typer.Option(min=1, help="Longest wait for sites, seconds.")]
Model = Annotated[str | None, typer.Option(help="Another timm network.")]
ImageSize = Annotated[int | None, typer.Option(help="Another image size, pixels.")]
Algorithm = Annotated[
    AlgorithmName | None,
    typer.Option(help="A published method; the recipe's own by default."),
]
Aggregation = Annotated[
    AggregationName | None,
    typer.Option(help="How updates become one; the recipe's own by default."),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Safetensors to start from: timm's for this network, or Wardround's."),
]
Protocol = Annotated[
    Path | None,
    typer.Option(help="TOML that locks the release gate's limits; the recipe's by default."),
]
ByHand = Annotated[
    bool, typer.Option("--by-hand", help="Leave a candidate that passes the gate to a person.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Wait for its end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Identifier = Annotated[str, typer.Argument(help="The campaign's id.")]


def create(
    folder: Folder,
    file: File = None,
    recipe: RecipeName = None,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    no_privacy: NoPrivacy = False,
    site: Sites = None,
    quorum: Quorum = None,
    deadline: Deadline = None,
    site_wait: SiteWait = None,
    model: Model = None,
    image_size: ImageSize = None,
    aggregation: Aggregation = None,
    algorithm: Algorithm = None,
    weights: Weights = None,
    protocol: Protocol = None,
    by_hand: ByHand = False,
    as_json: AsJson = False,
) -> None:
    """Create a campaign, and start nothing yet."""
    chosen = read_campaign(
        file,
        recipe=recipe,
        rounds=rounds,
        epsilon=epsilon,
        private=False if no_privacy else None,
        sites=tuple(site) if site else None,
        quorum=quorum,
        round_deadline_seconds=deadline,
        site_wait_seconds=site_wait,
        model=model,
        image_size=image_size,
        aggregation=aggregation,
        algorithm=algorithm,
        weights=weights,
        protocol=protocol,
        auto_approve=False if by_hand else None,
    )
    settings = _settings(folder)
    _emit_started(settings, _prepare(settings, chosen), as_json=as_json)


def start(
    folder: Folder,
    campaign: Annotated[
        str | None, typer.Argument(help="One that was created; a new one by default.")
    ] = None,
    file: File = None,
    recipe: RecipeName = None,
    rounds: Rounds = None,
    epsilon: Epsilon = None,
    no_privacy: NoPrivacy = False,
    site: Sites = None,
    quorum: Quorum = None,
    deadline: Deadline = None,
    site_wait: SiteWait = None,
    model: Model = None,
    image_size: ImageSize = None,
    aggregation: Aggregation = None,
    algorithm: Algorithm = None,
    weights: Weights = None,
    protocol: Protocol = None,
    by_hand: ByHand = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start a campaign; the coordinator's SuperLink must be running on this machine."""
    from deploy.campaigns import start_campaign

    settings = _settings(folder)
    if campaign is None:
        chosen = read_campaign(
            file,
            recipe=recipe,
            rounds=rounds,
            epsilon=epsilon,
            private=False if no_privacy else None,
            sites=tuple(site) if site else None,
            quorum=quorum,
            round_deadline_seconds=deadline,
            site_wait_seconds=site_wait,
            model=model,
            image_size=image_size,
            aggregation=aggregation,
            algorithm=algorithm,
            weights=weights,
            protocol=protocol,
            auto_approve=False if by_hand else None,
        )
        campaign = _prepare(settings, chosen)
    start_campaign(settings, campaign)
    if watch:
        _watched(settings, campaign, quiet=as_json)
    _emit_started(settings, campaign, as_json=as_json)


def watch(campaign: Identifier, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Wait until a campaign is over, or paused. Exit code 1 when it fails."""
    settings = _settings(folder)
    _watched(settings, campaign, quiet=as_json)
    _emit_standing(settings, campaign, as_json=as_json)


def pause(campaign: Identifier, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """Let a campaign rest when the round in progress is over. It stays so over a restart."""
    from deploy.campaigns import pause_campaign

    settings = _settings(folder)
    pause_campaign(settings, campaign)
    _emit_standing(settings, campaign, as_json=as_json)


def resume(
    campaign: Identifier, folder: Folder = Path(), watch: Watch = False, as_json: AsJson = False
) -> None:
    """Let a paused, interrupted or failed campaign go on from where it was."""
    from deploy.campaigns import resume_campaign

    settings = _settings(folder)
    resume_campaign(settings, campaign)
    if watch:
        _watched(settings, campaign, quiet=as_json)
    _emit_standing(settings, campaign, as_json=as_json)


def cancel(campaign: Identifier, folder: Folder = Path(), as_json: AsJson = False) -> None:
    """End a campaign for ever; what single sites sent for it is removed."""
    from deploy.campaigns import cancel_campaign

    settings = _settings(folder)
    cancel_campaign(settings, campaign)
    _emit_standing(settings, campaign, as_json=as_json)


def _settings(folder: Path) -> CoordinatorSettings:
    from server.settings import CoordinatorSettings

    nested = folder / "coordinator"
    return CoordinatorSettings.read(nested if nested.is_dir() else folder)


def _prepare(settings: CoordinatorSettings, chosen: CampaignFile) -> str:
    from deploy.campaigns import prepare_campaign
    from server.protocol import load_protocol

    recipe = load_recipe(chosen.recipe).with_changes(
        model=chosen.model,
        image_size=chosen.image_size,
        aggregation=chosen.aggregation,
        algorithm=chosen.algorithm,
    )
    other = {"recipe", "model", "image_size", "aggregation", "algorithm", "protocol"}
    protocol = None if chosen.protocol is None else load_protocol(chosen.protocol)
    fields = chosen.model_dump(exclude=other)
    return prepare_campaign(settings, recipe, protocol=protocol, **fields)


def _watched(settings: CoordinatorSettings, campaign: str, *, quiet: bool) -> Campaign:
    from deploy.campaigns import opened, watch_campaign

    with opened(settings) as registry:
        planned = registry.campaign(campaign).settings.rounds
    with progress(quiet=quiet) as display:
        task = display.add_task(f"campaign {campaign}", total=planned)

        def advance(seen: Progress) -> None:
            display.update(task, completed=seen.rounds_done)

        on_progress: OnProgress = advance
        return watch_campaign(settings, campaign, on_progress)


def _emit_started(settings: CoordinatorSettings, campaign: str, *, as_json: bool) -> None:
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


def _emit_standing(settings: CoordinatorSettings, campaign: str, *, as_json: bool) -> None:
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
