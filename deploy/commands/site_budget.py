"""`wardround site budget`: what a site has spent, what is left, and whether the ledger is whole."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from common.errors import PrivacyRefused
from deploy.commands.planned_campaign import PlannedCampaign, plan_campaign
from deploy.console import emit

if TYPE_CHECKING:
    pass


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Epsilon(_Document):
    """Upper bounds by Renyi and by PRV accounting; None where no finite bound can be given."""

    rdp: float | None
    prv: float | None
    limit: float
    left: float


class CampaignBudget(_Document):
    """One campaign's spending. ``rounds`` counts reservations, whatever became of them."""

    campaign: str
    rounds: int
    without_privacy: int
    epsilon: Epsilon


class LedgerEntry(_Document):
    """One line of the ledger."""

    sequence: int
    kind: str
    campaign: str
    round: int
    noise_multiplier: float
    sampling_rate: float
    steps: int
    max_grad_norm: float
    outcome: str | None
    written_at: datetime


class BudgetDocument(_Document):
    """The document that ``--json`` prints.

    ``chain_whole`` is False when a line was changed or lost; ``fault`` then says which.
    ``guaranteed`` is False when a round without privacy has ended the guarantee for the site's
    life: ``life`` then covers the other rounds only. ``left`` is by the running (RDP) bound.
    """

    site: str
    delta: float
    chain_whole: bool
    fault: str | None
    guaranteed: bool
    rounds_without_privacy: int
    life: Epsilon
    campaigns: tuple[CampaignBudget, ...]
    planned: PlannedCampaign | None = None
    lines: tuple[LedgerEntry, ...]


def budget(
    site: Annotated[
        Path, typer.Option("--site", envvar="WARDROUND_SITE_FOLDER", help="The site's folder.")
    ] = Path(),
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Tell what a campaign of so many would cost."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(min=0.01, help="Its epsilon; the recipe's own by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Show the privacy ledger: epsilon spent and left, recomputed from its lines.

    With --rounds, also what a planned campaign of the site's recipe would cost.

    Exit code 3 when the ledger was changed or has lost lines.
    """
    document = read_budget(site, rounds=rounds, epsilon=epsilon)
    emit(document, as_json=as_json, show=lambda console: _show(document, console))
    if not document.chain_whole:
        raise typer.Exit(3)


def read_budget(
    site: Path, *, rounds: int | None = None, epsilon: float | None = None
) -> BudgetDocument:
    """Recompute a site's budget, PRV included; takes seconds where there are many rounds.

    Raises
    ------
    ConfigurationError, PrivacyRefused, StoreError
        If settings, policy or database cannot be read.
    """
    from client.policy import SitePolicy
    from client.privacy.ledger import PrivacyLedger
    from client.settings import SiteSettings

    settings = SiteSettings.read(site)
    policy = SitePolicy.read(settings.folder / "policy.toml")
    fault = None
    with PrivacyLedger.open(settings) as ledger:
        try:
            ledger.verify_chain()
        except PrivacyRefused as error:
            fault = error.what
        lines = ledger.entries()
        planned = plan_campaign(ledger, settings, policy, rounds, epsilon) if rounds else None
        rdp = ledger.spent(policy.delta)
        prv = ledger.spent(policy.delta, kind="prv")
    reserved = [line for line in lines if line.kind == "reserve"]
    campaigns = []
    for campaign, spent in rdp.campaigns.items():
        own = [line for line in reserved if line.campaign == campaign]
        campaigns.append(
            CampaignBudget(
                campaign=campaign,
                rounds=len(own),
                without_privacy=sum(line.spend is None for line in own),
                epsilon=_epsilon(spent, prv.campaigns[campaign], policy.epsilon_campaign),
            )
        )
    return BudgetDocument(
        site=settings.name,
        delta=policy.delta,
        chain_whole=fault is None,
        fault=fault,
        guaranteed=rdp.rounds_without_privacy == 0,
        rounds_without_privacy=rdp.rounds_without_privacy,
        life=_epsilon(rdp.life, prv.life, policy.epsilon_life),
        campaigns=tuple(campaigns),
        planned=planned,
        lines=tuple(LedgerEntry.model_validate(vars(line)) for line in lines),
    )


def _epsilon(rdp: float, prv: float, limit: float) -> Epsilon:
    finite = float("inf")
    return Epsilon(
        rdp=rdp if rdp < finite else None,
        prv=prv if prv < finite else None,
        limit=limit,
        left=max(0.0, limit - rdp),
    )


def _show(document: BudgetDocument, console: Console) -> None:
    table = Table(title=f"Privacy budget of {document.site} (delta {document.delta:g})")
    for heading in ("campaign", "rounds", "epsilon (RDP)", "epsilon (PRV)", "limit", "left"):
        table.add_column(heading, justify="left" if heading == "campaign" else "right")
    for line in document.campaigns:
        rounds = f"{line.rounds}" + (
            f" ({line.without_privacy} without privacy)" if line.without_privacy else ""
        )
        table.add_row(line.campaign, rounds, *_figures(line.epsilon))
    table.add_section()
    total = str(sum(line.rounds for line in document.campaigns))
    table.add_row("life of the site", total, *_figures(document.life))
    console.print(table)
    _show_planned(document.planned, console)
    if document.rounds_without_privacy:
        console.print(
            f"[bold red]{document.rounds_without_privacy} rounds ran without privacy[/]: no "
            "epsilon covers them, and none covers the site's life any more."
        )
    whole = f"The ledger's {len(document.lines)} lines are whole."
    console.print(whole if document.chain_whole else f"[bold red]{document.fault}[/]")


def _show_planned(planned: PlannedCampaign | None, console: Console) -> None:
    if planned is None:
        return
    if not planned.affordable:
        console.print(
            f"[bold red]This site would refuse a campaign of {planned.rounds} rounds[/] "
            f"({planned.code}): {planned.reason} {planned.action or ''}".rstrip(),
            highlight=False,
            soft_wrap=True,
        )
        return
    life = "unbounded" if planned.epsilon_life is None else f"{planned.epsilon_life:.3f}"
    console.print(
        f"A campaign of {planned.rounds} rounds would train with noise multiplier "
        f"{planned.noise_multiplier:.3f} and come to epsilon {planned.epsilon_campaign:.3f} "
        f"({planned.epsilon_round:.3f} for one round alone); the site's life would stand at "
        f"{life}.",
        highlight=False,
    )


def _figures(epsilon: Epsilon) -> tuple[str, str, str, str]:
    def text(value: float | None) -> str:
        return "unbounded" if value is None else f"{value:.3f}"

    return text(epsilon.rdp), text(epsilon.prv), f"{epsilon.limit:g}", f"{epsilon.left:.3f}"
