"""What a site does with its patients: the loss, the local steps, and their privacy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.recipe.part import Part, PositiveFloat

SMALLEST_CLIP = 1e-6
"""Far above the numbers that float32 holds inexactly: scaled by less, a gradient grows again."""


class LossSpec(Part):
    """The loss is always a mean of per-sample terms, so that one patient moves one term.

    ``class_weights`` are public numbers (from literature), one a class in the recipe's order;
    weights counted from a site's own labels would leak them.
    """

    name: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0, le=5)] = 2.0
    class_weights: tuple[PositiveFloat, ...] = ()
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class LocalTraining(Part):
    """What a site does in one round.

    ``sampling_rate`` q is the probability with which each patient enters a local step (Poisson
    sampling under privacy, a shuffled fraction without); the passes over the data of a campaign
    are ``rounds * local_steps * q``. ``proximal_mu`` pulls towards the round's base (FedProx,
    `FederationSpec.algorithm`).
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    local_steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    sampling_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    proximal_mu: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0


class NonPrivateExtras(Part):
    """Techniques that mix patients: refused with privacy, allowed in ``--no-privacy`` studies."""

    mixup_alpha: Annotated[float, Field(ge=0, le=2)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0, le=2)] = 0.0
    balance_classes: bool = False


class PrivacySpec(Part):
    """Patient-level DP-SGD defaults; the site's policy has the last word.

    ``epsilon`` is for one campaign at the site's delta; ``max_grad_norm`` is the clip C;
    ``augmentation_multiplicity`` averages that many augmentations of the one sampled image
    before clipping (De et al. 2022, arXiv:2204.13650). ``trainable`` is as in `ModelSpec`: the
    fewer parameters move, the less noise there is in the sum of their changes.
    """

    epsilon: PositiveFloat = 8.0
    trainable: Literal["all", "bias", "head"] = "all"
    max_grad_norm: Annotated[float, Field(ge=SMALLEST_CLIP, allow_inf_nan=False)] = 1.0
    augmentation_multiplicity: Annotated[int, Field(ge=1, le=32)] = 1
    training: LocalTraining = LocalTraining()
