"""`wardround coordinator campaign preflight`: what a campaign would cost each site."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from common.wording import listed, number
from deploy.campaign_file import CampaignFile
from deploy.commands.campaign_choice import chosen_campaign
from deploy.commands.campaign_flags import CampaignFlags
from deploy.commands.flag_groups import spread_flags
from deploy.commands.flags import AsJson, Folder
from deploy.commands.registry import coordinator_settings, draw_answers
from deploy.console import emit, progress
from server.site_answers import SiteAnswer

if TYPE_CHECKING:
    from rich.progress import Progress

    from server.registry.records import Campaign, SiteForecast
    from server.registry.registry import Registry

NO_QUORUM = 3


class Need(BaseModel):
    """How many sites a setting asks for, whose setting it is, and how it is changed.

    ``quorum`` is of each round; ``minimum_sites`` of the release gate, which refuses the candidate
    of fewer. ``met`` counts the sites that did not say no.
    """

    model_config = ConfigDict(frozen=True)

    setting: str
    sites: int
    origin: str
    change: str
    met: bool


class PreflightDocument(BaseModel):
    """The document that ``--json`` prints. ``campaign`` is the id under which it was asked.

    ``rounds`` are the model's, ``site_rounds`` how often one site trains at most, which is what
    the forecasts are of: more than ``rounds`` where rounds are buffered. ``cannot_score`` names the
    sites that said that nothing of their holdout could leave. ``possible`` is False where no round
    could meet its quorum, or too few sites could score the candidate for it ever to be released.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    recipe: str
    rounds: int
    site_rounds: int
    epsilon: float | None
    quorum: int
    possible: bool
    needs: tuple[Need, ...]
    sites: tuple[SiteAnswer, ...]
    cannot_score: tuple[str, ...] = ()


@spread_flags
def preflight(folder: Folder, flags: CampaignFlags, as_json: AsJson = False) -> None:
    """Ask every site what a campaign would cost it. Nothing is trained, nothing is spent.

    It takes the flags of create and start. Exit code 3 when too few sites could take part, or
    could score the model for the release gate.
    """
    from deploy.campaigns import launch_campaign, opened, watch_campaign

    chosen = flags.read()
    settings = coordinator_settings(folder)
    asked, fields = chosen_campaign(settings, chosen)
    identifier = launch_campaign(settings, asked, only_preflight=True, **fields)
    with opened(settings) as registry, progress(quiet=as_json) as display:
        check = _follow(display, registry, identifier)
        watch_campaign(settings, identifier, check=check)
        document = preflight_document(
            registry.campaign(identifier), registry.forecasts(identifier), chosen
        )
    emit(document, as_json=as_json, show=lambda console: _show(document, console))
    if not document.possible:
        raise typer.Exit(NO_QUORUM)


def preflight_document(
    campaign: Campaign, forecasts: tuple[SiteForecast, ...], chosen: CampaignFile
) -> PreflightDocument:
    """Return the document of what the sites said, and of what was asked of them."""
    from server.rounds.preflight import hopeful_sites, is_possible, sites_that_cannot_score

    settings, hopeful = campaign.settings, hopeful_sites(forecasts)
    least = campaign.limits.minimum_sites
    needs = (
        Need(
            setting="quorum",
            sites=settings.quorum,
            origin="the recipe" if chosen.quorum is None else "this campaign",
            change="--quorum, or `quorum` of a campaign file",
            met=hopeful >= settings.quorum,
        ),
        Need(
            setting="minimum_sites",
            sites=least,
            origin="the recipe" if chosen.protocol is None else f"{chosen.protocol}",
            change="`minimum_sites` in [limits] of a protocol file, given with --protocol",
            met=hopeful >= least,
        ),
    )
    return PreflightDocument(
        campaign=campaign.id,
        recipe=campaign.recipe.name,
        rounds=settings.rounds,
        site_rounds=settings.site_rounds,
        epsilon=settings.epsilon,
        quorum=settings.quorum,
        possible=is_possible(campaign, forecasts),
        needs=needs,
        sites=tuple(SiteAnswer.of(told) for told in forecasts),
        cannot_score=sites_that_cannot_score(forecasts),
    )


def _follow(display: Progress, registry: Registry, campaign: str) -> Callable[[], None]:
    """Return what shows, at each look, whom the preflight waits for."""
    task = display.add_task("asking the sites", total=None)
    seconds = registry.campaign(campaign).settings.site_wait_seconds

    def look() -> None:
        words = waited_for(registry.forecasts(campaign), seconds=seconds)
        display.update(task, description=words)

    return look


def waited_for(forecasts: tuple[SiteForecast, ...], *, seconds: float) -> str:
    """Say in one line for whom a preflight waits; ``seconds`` is the longest wait to connect."""
    from server.rounds.preflight import ASKED, AWAITED

    absent = ", ".join(f.site for f in forecasts if f.code == AWAITED)
    if absent:
        return f"waiting for {absent} to connect, {seconds:.0f} s at most"
    silent = ", ".join(f.site for f in forecasts if f.code == ASKED)
    return f"waiting for the answer of {silent}" if silent else "asking the sites"


def _show(document: PreflightDocument, console: Console) -> None:
    privacy = "without privacy" if document.epsilon is None else f"epsilon {document.epsilon:g}"
    turns = f" (a site trains {document.site_rounds} times at most)"
    title = (
        f"{document.rounds} rounds of {document.recipe}"
        f"{turns if document.site_rounds != document.rounds else ''}, {privacy}"
    )
    draw_answers(document.sites, console, title=title)
    able = sum(answer.affordable for answer in document.sites)
    console.print(f"{able} of {len(document.sites)} sites can.", highlight=False)
    what = {"quorum": "A round needs", "minimum_sites": "The release gate asks for"}
    for need in document.needs:
        words = f"{what[need.setting]} {need.sites} (`{need.setting}` of {need.origin})"
        change = "." if need.met else f", which is out of reach. To change it: {need.change}."
        console.print(words + change, highlight=False, soft_wrap=True, markup=False)
    _show_scoring(document, console)
    if not document.possible:
        why = ": its candidate could not be released" if document.needs[0].met else ""
        console.print(f"[bold red]It cannot be started{why}.[/]")
    elif all(need.met for need in document.needs):
        console.print("It can be started.")
    else:
        console.print("It can be started, but [bold red]its candidate could not be released[/].")


def _show_scoring(document: PreflightDocument, console: Console) -> None:
    if not document.cannot_score:
        return
    least = next(need.sites for need in document.needs if need.setting == "minimum_sites")
    console.print(
        f"The release gate asks for {number(least, 'site')} to have scored the candidate, and "
        f"{listed(document.cannot_score)} could not: a site scores where its holdout has as many "
        "cases of a class as `minimum_cell` of its policy says, and `release_evaluation` is true.",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
