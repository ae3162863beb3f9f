"""`wardround site budget`: what a site has spent, what is left, and whether the ledger is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.privacy.budget import Epsilon, LedgerState
from client.privacy.budget import read_budget as recompute
from deploy.commands.flags import AsJson, Site
from deploy.commands.planned_campaign import PlannedCampaign, plan_campaign
from deploy.console import emit
from deploy.tables import Table


class BudgetDocument(LedgerState):
    """The document that ``--json`` prints: the budget, and what a planned campaign would cost."""

    planned: PlannedCampaign | None = None


def budget(
    site: Site = Path(),
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Tell what a campaign of so many would cost."),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(min=0.01, help="Its epsilon; the recipe's own by default.")
    ] = None,
    as_json: AsJson = False,
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
    with PrivacyLedger.open(settings) as ledger:
        planned = plan_campaign(ledger, settings, policy, rounds, epsilon) if rounds else None
        found = recompute(settings, policy, ledger)
    return BudgetDocument(**vars(found), planned=planned)


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
    if any(line.epsilon.left > document.life.left for line in document.campaigns):
        console.print(
            f"Whatever is left of a campaign's limit, the site's life has {document.life.left:.3f} "
            "left: none can spend more.",
            highlight=False,
            soft_wrap=True,
        )
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
    if not planned.scores:
        console.print(
            "[yellow]It could not score the model here[/]: too few holdout cases for minimum_cell "
            "of policy.toml, or release_evaluation is false. Where too few sites can, the "
            "coordinator does not start.",
            highlight=False,
            soft_wrap=True,
        )


def _figures(epsilon: Epsilon) -> tuple[str, str, str, str]:
    def text(value: float | None) -> str:
        return "unbounded" if value is None else f"{value:.3f}"

    return text(epsilon.rdp), text(epsilon.prv), f"{epsilon.limit:g}", f"{epsilon.left:.3f}"
