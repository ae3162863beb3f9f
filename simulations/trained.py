"""What a campaign's rounds trained, as its registry tells: their passes, and where they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from common.recipe import Recipe
from server.registry.records import Contribution, Round
from simulations.scoring import HospitalImages


class LastPoint(BaseModel):
    """The model after the last round, as the sites' counts score it (a patient's images as one)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    macro_auroc: float | None
    balanced_accuracy: float | None


def trained_passes(
    recipe: Recipe,
    rounds: Sequence[Round],
    contributions: Sequence[Contribution],
    hospitals: Sequence[HospitalImages],
    *,
    private: bool,
) -> float:
    """Return the passes over all training images that a campaign's updates hold.

    The images that the accepted updates of finished rounds were shown (each local step, the
    sampling rate's share), over all that there are: rounds that an early stop left out do not
    count, nor do all sites in a buffered step of a few updates. With privacy a step draws patients,
    and one image of each (`client.training.sampling.sample_patients`): a patient with three
    images shows a third of them. Augmentations of one image, however many, are one.
    """
    local = recipe.privacy.training if private else recipe.training
    numbers = {r.number for r in trained_rounds(rounds)}
    taken = [c for c in contributions if c.outcome == "accepted" and c.round in numbers]
    updates = Counter(c.site for c in taken)
    shown = sum(
        updates[hospital.name]
        * (len(hospital.training.patients) if private else len(hospital.training))
        for hospital in hospitals
    )
    images = sum(len(hospital.training) for hospital in hospitals)
    return shown / max(1, images) * local.local_steps * local.sampling_rate


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
