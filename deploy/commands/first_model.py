"""Saying that a campaign would train a classifier on features that nobody ever trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.console import progress_console

if TYPE_CHECKING:
    from pathlib import Path

    from server.settings import CoordinatorSettings


def warn_of_first_model(
    settings: CoordinatorSettings, campaign: str, *, weights: Path | None
) -> bool:
    """Say so on stderr, where only the classifier moves and the rest is random; tell whether.

    It is what a task's first campaign is without weights to start from, by the shipped recipes
    with privacy. Later ones start from the current release.
    """
    from deploy.campaigns import opened

    with opened(settings) as registry:
        made = registry.campaign(campaign)
    head_alone = {phase.scope for phase in made.settings.phases} == {"head"}
    if not head_alone or weights is not None or made.base_release is not None:
        return False
    if made.recipe.model.pretrained:
        return False
    progress_console.print(
        f"Only the classifier of {made.recipe.model.architecture} is trained, and what it sees "
        "are random features: there is no release to start from, and no --weights was given. "
        "docs/campaigns.md says how to start from pretrained ones.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return True
