"""`wardround coordinator campaign preflight`: what a campaign would cost each site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from common.recipe import load_recipe
from common.records import Forecast
from common.refusals import SITE_REFUSALS
from deploy.console import RECIPE_HELP, emit, progress

if TYPE_CHECKING:
    from server.registry.records import SiteForecast

NO_QUORUM = 3


class SiteAnswer(BaseModel):
    """One site's answer; ``code`` says why it cannot, or did not answer."""

    model_config = ConfigDict(frozen=True)

    site: str
    affordable: bool
    code: str | None
    forecast: Forecast | None


class PreflightDocument(BaseModel):
    """The document that ``--json`` prints. ``campaign`` is the id under which it was asked."""

    model_config = ConfigDict(frozen=True)

    campaign: str
    recipe: str
    rounds: int
    epsilon: float | None
    quorum: int
    possible: bool
    sites: tuple[SiteAnswer, ...]


def preflight(
    folder: Annotated[Path, typer.Option(help="The federation's or the coordinator's folder.")],
    recipe: Annotated[
        str,
        typer.Option(help=RECIPE_HELP),
    ],
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Training rounds.", show_default="the recipe's")
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Each site's epsilon for the campaign.", show_default="the recipe's"
        ),
    ] = None,
    no_privacy: Annotated[
        bool, typer.Option("--no-privacy", help="A study without differential privacy.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Another timm network.", show_default="the recipe's")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Another image size, pixels.", show_default="the recipe's")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask every site what a campaign would cost it. Nothing is trained, nothing is spent.

    Exit code 3 when too few sites could take part.
    """
    from deploy.campaigns import launch_campaign, watch_campaign
    from server.registry.registry import Registry
    from server.settings import CoordinatorSettings

    nested = folder / "coordinator"
    settings = CoordinatorSettings.read(nested if nested.is_dir() else folder)
    identifier = launch_campaign(
        settings,
        load_recipe(recipe).with_changes(model=model, image_size=image_size),
        rounds=rounds,
        epsilon=epsilon,
        private=not no_privacy,
        only_preflight=True,
    )
    with progress(quiet=as_json) as display:
        display.add_task("asking the sites", total=None)
        state = watch_campaign(settings, identifier, failing=False).state
    registry = Registry.open(settings)
    try:
        campaign = registry.campaign(identifier)
        document = PreflightDocument(
            campaign=identifier,
            recipe=campaign.recipe.name,
            rounds=campaign.settings.rounds,
            epsilon=campaign.settings.epsilon,
            quorum=campaign.settings.quorum,
            possible=state == "finished",
            sites=tuple(_answer(told) for told in registry.forecasts(identifier)),
        )
    finally:
        registry.close()
    emit(document, as_json=as_json, show=lambda console: _show(document, console))
    if not document.possible:
        raise typer.Exit(NO_QUORUM)


def _answer(told: SiteForecast) -> SiteAnswer:
    return SiteAnswer(
        site=told.site, affordable=told.affordable, code=told.code, forecast=told.forecast
    )


def _show(document: PreflightDocument, console: Console) -> None:
    asked = "without privacy" if document.epsilon is None else f"epsilon {document.epsilon:g}"
    table = Table(
        *("site", "noise", "epsilon (round)", "epsilon (campaign)", "epsilon (life)", ""),
        title=f"{document.rounds} rounds of {document.recipe}, {asked}",
    )
    for answer in document.sites:
        told = answer.forecast
        figures = (
            (told.noise_multiplier, told.epsilon_round, told.epsilon_campaign, told.epsilon_life)
            if told is not None
            else (None,) * 4
        )
        word = "can" if answer.affordable else f"{answer.code}"
        table.add_row(answer.site, *("–" if f is None else f"{f:.3f}" for f in figures), word)
    console.print(table)
    codes = {a.code or "" for a in document.sites}
    for code in sorted(codes & SITE_REFUSALS.keys()):
        console.print(f"{code}: {SITE_REFUSALS[code]}", highlight=False)
    able = sum(a.affordable for a in document.sites)
    verdict = "It can be started." if document.possible else "[bold red]It cannot be started.[/]"
    console.print(
        f"{able} of {len(document.sites)} sites can; {document.quorum} are needed. {verdict}",
        highlight=False,
    )
