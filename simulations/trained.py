"""What a campaign's rounds trained, as its registry tells: their passes, and where they ended."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from common.recipe import Recipe
from server.registry.records import Contribution, Round


class LastPoint(BaseModel):
    """The model after the last round, as the sites' counts score it (a patient's images as one)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    macro_auroc: float | None
    balanced_accuracy: float | None


def trained_passes(
    recipe: Recipe,
    rounds: Sequence[Round],
    contributions: Sequence[Contribution],
    *,
    sites: int,
    private: bool,
) -> float:
    """Return the passes over each site's training data that a campaign's updates hold, the mean.

    Accepted updates of finished rounds, a site, x local steps x sampling rate: rounds that an early
    stop left out do not count, nor do all sites in a buffered step of a few updates.
    """
    local = recipe.privacy.training if private else recipe.training
    numbers = {r.number for r in trained_rounds(rounds)}
    accepted = sum(c.outcome == "accepted" and c.round in numbers for c in contributions)
    return accepted / max(1, sites) * local.local_steps * local.sampling_rate


def trained_rounds(rounds: Sequence[Round]) -> list[Round]:
    """Return the training rounds that ended well."""
    return [r for r in rounds if r.purpose == "train" and r.state == "finished"]


def last_point(recipe: Recipe, rounds: Sequence[Round]) -> LastPoint | None:
    """Return the last model's scores, where they are of the same kind as the rounds'."""
    # With layers of the sites' own the rounds score another model than the one that is judged.
    number = max((r.number for r in trained_rounds(rounds)), default=0)
    if not number or recipe.federation.local_layers:
        return None
    for found in rounds:
        if found.purpose == "evaluate" and found.number > number and found.metrics is not None:
            metrics = found.metrics
            return LastPoint(
                macro_auroc=metrics.macro_auroc, balanced_accuracy=metrics.balanced_accuracy
            )
    return None
