"""`wardround coordinator campaign|release list|show`: what the registry holds.

The documents are those of the coordinator's HTTP service, so that a script reads the same from
either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deploy.commands.flags import AsJson, Folder
from deploy.commands.registry_lists import campaigns_table, releases_table
from deploy.console import emit
from deploy.tables import Table

if TYPE_CHECKING:
    from common.evaluation import Metrics
    from common.recipe import AggregationSpec
    from common.records import Forecast, Receipt
    from common.release import GateCheck, ReleaseManifest
    from server.api.campaigns import CampaignDocument, RoundDocument
    from server.registry.registry import Registry
    from server.settings import CoordinatorSettings
    from server.site_answers import SiteAnswer


def list_campaigns(
    folder: Folder = Path(),
    every: Annotated[
        bool, typer.Option("--all", help="With preflights, which only asked the sites.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List campaigns, the newest first."""
    from server.api.campaigns import Campaigns, CampaignSummary

    with opened_registry(folder) as registry:
        listed = registry.campaigns(kind=None if every else "training")
        found = tuple(CampaignSummary.of(campaign) for campaign in listed)

    def show(console: Console) -> None:
        console.print(campaigns_table(found) if found else "There is no campaign yet.")

    emit(Campaigns(campaigns=found), as_json=as_json, show=show)


def show_campaign(
    campaign: Annotated[str, typer.Argument(help="The campaign's id.")],
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Show one campaign: its rounds, what every site did in them, and the gate's verdicts."""
    from server.api.campaigns import CampaignDocument

    with opened_registry(folder) as registry:
        document = CampaignDocument.read(registry, campaign)
    emit(document, as_json=as_json, show=lambda console: _draw_campaign(document, console))


def list_releases(folder: Folder = Path(), as_json: AsJson = False) -> None:
    """List all published releases, the newest first."""
    from server.api.releases import ReleaseDocument, Releases

    with opened_registry(folder) as registry:
        found = tuple(ReleaseDocument.of(release.manifest) for release in registry.releases())

    def show(console: Console) -> None:
        console.print(releases_table(found) if found else "There is no release yet.")

    emit(Releases(releases=found), as_json=as_json, show=show)


def show_release(
    version: Annotated[int, typer.Argument(help="The release's version.", min=1)],
    folder: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Show one release: its manifest with lineage, receipts, metrics and verdicts."""
    with opened_registry(folder) as registry:
        manifest = registry.release(version).manifest
    emit(manifest, as_json=as_json, show=lambda console: _draw_release(manifest, console))


def coordinator_settings(folder: Path) -> CoordinatorSettings:
    """Read the coordinator's settings, from its own folder or the federation's."""
    from server.settings import CoordinatorSettings

    return CoordinatorSettings.find(folder)


@contextmanager
def opened_registry(folder: Path) -> Iterator[Registry]:
    """Open the registry of the coordinator's folder, or the federation's."""
    from server.registry.registry import Registry

    registry = Registry.open(coordinator_settings(folder))
    try:
        yield registry
    finally:
        registry.close()


def _draw_campaign(document: CampaignDocument, console: Console) -> None:
    c = document.campaign
    asked = "without privacy" if c.epsilon is None else f"epsilon {c.epsilon:g}"
    name = "Preflight" if c.kind == "preflight" else "Campaign"
    console.print(
        f"{name} {c.id}: {c.task}, {c.architecture}, {asked}, {_aggregation(c.aggregation)}; "
        f"{c.state}."
    )
    if c.failure:
        console.print(c.failure, style="red", markup=False)
    if c.kind == "preflight":
        draw_answers(document.preflight, console)
        return
    table = Table("round", "purpose", "state", "AUROC", "accuracy", "majority", "sites")
    for r in document.rounds:
        sites = ", ".join(f"{s.site} {s.code or s.outcome}" for s in r.sites)
        table.add_row(str(r.number), r.purpose, r.code or r.state, *_scores(r.metrics), sites)
    console.print(table)
    codes = [code for r in document.rounds for code in (r.code, *(s.code for s in r.sites))]
    _explain({code for code in codes if code}, console)
    last = [r for r in document.rounds if any(s.update_norm is not None for s in r.sites)]
    if last:
        console.print(_deviations(last[-1]))
    for candidate in document.candidates:
        console.print(f"Candidate {candidate.id}: {candidate.state}.")
        told = [candidate.champion_changed]
        if candidate.state == "waiting" and candidate.reason not in told:
            told.append(candidate.reason)
        for sentence in filter(None, told):
            console.print(sentence, style="yellow", markup=False)
        console.print(_verdicts(candidate.checks))
        for check in candidate.checks:
            if not check.passed:
                words = f"{check.name}: {check.explanation}"
                console.print(words, markup=False, highlight=False, soft_wrap=True)


def draw_answers(
    answers: Sequence[SiteAnswer], console: Console, *, title: str | None = None
) -> None:
    """Draw what the sites said that a campaign would cost them."""
    table = Table(
        *("site", "noise", "epsilon (round)", "epsilon (campaign)", "epsilon (life)"),
        *("scores", ""),
        title=title,
    )
    for answer in answers:
        told = answer.forecast
        figures = (
            (told.noise_multiplier, told.epsilon_round, told.epsilon_campaign)
            if told is not None
            else (None,) * 3
        )
        word = "can" if answer.affordable else f"{answer.code}"
        scores = {True: "yes", False: "no", None: "–"}[answer.scores]
        table.add_row(answer.site, *map(_figure, figures), _life(told), scores, word)
    console.print(table)
    _explain({answer.code or "" for answer in answers}, console)


def _explain(codes: set[str], console: Console) -> None:
    """Say in words what the sites' codes mean, each once."""
    from server.outcome_reasons import OUTCOME_REASONS

    for code in sorted(codes & OUTCOME_REASONS.keys()):
        console.print(f"{code}: {OUTCOME_REASONS[code]}", highlight=False)


def _aggregation(spec: AggregationSpec) -> str:
    bound = f", norms at most {spec.norm_multiple:g} x the median" if spec.norm_multiple else ""
    return f"{spec.name}{bound}"


def _deviations(found: RoundDocument) -> Table:
    """Draw how far each update of a round lay from the others; all rounds are in ``--json``."""
    table = Table(
        *("site", "norm", "cosine to the aggregate", "distance to the median"),
        title=f"How far the updates of round {found.number} lie apart (1: a typical distance)",
    )
    for s in found.sites:
        if s.update_norm is not None:
            norm = f"{s.update_norm:.3g}"
            table.add_row(s.site, norm, _figure(s.update_cosine), _figure(s.update_distance))
    return table


def _draw_release(manifest: ReleaseManifest, console: Console) -> None:
    lineage = manifest.lineage
    console.print(
        f"Release v{manifest.version}: {manifest.task}, {manifest.recipe.model.architecture}, "
        f"campaign {lineage.campaign}, {lineage.rounds} rounds, {manifest.created_at:%Y-%m-%d}."
    )
    table = Table("site", "rounds", "epsilon (campaign)", "epsilon (life)", "delta", "patients")
    for part in lineage.sites:
        receipt = part.receipt
        spent = (_figure(receipt.epsilon_campaign if receipt else None), _life(receipt))
        delta = f"{receipt.delta:g}" if receipt and receipt.delta is not None else "–"
        patients = str(receipt.public_patients) if receipt else "–"
        table.add_row(part.site, str(part.rounds), *spent, delta, patients)
    console.print(table)
    auroc, accuracy, majority = _scores(manifest.metrics.candidate)
    console.print(f"Macro AUROC {auroc}, accuracy {accuracy}, majority baseline {majority}.")
    console.print(_verdicts(manifest.gate))


def _verdicts(checks: tuple[GateCheck, ...]) -> Table:
    table = Table("check", "figure", "limit", "verdict")
    for check in checks:
        verdict = ("[green]" if check.passed else "[red]") + check.verdict
        table.add_row(check.name, _figure(check.figure), _figure(check.limit), verdict)
    return table


def _scores(metrics: Metrics | None) -> tuple[str, str, str]:
    if metrics is None:
        return ("–", "–", "–")
    found = (metrics.macro_auroc, metrics.accuracy, metrics.majority_baseline)
    return (_figure(found[0]), _figure(found[1]), _figure(found[2]))


def _life(told: Receipt | Forecast | None) -> str:
    if told is None:
        return _figure(None)
    return "unbounded" if told.life_unbounded else _figure(told.epsilon_life)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
