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

    See `server.campaigns.random_features`.
    """
    from deploy.campaigns import opened
    from server.campaigns import random_features

    with opened(settings) as registry:
        made = registry.campaign(campaign)
    said = random_features(made, weights=weights)
    if said:
        progress_console.print(said, markup=False, highlight=False, soft_wrap=True)
    return bool(said)
