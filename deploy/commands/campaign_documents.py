"""What the `campaign` commands print: one JSON document each, or a line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from deploy.commands.campaign_outcome import (
    CandidateOutcome,
    candidate_of,
    outcome_in_words,
    outcome_of,
)
from deploy.console import emit

if TYPE_CHECKING:
    from server.registry.registry import Registry
    from server.settings import CoordinatorSettings


class StartedCampaign(BaseModel):
    """The document that ``create`` and ``start`` print with ``--json``.

    ``state`` is ``created`` unless it was watched; ``candidate`` is None until there is one.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    recipe: str
    rounds: int
    epsilon: float | None
    state: str
    candidate: CandidateOutcome | None


class CampaignStanding(BaseModel):
    """The document that ``watch``, ``pause``, ``resume`` and ``cancel`` print with ``--json``.

    ``rounds_done`` of ``rounds`` training rounds are finished. ``candidate`` is None until there
    is one: a finished campaign's may have been refused.
    """

    model_config = ConfigDict(frozen=True)

    campaign: str
    state: str
    rounds: int
    rounds_done: int
    failure: str | None
    candidate: CandidateOutcome | None


def emit_started(
    settings: CoordinatorSettings, campaign: str, *, as_json: bool, follow: bool = False
) -> None:
    """Print what was created or started; ``follow`` says how to wait for its end."""
    from deploy.campaigns import opened

    with opened(settings) as registry:
        found = registry.campaign(campaign)
        outcome, words = _outcome(registry, campaign)
    document = StartedCampaign(
        campaign=campaign,
        recipe=found.recipe.name,
        rounds=found.settings.rounds,
        epsilon=found.settings.epsilon,
        state=found.state,
        candidate=outcome,
    )

    def show(console: Console) -> None:
        console.print(f"Campaign {campaign}: {found.state}.", highlight=False)
        _say(words, console)
        if follow:
            _say(f"`{_command('watch', settings, campaign)}` waits for its end.", console)
        _say(f"`{_command('show', settings, campaign)}` tells more.", console)

    emit(document, as_json=as_json, show=show)


def emit_standing(settings: CoordinatorSettings, campaign: str, *, as_json: bool) -> None:
    """Print where a campaign stands, and why it failed if it did."""
    from deploy.campaigns import opened

    with opened(settings) as registry:
        found, rounds = registry.campaign(campaign), registry.rounds(campaign)
        outcome, words = _outcome(registry, campaign)
    done = sum(r.purpose == "train" and r.state == "finished" for r in rounds)
    document = CampaignStanding(
        campaign=campaign,
        state=found.state,
        rounds=found.settings.rounds,
        rounds_done=done,
        failure=found.failure,
        candidate=outcome,
    )

    def show(console: Console) -> None:
        progress = f"{done} of {found.settings.rounds} rounds are done"
        console.print(f"Campaign {campaign}: {found.state}; {progress}.", highlight=False)
        if found.failure:
            console.print(found.failure, markup=False)
        if words:
            _say(words, console)
            _say(f"`{_command('show', settings, campaign)}` tells more.", console)

    emit(document, as_json=as_json, show=show)


def _outcome(registry: Registry, campaign: str) -> tuple[CandidateOutcome | None, str]:
    """Return what became of a campaign's candidate, and the sentence that says so."""
    candidate = candidate_of(registry, campaign)
    if candidate is None:
        return None, ""
    outcome = outcome_of(registry, candidate)
    return outcome, outcome_in_words(candidate, outcome)


def _command(name: str, settings: CoordinatorSettings, campaign: str) -> str:
    return f"wardround coordinator campaign {name} --folder {settings.folder} {campaign}"


def _say(words: str, console: Console) -> None:
    if words:
        console.print(words, markup=False, highlight=False, soft_wrap=True)
